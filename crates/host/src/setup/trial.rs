//! A change that could lock somebody out: before it is made, what it replaces is written down, and a process of its own is started that
//! puts it back unless another connection has confirmed the change. When the power goes meanwhile, it is put back at the next boot,
//! before sshd starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{Act, Change, place};
use serde::{Deserialize, Serialize};

use super::firewall::Table;
use super::system::{failed, run};
use super::{files, firewall, record, sshd, units};
use crate::lock::ProcessLock;
use crate::program;

/// Until it is taken back.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

/// For the process that takes it back to be there.
const GUARDED: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// The lock of the process that takes it back.
const DEAD_MAN: &str = "dead-man";

/// What is on trial, and what was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    token: String,
    /// The changes.
    changes: Vec<Change>,
    /// The kernel's rules before.
    table: Table,
    /// The file that is loaded at boot, before; `None`: there was none.
    rules: Option<String>,
    /// sshd's file before; `None`: there was none.
    sshd: Option<String>,
}

/// On trial.
fn path(layout: &Layout) -> PathBuf {
    record::folder(layout).join("trial.json")
}

/// Being taken back.
fn taken(layout: &Layout) -> PathBuf {
    record::folder(layout).join("trial.taken-back.json")
}

/// Confirmed, and being made to last.
fn confirmed(layout: &Layout) -> PathBuf {
    record::folder(layout).join("trial.confirmed.json")
}

/// The last one that was confirmed and lasts: whoever did not hear so may ask again.
fn kept(layout: &Layout) -> PathBuf {
    record::folder(layout).join("trial.kept.json")
}

fn read(path: &Path) -> Option<Trial> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn is_of(path: &Path, token: &str) -> bool {
    read(path).is_some_and(|trial| trial.token == token)
}

fn has_firewall(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change.act, Act::Firewall { .. }))
}

/// Makes the changes, on trial.
pub(super) async fn begin(layout: &Layout, changes: Vec<Change>) -> Result<String, Failure> {
    let trial = Trial {
        token: uuid::Uuid::now_v7().to_string(),
        table: if has_firewall(&changes) { firewall::table(layout).await? } else { Table::None },
        rules: files::read(place::FIREWALL),
        sshd: files::read(place::SSHD),
        changes,
    };
    let text = serde_json::to_string(&trial).map_err(|error| failed(GUARD).because(error.to_string()))?;
    files::write(&path(layout).to_string_lossy(), &text, 0o600)?;
    let made = async {
        let mut command = units::scope(layout, &format!("cutover-dead-man-{}", trial.token), &program::own());
        command.args(["dead-man", &trial.token]);
        guard(layout, command).await?;
        make(layout, &trial.changes).await
    };
    let Err(failure) = made.await else { return still_on_trial(layout, &trial).await.map(|()| trial.token) };
    let mut failure = failure.while_serving("what was on trial was taken back; what was serving goes on");
    if let Err(other) = take_back(layout, &trial.token).await {
        failure = failure
            .while_serving("not all of what was on trial could be taken back; what was serving goes on");
        failure.cause.push(other.what);
        failure.cause.extend(other.cause);
    }
    Err(failure)
}

const GUARD: &str = "guard a change that could lock you out";

/// What took so long that it was taken back meanwhile may have been changed after that: it is taken back once more.
async fn still_on_trial(layout: &Layout, trial: &Trial) -> Result<(), Failure> {
    if is_of(&path(layout), &trial.token) {
        return Ok(());
    }
    put_back(layout, trial).await?;
    Err(failed("change firewall and sshd")
        .because(format!("it took more than {} s, and was taken back meanwhile", PATIENCE.as_secs()))
        .while_serving("firewall and sshd are as they were before; what was serving goes on")
        .next("run `cutover setup` again when the server has less to do"))
}

