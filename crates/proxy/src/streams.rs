//! Long-lived answers of a target (event streams, upgraded connections): each can be told to close.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// All long-lived answers of one target.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    tell: HashMap<u64, oneshot::Sender<()>>,
}

/// One long-lived answer's ear; taken out of the list when dropped.
#[derive(Debug)]
pub(crate) struct Stream {
    open: Weak<Mutex<Open>>,
    number: u64,
    told: oneshot::Receiver<()>,
}

impl Streams {
    pub(crate) fn enter(&self) -> Stream {
        let (tell, told) = oneshot::channel();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let number = open.next;
        open.next += 1;
        open.tell.insert(number, tell);
        Stream { open: Arc::downgrade(&self.open), number, told }
    }

    /// Hands out the right to close each stream that is open now; dropping a right closes too.
    pub(crate) fn take(&self) -> Vec<oneshot::Sender<()>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut open.tell).into_values().collect()
    }
}

impl Stream {
    /// Ready once the stream was told to close.
    pub(crate) fn poll_told(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.told).poll(context).map(|_told_or_dropped| ())
    }

    pub(crate) async fn told(&mut self) {
        std::future::poll_fn(|context| self.poll_told(context)).await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(open) = self.open.upgrade() {
            open.lock().unwrap_or_else(PoisonError::into_inner).tell.remove(&self.number);
        }
    }
}
