//! What is served: one table at a time, replaced as a whole. Durable first, then served, then acknowledged.

use std::collections::HashMap;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use cutover_routes::figures::{NO_ROUTE, RouteFigures, TargetFigures};
use cutover_routes::{RouteTable, TableHash};
use tokio::sync::watch;

use crate::balance::Targets;
use crate::figures::RouteCounters;
use crate::route::{LiveRoute, Routes};
use crate::store::{Store, StoreError};
use crate::target::Target;

/// One table as it is served.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) table: RouteTable,
    pub(crate) hash: TableHash,
    pub(crate) routes: Routes,
}

/// How an attempt to replace the table ended.
#[derive(Debug)]
pub(crate) enum Replaced {
    Done(TableHash),
    /// Another table than the asker believes is served.
    Moved(Arc<Generation>),
    Refused(String),
    /// There is no room for it on the disk.
    Full(String),
    /// It failed, and what a restart would find is not known.
    Unknown,
}

/// The table that is served, and all targets and counters that tables of this run have named.
#[derive(Debug)]
pub(crate) struct ServedTable {
    current: ArcSwap<Generation>,
    changes: watch::Sender<u64>,
    /// Whoever holds it replaces the table; none once the proxy has given the table's folder away.
    store: Arc<tokio::sync::Mutex<Option<Store>>>,
    known: Mutex<Known>,
    pub(crate) no_route: Arc<RouteCounters>,
}

/// Targets and counters by name, kept over changes of the table.
#[derive(Debug, Default)]
struct Known {
    targets: HashMap<String, Arc<Target>>,
    /// Those no table names any more, newest last.
    departed: Vec<Arc<Target>>,
    /// How many of them the last change made leave: they are about to be drained.
    leaving: usize,
    routes: HashMap<String, Arc<RouteCounters>>,
    departed_kept: usize,
}

impl ServedTable {
    pub(crate) fn new(store: Store, table: RouteTable, departed_kept: usize) -> Self {
        let mut known = Known { departed_kept, ..Known::default() };
        let first = known.generation(0, table);
        Self {
            current: ArcSwap::from_pointee(first),
            changes: watch::Sender::new(0),
            store: Arc::new(tokio::sync::Mutex::new(Some(store))),
            known: Mutex::new(known),
            no_route: Arc::default(),
        }
    }

    /// What is served at this moment. Held only between two waits.
    pub(crate) fn load(&self) -> Guard<Arc<Generation>> {
        self.current.load()
    }

