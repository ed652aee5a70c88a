//! Which route a request takes: the one meaning of "host and path", shared by the proxy, the checks and the tests.

use std::borrow::Cow;

use crate::{Route, RouteTable};

impl RouteTable {
    /// The route of a request and its owner. `host` is as a client sent it (any case, with or without port).
    ///
    /// Routes that name the host come before routes for every host; among equals the longest path prefix wins.
    pub fn find(&self, host: &str, path: &str) -> Option<(&str, &Route)> {
        let host = host_name(host);
        let candidates = || self.routes().filter(|(_, route)| path_matches(&route.path, path));
        let longest = |(_, route): &(&str, &Route)| prefix(&route.path).len();
        candidates()
            .filter(|(_, route)| route.hosts.iter().any(|name| *name == host))
            .max_by_key(longest)
            .or_else(|| candidates().filter(|(_, route)| route.hosts.is_empty()).max_by_key(longest))
    }

    /// Every route with its owner, in the table's order.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.owners
            .iter()
            .flat_map(|(owner, entry)| entry.routes.iter().map(move |route| (owner.as_str(), route)))
    }
}

/// Whether a route's path prefix covers a request's path: by whole segments, a slash at the prefix's end making no difference.
pub fn path_matches(route: &str, path: &str) -> bool {
    path.strip_prefix(prefix(route)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The host name of an authority: lower case, without port, without the root's dot.
pub fn host_name(authority: &str) -> Cow<'_, str> {
    let name = match authority.rfind(':') {
        // The colons inside of an IPv6 literal's brackets belong to the name.
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        Some(_) | None => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// A route's path as it is compared: without a slash at its end, so that `/` is the empty prefix.
pub(crate) fn prefix(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, RouteState};
    use proptest::prelude::*;

    fn table(routes: &[(&str, &[&str], &str)]) -> RouteTable {
        let mut table = RouteTable::default();
        for (owner, hosts, path) in routes {
            let entry: &mut Entry = table.owners.entry((*owner).to_owned()).or_default();
            entry.routes.push(Route {
                name: format!("{hosts:?}{path}"),
                hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
                path: (*path).to_owned(),
                strip: false,
                state: RouteState::Closed { reason: "test".into() },
            });
        }
        table
    }

    fn found<'table>(
        table: &'table RouteTable,
        host: &str,
        path: &str,
    ) -> Option<(&'table str, &'table str)> {
        table.find(host, path).map(|(owner, route)| (owner, route.path.as_str()))
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let table =
            table(&[("a", &["x.test"], "/"), ("b", &["x.test"], "/api"), ("c", &["x.test"], "/api/v2/")]);

        assert_eq!(found(&table, "x.test", "/"), Some(("a", "/")));
        assert_eq!(found(&table, "x.test", "/apiary"), Some(("a", "/")));
        assert_eq!(found(&table, "x.test", "/api"), Some(("b", "/api")));
        assert_eq!(found(&table, "x.test", "/api/"), Some(("b", "/api")));
        assert_eq!(found(&table, "x.test", "/api/v2"), Some(("c", "/api/v2/")));
        assert_eq!(found(&table, "x.test", "/api/v2/users"), Some(("c", "/api/v2/")));
    }

    #[test]
    fn an_exact_host_beats_every_host_even_with_a_shorter_path() {
        let table = table(&[("any", &[], "/api"), ("named", &["x.test", "y.test"], "/")]);

        assert_eq!(found(&table, "y.test", "/api"), Some(("named", "/")));
        assert_eq!(found(&table, "z.test", "/api"), Some(("any", "/api")));
        assert_eq!(found(&table, "z.test", "/"), None);
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_final_dot() {
        let table = table(&[("a", &["x.test"], "/"), ("b", &["[::1]"], "/")]);

        for host in ["x.test", "X.Test", "x.test:8080", "x.test.", "X.TEST.:80"] {
            assert_eq!(found(&table, host, "/"), Some(("a", "/")), "{host}");
        }
        assert_eq!(found(&table, "[::1]:8080", "/"), Some(("b", "/")));
        assert_eq!(found(&table, "[::1]", "/"), Some(("b", "/")));
        assert_eq!(found(&table, "", "/"), None);
    }

    proptest! {
        #[test]
        fn no_host_name_panics_or_keeps_a_port(authority in ".{0,40}") {
            let name = host_name(&authority);
            prop_assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
        }

        #[test]
        fn what_is_found_covers_the_path_and_nothing_longer_does(
            paths in proptest::collection::btree_set("(/[ab]{1,2}){0,3}", 1..6),
            asked in "(/[ab]{1,2}){1,4}",
        ) {
            let routes: Vec<_> = paths.iter().map(|path| if path.is_empty() { "/" } else { path }).collect();
            let listed: Vec<(&str, &[&str], &str)> = routes.iter().map(|&path| ("a", &[] as &[&str], path)).collect();
            let table = table(&listed);
            let longest = routes.iter().filter(|path| path_matches(path, &asked)).max_by_key(|path| prefix(path).len());
            prop_assert_eq!(table.find("x.test", &asked).map(|(_, route)| route.path.as_str()), longest.copied());
        }
    }
}
