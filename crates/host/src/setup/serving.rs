//! Whether the units of proxy and watch serve: waited for, but not for one that systemd starts in vain. As long as nobody serves, requests wait.

use std::time::{Duration, Instant};

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::place;

use super::handover::{LONG, LOOK};
use super::system::{ask, failed};
use crate::lock::ProcessLock;

/// After so many starts in vain another would be one, too.
const IN_VAIN: u32 = 3;
/// What cannot be started at all has ended long before.
const STEADY: Duration = Duration::from_millis(300);

/// How often systemd has started a unit again since it was first looked at.
#[derive(Debug, Default)]
struct Restarts {
    seen: Option<u32>,
    since: u32,
}

impl Restarts {
    /// Whether they are too many, with what systemd counts now: it begins anew with a start by hand.
    fn are_too_many(&mut self, now: u32) -> bool {
        self.since += self.seen.map_or(0, |seen| now.saturating_sub(seen));
        self.seen = Some(now);
        self.since >= IN_VAIN
    }
}

/// Returns when the proxy of the unit answers, and watch of its unit is at work.
///
/// # Errors
/// When one of them does not come up.
pub(super) async fn serves(layout: &Layout) -> Result<(), Failure> {
    let answers = async || {
        works(layout, place::PROXY_UNIT, "proxy").await
            && tokio::net::UnixStream::connect(layout.proxy_socket()).await.is_ok()
    };
    until(&PROXY, answers).await?;
    until(&WATCH, async || works(layout, place::WATCH_UNIT, "watch").await).await
}

/// Returns when the unit's proxy has been started and waits for the one that serves to end.
///
/// # Errors
/// When it cannot be started: nobody was ended for it.
pub(super) async fn waits_for_its_turn() -> Result<(), Failure> {
    let mut begun = None;
    let is_steady = async || {
        let now = main_process(place::PROXY_UNIT).await.map(|pid| (pid, Instant::now()));
        match (begun, now) {
            (Some((pid, since)), Some((same, now))) if pid == same => now.duration_since(since) >= STEADY,
            _ => {
                begun = now;
                false
            }
        }
    };
    until(&PROXY, is_steady).await
}

/// A unit, and what a person is told of it.
struct Told {
    what: &'static str,
    unit: &'static str,
    log: &'static str,
}

const PROXY: Told =
    Told { what: "start the proxy", unit: place::PROXY_UNIT, log: "/var/log/cutover/proxy.log" };
const WATCH: Told = Told { what: "start watch", unit: place::WATCH_UNIT, log: "/var/log/cutover/watch.log" };

async fn until(told: &Told, mut is_so: impl AsyncFnMut() -> bool) -> Result<(), Failure> {
    let Told { what, unit, log } = told;
    let mut restarts = Restarts::default();
    let comes = async {
        while !is_so().await {
            if restarts.are_too_many(restarts_of(unit).await) {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    };
    let why = match tokio::time::timeout(LONG, comes).await {
        Ok(true) => return Ok(()),
        Ok(false) => format!("{unit} ends each time that systemd starts it"),
        Err(_) => format!("{unit} does not answer after {} s", LONG.as_secs()),
    };
    let next = format!("`journalctl -u {unit}` and {log} on the server say why");
    Err(failed(what).because(why).next(next))
}

/// Whether the process of a unit is the one that has the lock of its kind.
pub(super) async fn works(layout: &Layout, unit: &str, process: &str) -> bool {
    let main = main_process(unit).await;
    main.is_some() && main == ProcessLock::peek(layout, process)
}

/// What a unit was started for.
pub(super) async fn main_process(unit: &str) -> Option<u32> {
    number("MainPID", unit).await.filter(|pid| *pid != 0)
}

async fn restarts_of(unit: &str) -> u32 {
    number("NRestarts", unit).await.unwrap_or_default()
}

async fn number(property: &str, unit: &str) -> Option<u32> {
    let said = ask(&["systemctl", "show", &format!("--property={property}"), "--value", unit]).await;
    said.out.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_started_again_before_and_anew_by_hand_does_not_count() {
        let mut restarts = Restarts::default();
        let said = [7, 7, 8, 0, 1, 1, 2].map(|now| restarts.are_too_many(now));
        assert_eq!(said, [false, false, false, false, false, false, true]);
    }
}
