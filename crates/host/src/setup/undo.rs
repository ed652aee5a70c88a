//! `teardown`: what setup did is undone, by its record; data, packages and what runs stay.

use std::collections::BTreeSet;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::setup::{Record, engine_file_without, place};

use super::system::{ask, run};
use super::{carry, files, firewall, record, sshd, trial, units};

const UNITS: [&str; 4] = [place::WATCH_UNIT, place::PROXY_UNIT, place::FIREWALL_UNIT, place::DEAD_MAN_UNIT];
const FILES: [&str; 4] = [place::FIREWALL, place::SSHD, place::LOGROTATE, place::UPGRADES];

/// What it would do.
///
/// # Errors
/// When other apps were set up here.
pub fn look(layout: &Layout, app: &AppId) -> Result<Vec<String>, Failure> {
    let record = record::read(layout)?;
    refuse_others(&record, app)?;
    Ok(lines(&record))
}

fn refuse_others(record: &Record, app: &AppId) -> Result<(), Failure> {
    let app = app.to_string();
    let others: Vec<&str> = record.apps.keys().filter(|other| **other != app).map(String::as_str).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "this server is set up for other apps, too")
        .because(others.join(", "))
        .next(format!("`cutover remove` takes {app} off and leaves the server as it is"))
        .next("teardown for the others first, if the server is to be given up"))
}

fn lines(record: &Record) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let files = ours(record);
    let units = UNITS.iter().filter(|unit| files.contains(&format!("{}/{unit}", place::UNITS)));
    lines.extend(units.map(|unit| format!("stop {unit}, now and at boot")));
    lines.extend(files.iter().map(|file| format!("remove {file}")));
    if !record.engine_keys.is_empty() {
        let keys: Vec<&str> = record.engine_keys.keys().map(String::as_str).collect();
        lines.push(format!("take {} out of {}", keys.join(", "), place::ENGINE));
    }
    let user = if record.user { " and the deploy user with its keys" } else { "" };
    lines.push(format!("remove {}{user}", place::LINK));
    if !record.packages.is_empty() {
        let names: Vec<&str> = record.packages.iter().map(String::as_str).collect();
        lines.push(format!("packages stay: {}", names.join(", ")));
    }
    lines.push(
        "data stays: /var/lib/cutover, /var/backups/cutover, /var/log/cutover, volumes and containers"
            .to_owned(),
    );
    lines
}

/// Undoes it. Done again when it was broken off.
///
/// # Errors
/// At the first step that fails.
pub async fn undo(layout: &Layout, app: &AppId) -> Result<Vec<String>, Failure> {
    let _alone = carry::alone(layout)?;
    let record = record::read(layout)?;
    refuse_others(&record, app)?;
    trial::clear(layout).await?;
    trial::forget(layout)?;
    let done = lines(&record);
    if units::is_systemd() {
        for unit in UNITS {
            // One that is gone already is as good.
            ask(&["systemctl", "disable", "--now", unit]).await;
        }
    }
    firewall::unload().await?;
    let files = ours(&record);
    for file in &files {
        files::remove(file)?;
    }
    if files.contains(place::SSHD) {
        sshd::reload().await?;
    }
    engine_file(&record)?;
    super::keys::remove_user(record.user).await?;
    if units::is_systemd() {
        run("let systemd forget the units", &["systemctl", "daemon-reload"]).await?;
    }
    files::remove(place::LINK)?;
    record::forget(layout)?;
    Ok(done)
}

/// Files that are ours: by the record, and where that was lost by what they say of themselves.
fn ours(record: &Record) -> BTreeSet<String> {
    let units = UNITS.iter().map(|unit| format!("{}/{unit}", place::UNITS));
    let known = FILES.iter().map(|file| (*file).to_owned()).chain(units);
    let says_so =
        |path: &String| files::read(path).is_some_and(|text| text.contains("Written by cutover setup"));
    record.files.iter().cloned().chain(known.filter(says_so)).collect()
}

/// It takes effect when the engine is started next: nothing that runs is restarted for it.
fn engine_file(record: &Record) -> Result<(), Failure> {
    let Some(text) = files::read(place::ENGINE).filter(|_| !record.engine_keys.is_empty()) else {
        return Ok(());
    };
    match engine_file_without(&text, &record.engine_keys) {
        Ok(Some(left)) => files::write(place::ENGINE, &left, files::mode(place::ENGINE).unwrap_or(0o644)),
        Ok(None) => files::remove(place::ENGINE),
        // Somebody made it something else: it is theirs.
        Err(_) => Ok(()),
    }
}
