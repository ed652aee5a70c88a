//! Units of systemd: asked for, started, and made for what must outlive us (S11).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{Unit, place};

use super::files;
use super::system::{ask, run};
use crate::program;

/// Whether systemd starts processes here.
pub(super) fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether proxy and watch of this installation are units here.
pub fn are_installed(layout: &Layout) -> bool {
    *layout == Layout::system()
        && is_systemd()
        && [place::PROXY_UNIT, place::WATCH_UNIT]
            .iter()
            .all(|unit| Path::new(place::UNITS).join(unit).exists())
}

pub(super) async fn look(names: &[&str]) -> BTreeMap<String, Unit> {
    if !is_systemd() {
        return BTreeMap::new();
    }
    let mut words = vec!["systemctl", "show", "--property=Id,ActiveState,SubState,UnitFileState"];
    words.extend(names);
    read(&ask(&words).await.out)
}

/// `systemctl show`: a block of lines for each unit, an empty line between.
fn read(said: &str) -> BTreeMap<String, Unit> {
    let blocks = said.split("\n\n").filter_map(|block| {
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let unit = Unit {
            enabled: value("UnitFileState") == Some("enabled"),
            // One that waits for its turn is activating; one that fails, too, until it is started again.
            active: matches!(value("ActiveState"), Some("active" | "activating" | "reloading"))
                && value("SubState") != Some("auto-restart"),
        };
        Some((value("Id")?.to_owned(), unit))
    });
    blocks.collect()
}

/// Starts units now and at boot. Those that wait for their turn (the lock of a proxy that still serves) are not waited for.
///
/// # Errors
/// When systemd refuses.
pub(super) async fn enable(names: &BTreeSet<String>) -> Result<(), Failure> {
    let what = "start units";
    run(what, &["systemctl", "daemon-reload"]).await?;
    let mut words = vec!["systemctl", "enable"];
    words.extend(names.iter().map(String::as_str));
    run(what, &words).await?;
    let started: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| *name != place::DEAD_MAN_UNIT).collect();
    if started.is_empty() {
        return Ok(());
    }
    run(what, &[&["systemctl", "start", "--no-block"], started.as_slice()].concat()).await.map(drop)
}

/// Stops units, now and at boot; one that is gone already is as good.
pub(super) async fn disable(names: &BTreeSet<String>) {
    let named: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| *name != place::DEAD_MAN_UNIT).collect();
    ask(&[&["systemctl", "disable", "--now"], named.as_slice()].concat()).await;
}

/// Takes the units of proxy and watch away: stopped, and not counted on by whoever starts the two next.
///
/// # Errors
/// When a file stays.
pub(super) async fn take_away() -> Result<(), Failure> {
    let units = [place::PROXY_UNIT, place::WATCH_UNIT];
    disable(&units.map(str::to_owned).into()).await;
    for unit in units {
        files::remove(&format!("{}/{unit}", place::UNITS))?;
    }
    run("let systemd forget the units", &["systemctl", "daemon-reload"]).await.map(drop)
}

/// Starts proxy and watch by their units.
///
/// # Errors
/// When systemd refuses.
pub async fn start() -> Result<(), Failure> {
    run("start proxy and watch", &["systemctl", "start", "--no-block", place::PROXY_UNIT, place::WATCH_UNIT])
        .await
        .map(drop)
}

/// A command that executes `program` in a unit of its own, where systemd would end it with us or with our session (S11). The process is the
/// same, with its streams and variables: systemd-run makes the unit, moves itself there, and becomes the program.
pub fn scope(layout: &Layout, name: &str, program: &Path) -> Command {
    if *layout != Layout::system() || !is_systemd() || !rustix::process::geteuid().is_root() {
        return program::command(program);
    }
    let mut command = Command::new("/usr/bin/systemd-run");
    command.args([
        "--scope",
        "--collect",
        "--quiet",
        "--slice=cutover.slice",
        &format!("--unit={name}"),
        "--",
    ]);
    command.arg(executable(program));
    command
}

/// By its path: what `/proc/self/exe` means changes with the one who looks. An old program stays at its path (S23).
fn executable(program: &Path) -> PathBuf {
    let path = std::fs::read_link(program).unwrap_or_else(|_| program.to_owned());
    if path.is_file() { path } else { PathBuf::from(format!("/proc/{}/exe", std::process::id())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_starts_counts_as_active_and_one_that_is_not_there_as_neither() {
        let said = "Id=a.service\nActiveState=activating\nSubState=start\nUnitFileState=enabled\n\nId=c.service\nActiveState=activating\nSubState=auto-restart\nUnitFileState=enabled\n\nId=b.service\nActiveState=inactive\nUnitFileState=\n";
        let units = read(said);
        assert_eq!(units["a.service"], Unit { enabled: true, active: true });
        assert_eq!(units["c.service"], Unit { enabled: true, active: false });
        assert_eq!(units["b.service"], Unit { enabled: false, active: false });
    }
}
