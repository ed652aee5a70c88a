//! Starts the workers, stops them, gives the report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::Connections;
use super::options::{Load, ProbeOptions};
use super::outcome::{Kind, Outcome};
use super::report::Report;
use super::tally::Tally;
use super::{streams, visits};

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: ProbeOptions,
    pub(super) tally: Tally,
    /// The name under which this probe posts; no other probe has it.
    pub(super) writer: Arc<str>,
    number: AtomicU64,
}

impl Shared {
    /// Never the same twice.
    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// One worker's view of the probe.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) probe: Arc<Shared>,
    stopping: watch::Receiver<bool>,
}

impl Worker {
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    pub(super) async fn stopped(&mut self) {
        // A probe that is gone stops its workers too.
        self.stopping.wait_for(|stop| *stop).await.ok();
    }

    /// The pause between two requests, cut short by the stop.
    pub(super) async fn pause(&mut self) {
        let pace = self.probe.options.pace;
        tokio::select! {
            () = sleep(pace) => {}
            () = self.stopped() => {}
        }
    }
}

/// Running traffic. Dropped, it ends at once and uncounted.
pub struct Probe {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Probe {
    /// Needs a running Tokio runtime; its workers live there.
    pub fn start(options: ProbeOptions) -> Self {
        let (stop, stopping) = watch::channel(false);
        let shared =
            Arc::new(Shared { options, tally: Tally::new(), writer: writer(), number: AtomicU64::new(0) });
        let worker = Worker { probe: Arc::clone(&shared), stopping };
        let mut workers = JoinSet::new();
        let mix = shared.options.mix;
        for (kind, load) in [(Kind::Get, mix.get), (Kind::Post, mix.post), (Kind::Slow, mix.slow)] {
            spawn_visits(&mut workers, &worker, kind, load);
        }
        for _ in 0..mix.websocket {
            workers.spawn(streams::talk(worker.clone()));
        }
        for _ in 0..mix.sse {
            workers.spawn(streams::listen(worker.clone()));
        }
        Self { shared, stop, workers }
    }

    /// What happened since the last lap, or since the start; the final report has it too.
    pub fn lap(&self) -> Report {
        self.shared.tally.lap()
    }

    /// Everything until now; the traffic goes on.
    pub fn so_far(&self) -> Report {
        self.shared.tally.so_far()
    }

    /// Finishes what is in flight and gives the report. Takes at most the deadline of a request.
    pub async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        let grace = self.shared.options.deadline + Duration::from_secs(5);
        let ending = async {
            while let Some(ended) = self.workers.join_next().await {
                self.count_crash(ended.err());
            }
        };
        if tokio::time::timeout(grace, ending).await.is_err() {
            let why = Outcome::failed("a worker of the probe did not end");
            self.shared.tally.request(Kind::Get, "probe", &why, grace);
        }
        self.shared.tally.so_far()
    }

    /// A worker that panicked sends nothing more: a silent hole in the traffic must not look like success.
    fn count_crash(&self, crash: Option<tokio::task::JoinError>) {
        if let Some(crash) = crash {
            let why = Outcome::failed(format_args!("a worker of the probe ended: {crash}"));
            self.shared.tally.request(Kind::Get, "probe", &why, Duration::ZERO);
        }
    }
}

fn spawn_visits(workers: &mut JoinSet<()>, worker: &Worker, kind: Kind, load: Load) {
    for (connections, count) in [(Connections::Fresh, load.fresh), (Connections::KeptAlive, load.keep_alive)]
    {
        for _ in 0..count {
            workers.spawn(visits::visit(worker.clone(), kind, connections));
        }
    }
}

/// Unique among probes, in this process and in others on this machine.
fn writer() -> Arc<str> {
    static STARTED: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let count = STARTED.fetch_add(1, Ordering::Relaxed);
    format!("probe-{}-{nanos:x}-{count}", std::process::id()).into()
}
