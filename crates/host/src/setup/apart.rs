//! The hand-over in a process of its own, `cutover-host handover`: from the offer of the sockets until who comes serves, or who was there has them
//! back. The session of a setup or an upgrade begins it and waits for its outcome; one that dies, or loses its client, changes nothing (S11).
//!
//! It acts only on an order, which it is given once it holds its lock: whoever is alone on the server, and finds the lock free, has nobody
//! beside them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::handover::{self, LOOK};
use super::system::failed;
use super::units;
use crate::lock::{LockError, ProcessLock};
use crate::program;

/// Its lock, and the name of its log.
const HANDOVER: &str = "handover";
/// For the process to be there: nothing is done before.
const BEGUN: Duration = Duration::from_secs(20);
/// For its outcome: more than all that it waits for may take together.
const OUTCOME: Duration = Duration::from_mins(20);
/// For one that an earlier setup or upgrade began to end: a proxy lets requests finish, the next one begins.
const TURN: Duration = Duration::from_mins(2);

/// What is to be done, a line of its input.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(super) enum Order {
    /// Start units.
    Start {
        /// Which.
        units: BTreeSet<String>,
        /// The folder of the program that serves until then.
        old: Option<String>,
    },
    /// Let proxy and watch go on with the program that was installed.
    Renew {
        /// The folder of the program that serves until then.
        old: Option<String>,
        /// Of the one that was installed.
        new: String,
    },
}

/// What it says, each on a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
enum Said {
    /// It is there, and waits for its order.
    Ready,
    Done,
    Failed {
        failure: Box<Failure>,
    },
}

/// Has an order carried out, outside of this session, and waits for the outcome.
///
/// # Errors
/// Those of the hand-over; when its process cannot begin, or ends without a word.
pub(super) async fn carry_out(layout: &Layout, order: &Order) -> Result<(), Failure> {
    let not_begun = |why: String| {
        let log = layout.process_log(HANDOVER);
        failed("begin to hand proxy and watch over")
            .because(why)
            .next(format!("see what the server says of it ({}, `journalctl`), then try again", log.display()))
    };
    let mut child = begin(layout).map_err(|error| not_begun(error.to_string()))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(not_begun("its process has no streams".to_owned()));
    };
    let mut output = BufReader::new(output).lines();
    match tokio::time::timeout(BEGUN, heard(&mut output)).await {
        Ok(Some(Said::Ready)) => {}
        Ok(Some(Said::Failed { failure })) => return Err(*failure),
        Ok(Some(Said::Done) | None) => return Err(not_begun(ended(&mut child).await)),
        Err(_) => return Err(not_begun(format!("it is not there after {} s", BEGUN.as_secs()))),
    }
    let mut text = serde_json::to_vec(order).map_err(|error| not_begun(error.to_string()))?;
    text.push(b'\n');
    input.write_all(&text).await.map_err(|error| not_begun(error.to_string()))?;
    let unknown = |why: String| {
        failed("learn how the hand-over of proxy and watch ended")
            .because(why)
            .while_serving("not known: the one that served may have been ended before the next one was there")
            .next("`cutover setup` goes on from there; where no unit serves then, `cutover-host up` on the server does")
            .next(format!("{} on the server says what it was at", layout.process_log(HANDOVER).display()))
    };
    match tokio::time::timeout(OUTCOME, heard(&mut output)).await {
        Ok(Some(Said::Done)) => Ok(()),
        Ok(Some(Said::Failed { failure })) => Err(*failure),
        Ok(Some(Said::Ready) | None) => Err(unknown(ended(&mut child).await)),
        Err(_) => Err(unknown(format!("it still goes on after {} min", OUTCOME.as_secs() / 60))),
    }
}

fn begin(layout: &Layout) -> std::io::Result<Child> {
    std::fs::create_dir_all(layout.logs())?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(layout.process_log(HANDOVER))?;
    let unit = format!("cutover-handover-{}", uuid::Uuid::now_v7());
    let mut command = units::scope(layout, &unit, &program::own());
    command.arg(HANDOVER).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    Command::from(command).spawn()
}

