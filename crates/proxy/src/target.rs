//! One target as the proxy lives with it: its pool, its counters, what is open on it. It outlives the tables that name it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use cutover_routes::Address;
use tokio::task::AbortHandle;

use crate::door::Door;
use crate::figures::TargetCounters;
use crate::inflight::Counter;
use crate::pool::Pool;
use crate::streams::Streams;

/// A place that answers requests, known by id and address.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) address: Address,
    pub(crate) in_flight: Counter,
    pub(crate) pool: Pool,
    pub(crate) door: Door,
    pub(crate) counters: TargetCounters,
    /// Event streams and upgraded connections, which end only when told to.
    pub(crate) streams: Streams,
    connections: Mutex<Connections>,
    /// How often all connections were cut.
    cuts: AtomicU64,
    /// How many wait for it to be empty, with people waiting for them.
    hurries: AtomicU32,
    since: Instant,
    /// Milliseconds after `since` until which it is passed over; 0 when it is not.
    passed_over: AtomicU64,
}

/// The tasks that drive the connections to the target.
#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, AbortHandle>,
}

impl Target {
    pub(crate) fn new(id: String, address: Address) -> Self {
        Self {
            id,
            address,
            in_flight: Counter::default(),
            pool: Pool::default(),
            door: Door::default(),
            counters: TargetCounters::default(),
            streams: Streams::default(),
            connections: Mutex::default(),
            cuts: AtomicU64::new(0),
            hurries: AtomicU32::new(0),
            since: Instant::now(),
            passed_over: AtomicU64::new(0),
        }
    }

    /// Passes the target over for a while, where there are others.
    pub(crate) fn pass_over(&self, how_long: Duration) {
        let until = u64::try_from((self.since.elapsed() + how_long).as_millis()).unwrap_or(u64::MAX);
        self.passed_over.store(until, Ordering::Relaxed);
    }

    pub(crate) fn is_passed_over(&self) -> bool {
        let until = self.passed_over.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let over = self.since.elapsed().as_millis() < u128::from(until);
        if !over {
            self.passed_over.store(0, Ordering::Relaxed);
        }
        over
    }

    /// It answered: what was held against it is forgotten.
    pub(crate) fn answered(&self) {
        if self.passed_over.load(Ordering::Relaxed) != 0 {
            self.passed_over.store(0, Ordering::Relaxed);
        }
    }

    /// As long as what it gives lives, clients that neither send nor take are soon let go of.
    pub(crate) fn hurry(self: &Arc<Self>) -> Hurry {
        self.hurries.fetch_add(1, Ordering::Relaxed);
        Hurry(Arc::clone(self))
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurries.load(Ordering::Relaxed) > 0
    }

    /// How often everything on the target was cut: a connection begun before a cut must not be used after it.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }

    /// Drives a connection, or what became of it, in a task of its own: to its end or until [`Target::cut`].
    pub(crate) fn drive(self: &Arc<Self>, connection: impl Future<Output = ()> + Send + 'static) {
        let mut connections = self.connections();
        let number = connections.next;
        connections.next += 1;
        let ended = Ended { target: Arc::downgrade(self), number };
        let task = tokio::spawn(async move {
            let _ended = ended;
            connection.await;
        });
        // The task cannot have taken its number out yet: that needs the lock held here.
        connections.open.insert(number, task.abort_handle());
    }

    /// Closes every connection to the target, whatever is on it.
    pub(crate) fn cut(&self) {
        self.pool.clear();
        let open = {
            let mut connections = self.connections();
            // Under the lock: a connection that is made now is either in the list or sees the count.
            self.cuts.fetch_add(1, Ordering::SeqCst);
            std::mem::take(&mut connections.open)
        };
        for task in open.into_values() {
            task.abort();
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wish to see a target empty soon.
#[derive(Debug)]
pub(crate) struct Hurry(Arc<Target>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.hurries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a connection's task out of the list when it ends, however it ends.
struct Ended {
    target: Weak<Target>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(target) = self.target.upgrade() {
            target.connections().open.remove(&self.number);
        }
    }
}
