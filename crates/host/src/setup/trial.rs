//! A change that could lock somebody out: before it is made, what it replaces is written down, and a process of its own is started that
//! puts it back unless another connection has confirmed the change. When the power goes meanwhile, it is put back at the next boot,
//! before sshd starts.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{Act, Change, place};
use serde::{Deserialize, Serialize};

use super::system::{failed, run};
use super::{files, firewall, record, sshd, units};
use crate::program;

/// Until it is taken back.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

/// What is on trial, and what was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    token: String,
    /// The changes.
    changes: Vec<Change>,
    /// The rules before; `None`: there were none of ours.
    rules: Option<String>,
    /// sshd's file before; `None`: there was none.
    sshd: Option<String>,
}

fn path(layout: &Layout) -> PathBuf {
    record::folder(layout).join("trial.json")
}

fn taken(layout: &Layout) -> PathBuf {
    record::folder(layout).join("trial.taken-back.json")
}

/// Makes the changes, on trial.
pub(super) async fn begin(layout: &Layout, changes: Vec<Change>) -> Result<String, Failure> {
    let trial = Trial {
        token: uuid::Uuid::now_v7().to_string(),
        rules: firewall::loaded(layout).await,
        sshd: files::read(place::SSHD),
        changes,
    };
    let text = serde_json::to_string(&trial)
        .map_err(|error| failed("guard a change that could lock you out").because(error.to_string()))?;
    files::write(&path(layout).to_string_lossy(), &text, 0o600)?;
    guard(layout, &trial.token)?;
    let made = make(layout, &trial.changes).await;
    if let Err(failure) = made {
        take_back(layout, &trial.token).await?;
        return Err(failure.while_serving("what was on trial was taken back; what was serving goes on"));
    }
    Ok(trial.token)
}

async fn make(layout: &Layout, changes: &[Change]) -> Result<(), Failure> {
    for change in changes {
        match &change.act {
            Act::Firewall { rules, .. } => firewall::load(layout, rules).await?,
            Act::Sshd { text } => {
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

/// Starts the process that takes it back. It lives outside of the session.
fn guard(layout: &Layout, token: &str) -> Result<(), Failure> {
    let mut command = units::scope(layout, &format!("cutover-dead-man-{token}"), &program::own());
    command.args(["dead-man", token]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = command.spawn();
    started
        .map(drop)
        .map_err(|error| failed("guard a change that could lock you out").because(error.to_string()))
}

/// What is on trial stays: it is kept over a reboot.
///
/// # Errors
/// When it was taken back meanwhile.
pub async fn confirm(layout: &Layout, token: &str) -> Result<(), Failure> {
    let trial = pending(layout).filter(|trial| trial.token == token).ok_or_else(too_late)?;
    // Whoever takes the file away first decides: here, or the process that takes it back.
    std::fs::remove_file(path(layout)).map_err(|_| too_late())?;
    for change in &trial.changes {
        if let Act::Firewall { rules, .. } = &change.act {
            files::write(place::FIREWALL, rules, 0o644)?;
        }
    }
    if units::is_systemd() && trial.changes.iter().any(|change| matches!(change.act, Act::Firewall { .. })) {
        run("load the firewall at boot", &["systemctl", "daemon-reload"]).await?;
        run("load the firewall at boot", &["systemctl", "enable", place::FIREWALL_UNIT]).await?;
    }
    Ok(())
}

fn too_late() -> Failure {
    failed("keep what was on trial")
        .because("it was taken back already: the confirmation came too late")
        .next("run `cutover setup` again")
}

fn pending(layout: &Layout) -> Option<Trial> {
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    read(path(layout)).or_else(|| read(taken(layout)))
}

/// Puts back what was there before. Done again when it was broken off.
///
/// # Errors
/// When something could not be put back.
pub async fn take_back(layout: &Layout, token: &str) -> Result<(), Failure> {
    let Some(trial) = pending(layout).filter(|trial| trial.token == token) else { return Ok(()) };
    // Whoever confirms comes too late from here on.
    if std::fs::rename(path(layout), taken(layout)).is_err() && !taken(layout).exists() {
        return Ok(());
    }
    put_back(layout, &trial).await?;
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
    let Some(rules) = &trial.rules else {
        firewall::unload().await?;
        return files::remove(place::FIREWALL);
    };
    firewall::load(layout, rules).await?;
    files::write(place::FIREWALL, rules, 0o644)
}

async fn put_back_sshd(trial: &Trial) -> Result<(), Failure> {
    match &trial.sshd {
        Some(text) => files::write(place::SSHD, text, 0o644)?,
        None => files::remove(place::SSHD)?,
    }
    sshd::reload().await
}

/// Takes back whatever is on trial: what an earlier setup that was killed left.
pub(super) async fn clear(layout: &Layout) -> Result<(), Failure> {
    match pending(layout) {
        Some(trial) => take_back(layout, &trial.token).await,
        None => Ok(()),
    }
}

/// The process that waits: takes it back when its time is over; `None`: at once, whatever is on trial (at boot).
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
    tokio::time::sleep(PATIENCE).await;
    take_back(layout, token).await
}
