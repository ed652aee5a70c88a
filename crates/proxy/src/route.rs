//! The routes of one table as requests look them up: by host, then by longest prefix. The same meaning as `RouteTable::find`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover_routes::{Hold, Route, RouteState, RouteTable, host_name, path_matches};

use crate::balance::Targets;
use crate::figures::RouteCounters;

/// A route with all that a request on it touches.
#[derive(Debug)]
pub(crate) struct LiveRoute {
    /// The path without a slash at its end: what `strip` takes off.
    pub(crate) prefix: String,
    pub(crate) strip: bool,
    pub(crate) state: LiveState,
    pub(crate) counters: Arc<RouteCounters>,
}

#[derive(Debug)]
pub(crate) enum LiveState {
    Serving(Targets),
    Held(LiveHold),
    Closed(String),
}

/// A hold with its end on the clock that only goes forward: a wall clock that jumps later does not stretch it.
#[derive(Debug)]
pub(crate) struct LiveHold {
    pub(crate) hold: Hold,
    pub(crate) end: Instant,
}

impl LiveRoute {
    /// `targets` are the route's, in its order. `now` is the time since the Unix epoch.
    pub(crate) fn new(route: &Route, targets: Targets, counters: Arc<RouteCounters>, now: Duration) -> Self {
        let state = match &route.state {
            RouteState::Serving { .. } => LiveState::Serving(targets),
            RouteState::Held { hold } => {
                let left = Duration::from_millis(hold.until).saturating_sub(now);
                LiveState::Held(LiveHold { hold: hold.clone(), end: end(left) })
            }
            RouteState::Closed { reason } => LiveState::Closed(reason.clone()),
        };
        let prefix = route.path.strip_suffix('/').unwrap_or(&route.path).to_owned();
        Self { prefix, strip: route.strip, state, counters }
    }
}

/// An end that is out of the clock's reach is a day away: nobody holds so long, and the table says so again.
fn end(left: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(left).unwrap_or(now + Duration::from_hours(24))
}

/// All routes of a table by host name; each list has the longest prefix first.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    named: HashMap<String, Vec<Arc<LiveRoute>>>,
    every_host: Vec<Arc<LiveRoute>>,
}

impl Routes {
    pub(crate) fn new(table: &RouteTable, mut live: impl FnMut(&str, &Route) -> LiveRoute) -> Self {
        let mut routes = Self::default();
        for (owner, route) in table.routes() {
            let live = Arc::new(live(owner, route));
            for host in &route.hosts {
                routes.named.entry(host.clone()).or_default().push(Arc::clone(&live));
            }
            if route.hosts.is_empty() {
                routes.every_host.push(live);
            }
        }
        for list in routes.named.values_mut().chain([&mut routes.every_host]) {
            list.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        }
        routes
    }

    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Arc<LiveRoute>> {
        let covers = |route: &&Arc<LiveRoute>| path_matches(&route.prefix, path);
        let named = self.named.get(host_name(host).as_ref());
        named.and_then(|list| list.iter().find(covers)).or_else(|| self.every_host.iter().find(covers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_routes::Entry;
    use proptest::prelude::*;

    fn table(routes: &[(Vec<String>, String)]) -> RouteTable {
        let routes = routes.iter().enumerate().map(|(number, (hosts, path))| Route {
            name: number.to_string(),
            hosts: hosts.clone(),
            path: path.clone(),
            strip: false,
            state: RouteState::Closed { reason: number.to_string() },
        });
        let mut table = RouteTable::default();
        table.owners.insert("a".into(), Entry { routes: routes.collect(), ..Entry::default() });
        table
    }

    proptest! {
        #[test]
        fn the_index_finds_what_the_table_says(
            routes in proptest::collection::vec(
                (proptest::collection::vec("[xy]", 0..3), "(/[ab]){0,2}/?".prop_filter("a path", |path| path.starts_with('/'))),
                1..8,
            ),
            host in "[xyz](:80)?",
            path in "(/[ab]){0,3}/?".prop_filter("a path", |path| path.starts_with('/')),
        ) {
            let table = table(&routes);
            prop_assume!(table.check().is_ok());
            let live = Routes::new(&table, |_, route| {
                LiveRoute::new(route, Targets::default(), Arc::default(), Duration::ZERO)
            });
            let found = live.find(&host, &path).map(|route| match &route.state {
                LiveState::Closed(name) => name.as_str(),
                LiveState::Serving(_) | LiveState::Held(_) => "another",
            });
            prop_assert_eq!(found, table.find(&host, &path).map(|(_, route)| route.name.as_str()));
        }
    }
}
