//! `guestbook bot`: stands for a bot that polls a service which allows one poller only. Each poll leaves a line in a
//! ledger that all instances append to, so that two at once, or a long silence, can be counted afterwards.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::behaviour::{Behaviour, BehaviourError};
use crate::settings::{self, Identity, SettingsError};
use crate::{complain, say};

const PERIOD: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(crate) enum BotError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Behaviour(#[from] BehaviourError),
    #[error("the ledger {path} cannot be opened: {source}")]
    Ledger { path: String, source: std::io::Error },
    #[error("the ledger cannot be written: {0}")]
    Write(#[source] std::io::Error),
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Event {
    Start,
    Poll,
    Stop,
}

/// A line of the ledger. Times are microseconds of the machine's monotonic clock, the same for all its processes.
#[derive(Serialize)]
struct Line<'a> {
    instance: &'a str,
    release: &'a str,
    pid: u32,
    event: Event,
    at_us: u64,
}

struct Ledger {
    file: File,
    instance: String,
    release: String,
}

impl Ledger {
    fn open(path: &Path) -> Result<Self, BotError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|source| BotError::Ledger { path: path.display().to_string(), source })?;
        // A pid comes again, the moment of a start does not.
        let instance = format!("{}-{}", std::process::id(), now_us());
        Ok(Self { file, instance, release: Identity::from_environment().release })
    }

    /// One line, one write: lines of several instances do not mix.
    fn write(&mut self, event: Event) -> Result<(), BotError> {
        let line = Line {
            instance: &self.instance,
            release: &self.release,
            pid: std::process::id(),
            event,
            at_us: now_us(),
        };
        let mut text = serde_json::json!(line).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(BotError::Write)
    }
}

pub(crate) fn run() -> Result<ExitCode, BotError> {
    let behaviour = Behaviour::load(Path::new("."))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(poll_until_told(&behaviour))
}

async fn poll_until_told(behaviour: &Behaviour) -> Result<ExitCode, BotError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for name in &behaviour.requires {
        settings::required(name)?;
    }
    sleep(Duration::from_millis(behaviour.start_delay_ms)).await;
    if let Some(code) = behaviour.exit_at_start {
        complain(&format!("guestbook: behaviour.json says: exit with {code}"));
        return Ok(ExitCode::from(code));
    }
    let mut ledger = Ledger::open(&settings::bot_ledger()?)?;
    ledger.write(Event::Start)?;
    say(greeting().as_str());
    say("polling started");
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv(), if !behaviour.ignore_stop => break,
            _ = interrupt.recv(), if !behaviour.ignore_stop => break,
            _ = tick.tick() => ledger.write(Event::Poll)?,
        }
    }
    sleep(Duration::from_millis(behaviour.stop_delay_ms)).await;
    ledger.write(Event::Stop)?;
    say("polling stopped");
    Ok(ExitCode::SUCCESS)
}

/// What this release of the bot says to people; a release may change it.
fn greeting() -> String {
    std::fs::read_to_string("greeting.txt").map_or_else(|_| "hello".to_owned(), |text| text.trim().to_owned())
}

fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec) * 1_000_000 + part(now.tv_nsec) / 1_000
}
