//! The connections that are open, to close the longest idle one when there is no place for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::serve::Client;

/// All clients that are connected.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    clients: HashMap<u64, Weak<Client>>,
}

/// One of them, until dropped.
#[derive(Debug)]
pub(crate) struct Entered<'clients> {
    clients: &'clients Clients,
    number: u64,
}

impl Clients {
    pub(crate) fn enter(&self, client: &Arc<Client>) -> Entered<'_> {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.clients.insert(number, Arc::downgrade(client));
        Entered { clients: self, number }
    }

    /// Asks the one that has been idle the longest to leave, if any is and none was asked yet that has not left.
    pub(crate) fn close_longest_idle(&self) {
        let clients: Vec<_> = self.open().clients.values().filter_map(Weak::upgrade).collect();
        if clients.iter().any(|client| client.leaves()) {
            return;
        }
        let idle = clients.iter().filter_map(|client| Some((client.pace.idle_since()?, client)));
        if let Some((_, client)) = idle.min_by_key(|(since, _)| *since) {
            client.leave();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.clients.open().clients.remove(&self.number);
    }
}