async fn make(layout: &Layout, changes: &[Change]) -> Result<(), Failure> {
    for change in changes {
        match &change.act {
            Act::Firewall { rules, .. } => firewall::load(layout, rules).await?,
            Act::Sshd { text, .. } => {
                files::write(place::SSHD, text, 0o644)?;
                sshd::check().await?;
                let found = sshd::look().await;
                if found.passwords {
                    let what = "let sshd accept keys only";
                    return Err(failed(what)
                        .because(format!("{} is written, and sshd still accepts passwords: another of its files says so first", place::SSHD))
                        .next("see that /etc/ssh/sshd_config begins with `Include /etc/ssh/sshd_config.d/*.conf`")
                        .next("or switch this off: `setup: { ssh_hardening: false }` of the environment"));
                }
                sshd::reload().await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Starts the process that takes it back, outside of the session, and waits until it is there: without it nothing is changed.
async fn guard(layout: &Layout, mut command: Command) -> Result<(), Failure> {
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let unguarded = |why: String| {
        failed(GUARD)
            .because(format!("the process that would take it back is not there: {why}"))
            .next("see what systemd says on the server (`journalctl -u 'cutover-dead-man*'`), then run `cutover setup` again")
    };
    let mut child = command.spawn().map_err(|error| unguarded(error.to_string()))?;
    let end = tokio::time::Instant::now() + GUARDED;
    // What starts it becomes it: it is the same process.
    while ProcessLock::peek(layout, DEAD_MAN) != Some(child.id()) {
        match child.try_wait() {
            Ok(Some(status)) => return Err(unguarded(format!("it ended with {status}"))),
            Ok(None) if tokio::time::Instant::now() < end => tokio::time::sleep(LOOK).await,
            Ok(None) => return Err(unguarded(format!("it did not begin within {} s", GUARDED.as_secs()))),
            Err(error) => return Err(unguarded(error.to_string())),
        }
    }
    Ok(())
}

/// What is on trial stays: it is kept over a reboot. Asked again it says the same.
///
/// # Errors
/// When it was taken back meanwhile, or cannot be made to last.
pub async fn confirm(layout: &Layout, token: &str) -> Result<(), Failure> {
    if is_of(&kept(layout), token) {
        return Ok(());
    }
    if is_of(&path(layout), token) {
        // Whoever takes the file away first decides: here, or the process that takes it back.
        let renamed = std::fs::rename(path(layout), confirmed(layout));
        renamed.map_err(|_| too_late())?;
    }
    let trial = read(&confirmed(layout)).filter(|trial| trial.token == token).ok_or_else(too_late)?;
    keep(layout, &trial).await
}

/// Makes what was confirmed last. Done again when it was broken off.
async fn keep(layout: &Layout, trial: &Trial) -> Result<(), Failure> {
    for change in &trial.changes {
        let Act::Firewall { rules, .. } = &change.act else { continue };
        files::write(place::FIREWALL, rules, 0o644)?;
        // After a reboot in between they are not loaded any more.
        if firewall::loaded(layout).await.is_none() {
            firewall::load(layout, rules).await?;
        }
    }
    if units::is_systemd() && has_firewall(&trial.changes) {
        run("load the firewall at boot", &["systemctl", "daemon-reload"]).await?;
        run("load the firewall at boot", &["systemctl", "enable", place::FIREWALL_UNIT]).await?;
    }
    let lasts = std::fs::rename(confirmed(layout), kept(layout));
    lasts.map_err(|error| failed("keep what was on trial").because(error.to_string()))
}

fn too_late() -> Failure {
    failed("keep what was on trial")
        .because("it was taken back already: the confirmation came too late")
        .next("run `cutover setup` again")
}

/// Puts back what was there before. Done again when it was broken off; what was taken back already is as good.
///
/// # Errors
/// When it was confirmed and lasts, or something could not be put back.
pub async fn take_back(layout: &Layout, token: &str) -> Result<(), Failure> {
    if is_of(&kept(layout), token) {
        return Err(failed("take back what was on trial").because("it was confirmed, and stays"));
    }
    // What was confirmed and could not be made to last goes, too: who asks is the one who confirms.
    take(layout, token, &[path(layout), confirmed(layout)]).await
}

/// The same for whoever does not confirm: what another has confirmed is about to last, and is left to him.
async fn take_back_unconfirmed(layout: &Layout, token: &str) -> Result<(), Failure> {
    take(layout, token, &[path(layout)]).await
}

/// Whoever confirms comes too late from here on.
async fn take(layout: &Layout, token: &str, places: &[PathBuf]) -> Result<(), Failure> {
    for from in places {
        if is_of(from, token) && std::fs::rename(from, taken(layout)).is_ok() {
            break;
        }
    }
    match read(&taken(layout)).filter(|trial| trial.token == token) {
        Some(trial) => finish_taking_back(layout, &trial).await,
        None => Ok(()),
    }
}

async fn finish_taking_back(layout: &Layout, trial: &Trial) -> Result<(), Failure> {
    put_back(layout, trial).await?;
    files::remove(&taken(layout).to_string_lossy())
}

async fn put_back(layout: &Layout, trial: &Trial) -> Result<(), Failure> {
    let mut outcome = Ok(());
    for change in &trial.changes {
        let put = match &change.act {
            Act::Firewall { .. } => put_back_firewall(layout, trial).await,
            Act::Sshd { .. } => put_back_sshd(trial).await,
            _ => Ok(()),
        };
        outcome = outcome.and(put);
    }
    outcome
}

async fn put_back_firewall(layout: &Layout, trial: &Trial) -> Result<(), Failure> {
    firewall::put_back(layout, &trial.table).await?;
    match &trial.rules {
        Some(rules) => files::write(place::FIREWALL, rules, 0o644),
        None => files::remove(place::FIREWALL),
    }
}

async fn put_back_sshd(trial: &Trial) -> Result<(), Failure> {
    match &trial.sshd {
        Some(text) => files::write(place::SSHD, text, 0o644)?,
        None => files::remove(place::SSHD)?,
    }
    sshd::reload().await
}

/// Brings to its end what an earlier setup that was killed left: what was confirmed is kept, what was not is taken back.
pub(super) async fn clear(layout: &Layout) -> Result<(), Failure> {
    if let Some(trial) = read(&confirmed(layout)) {
        keep(layout, &trial).await?;
    }
    if let Some(trial) = read(&taken(layout)) {
        finish_taking_back(layout, &trial).await?;
    }
    match read(&path(layout)) {
        Some(trial) => take_back_unconfirmed(layout, &trial.token).await,
        None => Ok(()),
    }
}

/// Whoever asks about the last one hears nothing any more: what it kept is gone.
pub(super) fn forget(layout: &Layout) -> Result<(), Failure> {
    files::remove(&kept(layout).to_string_lossy())
}

/// The process that waits: takes it back when its time is over, and ends when it is on trial no longer; `None`: at once, whatever is on
/// trial (at boot).
///
/// # Errors
/// When something could not be put back.
pub async fn expire(layout: &Layout, token: Option<&str>) -> Result<(), Failure> {
    let Some(token) = token else {
        return clear(layout).await;
    };
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "it leads a session already");
    }
    let end = tokio::time::Instant::now() + PATIENCE;
    let _guards = loop {
        match ProcessLock::take(layout, DEAD_MAN) {
            Ok(lock) => break lock,
            // The one of an earlier trial ends as soon as it sees that.
            Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(failed(GUARD).because(error.to_string())),
        }
    };
    // Whoever takes it back now is let finish: two at once reload sshd under each other. If he dies over it, it is done here.
    let goes_on = || is_of(&path(layout), token) || is_of(&taken(layout), token);
    while goes_on() && tokio::time::Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
    if goes_on() { take_back_unconfirmed(layout, token).await } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_trial(layout: &Layout, token: &str) {
        let trial = Trial {
            token: token.to_owned(),
            changes: Vec::new(),
            table: Table::None,
            rules: None,
            sshd: None,
        };
        let text = serde_json::to_string(&trial).unwrap();
        files::write(&path(layout).to_string_lossy(), &text, 0o600).unwrap();
    }

    #[tokio::test]
    async fn without_the_process_that_would_take_it_back_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let mut refused = Command::new("/bin/sh");
        refused.args(["-c", "exit 7"]);

        let failure = guard(&layout, refused).await.unwrap_err();

        assert!(failure.cause[0].contains("exit status: 7"), "{:?}", failure.cause);
    }

    #[tokio::test]
    async fn who_did_not_hear_that_it_is_kept_may_ask_again_and_it_is_taken_back_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        on_trial(&layout, "one");

        confirm(&layout, "one").await.unwrap();
        confirm(&layout, "one").await.unwrap();

        assert!(take_back(&layout, "one").await.unwrap_err().cause[0].contains("it was confirmed"));
        expire(&layout, Some("one")).await.unwrap();
        assert!(is_of(&kept(&layout), "one"));
    }

    #[tokio::test]
    async fn what_was_taken_back_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        on_trial(&layout, "one");

        take_back(&layout, "one").await.unwrap();

        assert!(confirm(&layout, "one").await.unwrap_err().cause[0].contains("taken back already"));
        take_back(&layout, "one").await.unwrap();
    }

    #[tokio::test]
    async fn what_was_confirmed_in_the_last_moment_is_left_to_who_confirms() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        on_trial(&layout, "one");
        std::fs::rename(path(&layout), confirmed(&layout)).unwrap();

        take_back_unconfirmed(&layout, "one").await.unwrap();

        assert!(is_of(&confirmed(&layout), "one"));
        take_back(&layout, "one").await.unwrap();
        assert!(!confirmed(&layout).exists());
    }

    #[tokio::test]
    async fn what_another_takes_back_is_left_to_him_as_long_as_there_is_time() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        on_trial(&layout, "one");
        std::fs::rename(path(&layout), taken(&layout)).unwrap();

        let waits = tokio::time::timeout(Duration::from_secs(1), expire(&layout, Some("one"))).await;

        assert!(waits.is_err() && is_of(&taken(&layout), "one"));
    }

    #[tokio::test]
    async fn what_could_not_be_made_to_last_is_still_there_to_be_taken_back_or_kept() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        on_trial(&layout, "one");
        // The disk is full: the last step fails.
        std::fs::create_dir_all(kept(&layout).join("in the way")).unwrap();
        assert!(confirm(&layout, "one").await.is_err());
        assert!(is_of(&confirmed(&layout), "one"));
        std::fs::remove_dir_all(kept(&layout)).unwrap();

        clear(&layout).await.unwrap();

        assert!(is_of(&kept(&layout), "one"));
    }
}