/// The next thing it says; `None`: it has ended.
async fn heard(output: &mut Lines<BufReader<ChildStdout>>) -> Option<Said> {
    let line = output.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// How a process that says no more has ended.
async fn ended(child: &mut Child) -> String {
    match tokio::time::timeout(BEGUN, child.wait()).await {
        Ok(Ok(status)) => format!("its process ended without a word ({status})"),
        Ok(Err(error)) => format!("its process is lost: {error}"),
        Err(_) => "its process says no more".to_owned(),
    }
}

/// Returns when no hand-over goes on: one that an earlier setup or upgrade began does so without it.
///
/// # Errors
/// When it takes too long.
pub(super) async fn over(layout: &Layout) -> Result<(), Failure> {
    let end = tokio::time::Instant::now() + TURN;
    while goes_on(layout) {
        if tokio::time::Instant::now() >= end {
            let by = ProcessLock::peek(layout, HANDOVER);
            let by = by.map_or_else(|| "by another process".to_owned(), |pid| format!("by process {pid}"));
            return Err(at_work(layout, &by));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Whether proxy and watch are being handed over.
pub fn goes_on(layout: &Layout) -> bool {
    ProcessLock::is_held(layout, HANDOVER)
}

fn at_work(layout: &Layout, by: &str) -> Failure {
    let mut failure = failed("begin").because(format!("proxy and watch are being handed over already, {by}"));
    failure.exit = Exit::Locked;
    failure
        .next("wait for its end, then try again")
        .next(format!("{} on the server says what it is at", layout.process_log(HANDOVER).display()))
}

/// `cutover-host handover`: carries out the order on its input, to its end.
pub async fn main(layout: Layout) -> ExitCode {
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "no session of its own");
    }
    let said = match ProcessLock::take(&layout, HANDOVER) {
        Ok(_lock) => match ordered() {
            Some(order) => by_order(&layout, &order).await,
            // Whoever began us is gone, and has told us nothing.
            None => return ExitCode::SUCCESS,
        },
        Err(error @ LockError::Running { .. }) => Err(at_work(&layout, &error.to_string())),
        Err(error) => Err(failed("begin to hand proxy and watch over").because(error.to_string())),
    };
    // The lock is free: whoever hears this may begin anew.
    match said {
        Ok(()) => {
            tracing::info!("they are handed over");
            say(&Said::Done);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // Who began it may be gone: then this is the only place that says so.
            tracing::warn!(%failure, causes = ?failure.cause, state = failure.state, next = ?failure.next, "it was not done");
            let exit = ExitCode::from(failure.exit.code());
            say(&Said::Failed { failure: Box::new(failure) });
            exit
        }
    }
}

fn ordered() -> Option<Order> {
    say(&Said::Ready);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

async fn by_order(layout: &Layout, order: &Order) -> Result<(), Failure> {
    tracing::info!(?order, "proxy and watch are handed over");
    match order {
        Order::Start { units, old } => handover::start(layout, units, old.as_deref()).await,
        Order::Renew { old, new } => handover::renew(layout, old.as_deref(), new).await,
    }
}

/// Whoever began us may be gone: it goes on.
fn say(said: &Said) {
    let mut text = serde_json::to_vec(said).unwrap_or_default();
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody listens any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hand_over_that_goes_on_is_waited_for_and_one_that_does_not_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        over(&layout).await.unwrap();
        let at_work = ProcessLock::take(&layout, HANDOVER).unwrap();

        let failure = over(&layout).await.unwrap_err();

        assert_eq!(failure.exit, Exit::Locked);
        assert!(failure.cause[0].starts_with("proxy and watch are being handed over already"), "{failure}");
        let waits = tokio::spawn({
            let layout = layout.clone();
            async move { over(&layout).await }
        });
        // Its number could not be written, say.
        std::fs::write(layout.process_lock(HANDOVER), "").unwrap();
        tokio::time::sleep(TURN / 2).await;
        assert!(!waits.is_finished());
        drop(at_work);
        waits.await.unwrap().unwrap();
    }

    #[test]
    fn an_order_is_read_as_it_was_given() {
        let order = Order::Renew { old: Some("0.1".to_owned()), new: "0.2".to_owned() };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'), "it is one line");
        let Ok(Order::Renew { old, new }) = serde_json::from_str(&line) else { panic!("{line}") };
        assert_eq!((old.as_deref(), new.as_str()), (Some("0.1"), "0.2"));
    }
}