    pub(crate) fn load_full(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Whether `generation` is what is served. Asked by requests after they have counted themselves in flight.
    pub(crate) fn is_current(&self, generation: &Arc<Generation>) -> bool {
        fence(Ordering::SeqCst);
        Arc::ptr_eq(generation, &self.current.load())
    }

    /// Tells of each change by the number of the new generation.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Serves another table if the one served has the hash `expect`.
    pub(crate) async fn replace(&self, expect: TableHash, table: RouteTable) -> Replaced {
        if let Err(problems) = table.check() {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Replaced::Refused(format!("the table breaks its rules: {}", problems.join("; ")));
        }
        let store = Arc::clone(&self.store).lock_owned().await;
        let before = self.load_full();
        if before.hash != expect {
            return Replaced::Moved(before);
        }
        let store = match write(store, table.to_json()).await {
            (store, Ok(())) => store,
            (_, Err(unwritten)) => return unwritten,
        };
        let generation = self.known().generation(before.number + 1, table);
        let (number, hash) = (generation.number, generation.hash.clone());
        self.current.store(Arc::new(generation));
        fence(Ordering::SeqCst);
        self.changes.send_replace(number);
        // Not before: until now a request could still come to a target that departs.
        self.known().forget();
        tracing::info!(%hash, number, "another table is served");
        // After the answer, and before the next replacement: on a nearly full disk the two must not compete.
        tokio::task::spawn_blocking(move || store.as_ref().map(Store::settle));
        Replaced::Done(hash)
    }

    /// Gives the table's folder away, after a replacement that is being made.
    pub(crate) async fn close(&self) {
        drop(self.store.lock().await.take());
    }

    /// All targets that go by one of the ids, in the table or not in it any more.
    pub(crate) fn targets(&self, ids: &[String]) -> Vec<Arc<Target>> {
        let known = self.known();
        known
            .targets
            .values()
            .chain(&known.departed)
            .filter(|target| ids.contains(&target.id))
            .cloned()
            .collect()
    }

    /// All targets that anything may be open on.
    pub(crate) fn all_targets(&self) -> Vec<Arc<Target>> {
        let known = self.known();
        known.targets.values().chain(&known.departed).cloned().collect()
    }

    /// How many requests wait in a hold.
    pub(crate) fn held(&self) -> u32 {
        self.known().routes.values().map(|counters| counters.held.load(Ordering::SeqCst)).sum()
    }

    pub(crate) fn figures(
        &self,
    ) -> (impl Iterator<Item = (String, TargetFigures)>, impl Iterator<Item = (String, RouteFigures)>) {
        // An id that was given another address counts for the new one; the old one is told while anything is in flight on it.
        let mut targets = self.all_targets();
        targets.reverse();
        let mut known = self.known();
        known.forget();
        let mut routes: Vec<_> =
            known.routes.iter().map(|(name, counters)| (name.clone(), counters.figures())).collect();
        routes.push((NO_ROUTE.to_owned(), self.no_route.figures()));
        let targets = targets
            .into_iter()
            .map(|target| (target.id.clone(), target.counters.figures(target.in_flight.get())));
        (targets, routes.into_iter())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type HeldStore = tokio::sync::OwnedMutexGuard<Option<Store>>;

/// Makes a table durable where blocking is allowed; else says what the attempt came to.
async fn write(store: HeldStore, bytes: Vec<u8>) -> (HeldStore, Result<(), Replaced>) {
    let written = tokio::task::spawn_blocking(move || {
        let outcome = match store.as_ref().map(|store| store.write(&bytes)) {
            Some(Ok(())) => Ok(()),
            Some(Err(StoreError::Apart { .. })) => Err(Replaced::Unknown),
            Some(Err(error)) => {
                let reason =
                    format!("the table could not be made durable, what was served is served: {error}");
                Err(if error.is_full() { Replaced::Full(reason) } else { Replaced::Refused(reason) })
            }
            None => Err(Replaced::Refused("the proxy is about to end".to_owned())),
        };
        (store, outcome)
    });
    written.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

impl Known {
    /// A table with the targets and counters it names: those known go on, new ones begin, others depart.
    fn generation(&mut self, number: u64, table: RouteTable) -> Generation {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let mut before = std::mem::take(&mut self.targets);
        let counters_before = std::mem::take(&mut self.routes);
        let routes = Routes::new(&table, |owner, route| {
            let targets =
                route.state.targets().iter().map(|target| self.target(target, &mut before)).collect();
            let name = format!("{owner}/{}", route.name);
            let counters = counters_before.get(&name).cloned().unwrap_or_default();
            self.routes.insert(name, Arc::clone(&counters));
            LiveRoute::new(route, Targets::new(targets), counters, now)
        });
        self.leaving = before.len();
        self.departed.extend(before.into_values());
        let hash = TableHash::of(&table);
        Generation { number, table, hash, routes }
    }

    /// The target of this id and address: the one that was there before stays, the one that departed comes back with all it had.
    fn target(
        &mut self,
        wanted: &cutover_routes::Target,
        before: &mut HashMap<String, Arc<Target>>,
    ) -> Arc<Target> {
        if let Some(target) = self.targets.get(&wanted.id) {
            return Arc::clone(target);
        }
        let same = |target: &Arc<Target>| target.id == wanted.id && target.address == wanted.address;
        let target = if before.get(&wanted.id).is_some_and(same) {
            before.remove(&wanted.id)
        } else {
            self.departed.iter().position(same).map(|place| self.departed.remove(place))
        };
        let target =
            target.unwrap_or_else(|| Arc::new(Target::new(wanted.id.clone(), wanted.address.clone())));
        self.targets.insert(wanted.id.clone(), Arc::clone(&target));
        target
    }

    /// Lets go of departed targets that are idle, the oldest first, save for the last few and for those that left just now.
    fn forget(&mut self) {
        let older = self.departed.len().saturating_sub(self.leaving);
        let idle = |target: &&Arc<Target>| target.in_flight.get() == 0;
        let surplus = self.departed.iter().filter(idle).count().saturating_sub(self.departed_kept);
        let mut surplus = surplus.min(self.departed[..older].iter().filter(idle).count());
        self.departed.retain(|target| {
            let goes = surplus > 0 && target.in_flight.get() == 0;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::InFlight;
    use cutover_routes::{Address, Route, RouteState};

    fn serving(targets: &[(&str, u16)]) -> RouteTable {
        let targets = targets.iter().map(|(id, port)| cutover_routes::Target {
            id: (*id).to_owned(),
            address: Address::Tcp(([127, 0, 0, 1], *port).into()),
        });
        let state = RouteState::Serving { targets: targets.collect() };
        let route = Route { name: "web".into(), hosts: vec![], path: "/".into(), strip: false, state };
        let mut table = RouteTable::default();
        table.owners.entry("app".into()).or_default().routes.push(route);
        table
    }

    fn known(departed_kept: usize) -> Known {
        Known { departed_kept, ..Known::default() }
    }

    #[test]
    fn a_target_that_comes_back_is_the_one_that_left() {
        let mut known = known(2);
        known.generation(0, serving(&[("a", 1)]));
        let first = Arc::clone(&known.targets["a"]);

        known.generation(1, serving(&[("b", 2)]));
        known.generation(2, serving(&[("a", 1), ("b", 2)]));

        assert!(Arc::ptr_eq(&first, &known.targets["a"]));
        assert_eq!(known.departed.len(), 0);
    }

    #[test]
    fn another_address_is_another_target_and_both_are_drained_by_the_id() {
        let mut known = known(2);
        known.generation(0, serving(&[("a", 1)]));
        let first = Arc::clone(&known.targets["a"]);

        known.generation(1, serving(&[("a", 2)]));

        assert!(!Arc::ptr_eq(&first, &known.targets["a"]));
        assert_eq!(known.departed.len(), 1);
    }

    #[test]
    fn departed_targets_are_forgotten_save_the_last_and_the_busy() {
        let mut known = known(2);
        known.generation(0, serving(&[("busy", 1)]));
        let busy = InFlight::enter(&known.targets["busy"]);

        for port in 2..20 {
            known.generation(u64::from(port), serving(&[(&format!("t{port}"), port)]));
            known.forget();
        }

        let departed =
            |known: &Known| known.departed.iter().map(|target| target.id.clone()).collect::<Vec<_>>();
        assert_eq!(departed(&known), ["busy", "t17", "t18"]);
        drop(busy);
        known.forget();
        assert_eq!(departed(&known), ["t17", "t18"]);
    }

    #[test]
    fn what_a_change_made_leave_can_be_drained_however_much_it_is() {
        let mut known = known(1);
        known.generation(0, serving(&[("old", 1)]));
        known.generation(1, serving(&[("a", 2), ("b", 3), ("c", 4)]));
        known.forget();
        assert_eq!(known.departed.len(), 1);

        known.generation(2, serving(&[("new", 5)]));
        assert_eq!(known.departed.len(), 4, "nothing is forgotten while the table before is served");
        known.forget();

        let mut departed: Vec<_> = known.departed.iter().map(|target| target.id.as_str()).collect();
        departed.sort_unstable();
        assert_eq!(departed, ["a", "b", "c"]);
    }

    #[test]
    fn a_routes_counters_go_on_over_a_change() {
        let mut known = known(2);
        known.generation(0, serving(&[("a", 1)]));
        known.routes["app/web"].taken_in();

        known.generation(1, serving(&[("b", 2)]));

        assert_eq!(known.routes["app/web"].figures().requests, 1);
    }
}
