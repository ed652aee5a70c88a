//! New connections to a target, few at a time.
//!
//! A target's queue of connections it has not accepted yet is short (5 to 128 is common), and what overflows it is not refused: the
//! system drops packets, and whoever is behind them waits for seconds or for ever. After a hold hundreds of requests want in at once.
//! So a new connection is counted until its first answer proves that it was accepted; past a few such, requests wait for a proof, or
//! for a connection that another request is done with. Under a crowd each proof lets one more in at a time, up to a bound. An app that
//! takes its time gives no proof for a while: what it neither answered nor closed for a moment counts as one, so that the number
//! doubles from moment to moment.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::deadline::Limits;
use crate::pool::{Pool, Sender};

/// The door of one target.
#[derive(Debug, Default)]
pub(crate) struct Door {
    places: Places,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Places {
    free: Semaphore,
    /// How many there are, free or not; 0 before the first use.
    all: Mutex<usize>,
}

impl Default for Places {
    fn default() -> Self {
        Self { free: Semaphore::new(0), all: Mutex::new(0) }
    }
}

/// A way to the target.
pub(crate) enum Way<'door> {
    /// A connection that was there.
    Open(Sender),
    /// The right to make a new one.
    Knock(Knock<'door>),
}

/// One new connection that is not proven yet.
#[derive(Debug)]
pub(crate) struct Knock<'door> {
    door: &'door Door,
    few: usize,
    most: usize,
    place: Option<SemaphorePermit<'door>>,
}

impl Door {
    /// Finds a way in. Waits only while as many knock as may and no connection is idle; none when that takes too long.
    pub(crate) async fn enter(&self, pool: &Pool, limits: &Limits) -> Option<Way<'_>> {
        if let Some(sender) = pool.take(limits.target_idle) {
            return Some(Way::Open(sender));
        }
        self.places.at_least(limits.knocking);
        if let Ok(place) = self.places.free.try_acquire() {
            return Some(Way::Knock(self.knock(Some(place), limits)));
        }
        timeout(limits.response_head, self.wait(pool, limits)).await.ok()
    }

    async fn wait(&self, pool: &Pool, limits: &Limits) -> Way<'_> {
        let _waiting = Waiting::begin(&self.waiting);
        let mut place = std::pin::pin!(self.places.free.acquire());
        loop {
            let mut returned = std::pin::pin!(pool.returned());
            returned.as_mut().enable();
            if let Some(sender) = pool.take(limits.target_idle) {
                return Way::Open(sender);
            }
            tokio::select! {
                () = returned => {}
                // The semaphore is never closed; were it, it would bound nothing.
                place = &mut place => return Way::Knock(self.knock(place.ok(), limits)),
            }
        }
    }

    /// Whether requests wait for a way in.
    pub(crate) fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn knock<'door>(&'door self, place: Option<SemaphorePermit<'door>>, limits: &Limits) -> Knock<'door> {
        Knock { door: self, few: limits.knocking, most: limits.knocking_most, place }
    }
}

impl Places {
    fn at_least(&self, count: usize) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if *all < count {
            self.free.add_permits(count - *all);
            *all = count;
        }
    }

    fn no_more_than(&self, count: usize) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all -= self.free.forget_permits(all.saturating_sub(count));
    }

    fn one_more(&self, most: usize) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if *all < most {
            self.free.add_permits(1);
            *all += 1;
        }
    }
}

impl Knock<'_> {
    /// The connection was accepted, or seems to be: where others wait, one more than before may knock.
    fn proven(self) {
        if self.door.is_crowded() {
            self.door.places.one_more(self.most);
        }
    }

    /// Waits for the first answer, which proves the connection. A target that takes its time is given the benefit of the doubt.
    pub(crate) async fn until_proven<T, E>(
        self,
        doubt: Duration,
        mut answer: impl Future<Output = Result<T, E>> + Unpin,
    ) -> Result<T, E> {
        match timeout(doubt, &mut answer).await {
            Ok(answered) => {
                if answered.is_ok() {
                    self.proven();
                }
                answered
            }
            Err(_elapsed) => {
                self.proven();
                answer.await
            }
        }
    }
}

impl Drop for Knock<'_> {
    /// Gives the place back. Once the crowd is over the places that were made for it go, so that the next one begins with few again.
    fn drop(&mut self) {
        drop(self.place.take());
        if !self.door.is_crowded() {
            self.door.places.no_more_than(self.few);
        }
    }
}

/// One of those who wait.
struct Waiting<'door>(&'door AtomicUsize);

impl<'door> Waiting<'door> {
    fn begin(count: &'door AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    async fn knock<'door>(door: &'door Door, pool: &Pool) -> Knock<'door> {
        let limits = Limits { knocking: 2, knocking_most: 4, ..Limits::default() };
        match door.enter(pool, &limits).await {
            Some(Way::Knock(knock)) => knock,
            Some(Way::Open(_)) | None => panic!("the pool is empty"),
        }
    }

    /// What a future gives without waiting.
    fn now<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn so_many_knock_and_the_next_waits_for_a_place() {
        let (door, pool) = (Door::default(), Pool::default());
        let first = now(pin!(knock(&door, &pool))).unwrap();
        let _second = now(pin!(knock(&door, &pool))).unwrap();

        let mut third = pin!(knock(&door, &pool));
        assert!(now(third.as_mut()).is_none());
        drop(first);
        assert!(now(third).is_some());
    }

    #[tokio::test]
    async fn under_a_crowd_each_proof_lets_one_more_in_and_afterwards_few_knock_again() {
        let (door, pool) = (Door::default(), Pool::default());
        let first = now(pin!(knock(&door, &pool))).unwrap();
        let second = now(pin!(knock(&door, &pool))).unwrap();
        let (mut third, mut fourth) = (pin!(knock(&door, &pool)), pin!(knock(&door, &pool)));
        assert!(now(third.as_mut()).is_none() && now(fourth.as_mut()).is_none());

        first.proven();

        let (third, fourth) = (now(third).unwrap(), now(fourth).unwrap());
        assert_eq!(*door.places.all.lock().unwrap(), 3);
        drop((second, third, fourth));
        assert_eq!(*door.places.all.lock().unwrap(), 2);
        assert_eq!(door.places.free.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_target_that_takes_its_time_is_not_kept_waiting_for_by_few() {
        let (door, pool) = (Door::default(), Pool::default());
        let first = now(pin!(knock(&door, &pool))).unwrap();
        let _second = now(pin!(knock(&door, &pool))).unwrap();
        let (mut third, mut fourth) = (pin!(knock(&door, &pool)), pin!(knock(&door, &pool)));
        assert!(now(third.as_mut()).is_none() && now(fourth.as_mut()).is_none());

        let silent = std::future::pending::<Result<(), ()>>();
        let silent = first.until_proven(Duration::from_millis(1), silent);
        let _third = tokio::select! {
            _never = silent => panic!("nobody answered"),
            third = third => third,
        };

        assert!(now(fourth).is_some(), "the place of the silent one, and one more");
    }
}
