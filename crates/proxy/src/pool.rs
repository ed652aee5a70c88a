//! Connections to a target that wait for a request: newest first, so that the oldest grow old and are closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::body::RequestBody;
use crate::target::Target;

/// The sending end of a connection to a target.
pub(crate) type Sender = SendRequest<RequestBody>;

/// The idle connections of one target, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    returned: Notify,
}

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<(Sender, Instant)>,
    /// Whether a task is there to close what grows old.
    reaped: bool,
}

impl Pool {
    /// The newest connection that is ready; dead ones and those too old are dropped on the way.
    pub(crate) fn take(&self, limit: Duration) -> Option<Sender> {
        let mut idle = self.idle();
        let mut place = idle.connections.len();
        while place > 0 {
            place -= 1;
            let (sender, since) = &idle.connections[place];
            if sender.is_ready() {
                let usable = since.elapsed() < limit;
                let (sender, _) = idle.connections.remove(place);
                if usable {
                    return Some(sender);
                }
            } else if sender.is_closed() {
                idle.connections.remove(place);
            }
        }
        None
    }

    /// Done when a connection came back after this was first polled or enabled, or shortly before.
    pub(crate) fn returned(&self) -> Notified<'_> {
        self.returned.notified()
    }

    pub(crate) fn clear(&self) {
        let connections = std::mem::take(&mut self.idle().connections);
        // Outside of the lock: dropping a sender wakes the connection's task.
        drop(connections);
    }

    /// Closes what is too old; says when to look again, or not at all when nothing is left.
    fn reap(&self, limit: Duration) -> Option<Instant> {
        let mut idle = self.idle();
        let now = Instant::now();
        let old = idle.connections.iter().take_while(|(_, since)| *since + limit <= now).count();
        idle.connections.drain(..old);
        idle.connections.retain(|(sender, _)| !sender.is_closed());
        let next = idle.connections.first().map(|(_, since)| *since + limit);
        idle.reaped = next.is_some();
        next
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a connection back whose answer was taken whole. It need not be ready yet, its task may still have to notice; but who waits
/// for it is woken only when it is.
pub(crate) fn put(target: &Arc<Target>, mut sender: Sender, limit: Duration) {
    if sender.is_closed() {
        return;
    }
    if sender.is_ready() || !target.door.is_crowded() {
        return push(target, sender, limit);
    }
    let target = Arc::downgrade(target);
    tokio::spawn(async move {
        if sender.ready().await.is_ok()
            && let Some(target) = target.upgrade()
        {
            push(&target, sender, limit);
        }
    });
}

fn push(target: &Arc<Target>, sender: Sender, limit: Duration) {
    let mut idle = target.pool.idle();
    idle.connections.push((sender, Instant::now()));
    if !idle.reaped {
        idle.reaped = true;
        tokio::spawn(reap(Arc::downgrade(target), limit));
    }
    drop(idle);
    target.pool.returned.notify_one();
}

/// Looks after a pool while there is something in it; an idle proxy has no timer running.
async fn reap(target: Weak<Target>, limit: Duration) {
    let mut next = Instant::now() + limit;
    loop {
        tokio::time::sleep_until(next.into()).await;
        let Some(target) = target.upgrade() else { return };
        match target.pool.reap(limit) {
            Some(then) => next = then,
            None => return,
        }
    }
}
