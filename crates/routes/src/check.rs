//! What a table must be before anybody serves it. All problems are told at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::find::prefix;
use crate::{Address, Route, RouteTable, TABLE_VERSION, TableError, Target};

impl RouteTable {
    /// Checks every rule of a table; a proxy serves no table that breaks one.
    pub fn check(&self) -> Result<(), Vec<TableError>> {
        let mut problems = Vec::new();
        if self.version > TABLE_VERSION {
            problems.push(TableError::Newer { found: self.version });
        }
        if self.version < TABLE_VERSION {
            problems.push(TableError::Malformed(format!("it has version {}, not upgraded", self.version)));
        }
        for (owner, route) in self.routes() {
            problems.extend(broken_rules(route).into_iter().map(|problem| invalid(owner, route, problem)));
        }
        problems.extend(self.names_used_twice());
        problems.extend(self.claims());
        problems.extend(self.targets_named_twice());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Names that two routes of one owner share: their figures could not be told apart.
    fn names_used_twice(&self) -> Vec<TableError> {
        let mut seen = BTreeSet::new();
        self.routes()
            .filter(|(owner, route)| !seen.insert((*owner, route.name.as_str())))
            .map(|(owner, route)| {
                invalid(owner, route, "another route of the owner has this name".to_owned())
            })
            .collect()
    }

    /// Hosts and paths that two routes answer.
    fn claims(&self) -> Vec<TableError> {
        let mut seen: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        let mut problems = Vec::new();
        for (owner, route) in self.routes() {
            let every = ["*"];
            let hosts = route.hosts.iter().map(String::as_str);
            for host in hosts.chain(every.into_iter().filter(|_| route.hosts.is_empty())) {
                if let Some(first) = seen.insert((host, prefix(&route.path)), owner) {
                    problems.push(TableError::Claimed {
                        owner: first.to_owned(),
                        other: owner.to_owned(),
                        host: host.to_owned(),
                        path: route.path.clone(),
                    });
                }
            }
        }
        problems
    }

    /// Target ids that stand for more than one owner's one address, or stand twice in one route.
    fn targets_named_twice(&self) -> Vec<TableError> {
        let mut seen: BTreeMap<&str, (&str, &Target)> = BTreeMap::new();
        let mut problems = Vec::new();
        for (owner, route) in self.routes() {
            let mut here = BTreeSet::new();
            for target in route.state.targets() {
                let (first, known) = *seen.entry(&target.id).or_insert((owner, target));
                let problem = if !here.insert(&target.id) {
                    "stands twice in it".to_owned()
                } else if first != owner {
                    format!("is a target of `{first}` too")
                } else if known.address != target.address {
                    "has another address in another route".to_owned()
                } else {
                    continue;
                };
                problems.push(invalid(owner, route, format!("target `{}` {problem}", target.id)));
            }
        }
        problems
    }
}

fn invalid(owner: &str, route: &Route, problem: String) -> TableError {
    TableError::Invalid { owner: owner.to_owned(), name: route.name.clone(), problem }
}

/// The rules a route breaks by itself.
fn broken_rules(route: &Route) -> Vec<String> {
    let mut broken = Vec::new();
    if route.name.is_empty() {
        broken.push("it has no name".to_owned());
    }
    broken.extend(path_problem(&route.path).map(|problem| format!("path `{}` {problem}", route.path)));
    for host in &route.hosts {
        broken.extend(host_problem(host).map(|problem| format!("host `{host}` {problem}")));
    }
    for target in route.state.targets() {
        broken.extend(target_problem(target).map(|problem| format!("target `{}` {problem}", target.id)));
    }
    broken
}

/// Requests are matched after dot segments were refused and escapes undone, so a path with any could never match as meant.
fn path_problem(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        Some("does not begin with `/`")
    } else if path.contains("//") {
        Some("has an empty segment")
    } else if path.split('/').any(|segment| segment == "." || segment == "..") {
        Some("has a dot segment")
    } else if path.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#%\\\"<>".contains(&byte)) {
        Some("has a character that no path has")
    } else {
        None
    }
}

fn host_problem(host: &str) -> Option<&'static str> {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if host.is_empty() {
        Some("is empty")
    } else if let Some(address) = literal {
        address.parse::<std::net::Ipv6Addr>().is_err().then_some("is no IPv6 address")
    } else if host.contains(':') {
        Some("has a port")
    } else if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Some("is not in lower case")
    } else if host.ends_with('.') {
        Some("ends with a dot")
    } else if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        Some("is no host name")
    } else {
        None
    }
}

fn target_problem(target: &Target) -> Option<&'static str> {
    if target.id.is_empty() {
        return Some("has no id");
    }
    match &target.address {
        Address::Tcp(address) if address.port() == 0 => Some("has port 0"),
        Address::Unix(path) if !path.is_absolute() => Some("has a relative socket path"),
        Address::Unix(path) if path.to_str().is_none() => Some("has a socket path that is not UTF-8"),
        Address::Tcp(_) | Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RouteState;

    fn route(name: &str, hosts: &[&str], path: &str, targets: &[(&str, &str)]) -> Route {
        let target = |&(id, address): &(&str, &str)| Target {
            id: id.to_owned(),
            address: address.parse().map_or_else(|_| Address::Unix(address.into()), Address::Tcp),
        };
        Route {
            name: name.to_owned(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            path: path.to_owned(),
            strip: false,
            state: RouteState::Serving { targets: targets.iter().map(target).collect() },
        }
    }

    fn problems(routes: &[(&str, Route)]) -> Vec<String> {
        let mut table = RouteTable::default();
        for (owner, route) in routes {
            table.owners.entry((*owner).to_owned()).or_default().routes.push(route.clone());
        }
        table.check().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_table_of_two_apps_passes() {
        let routes = [
            ("a", route("web", &["x.test", "www.x.test"], "/", &[("a/web/1", "127.0.0.1:80")])),
            ("a", route("api", &["x.test"], "/api/", &[("a/web/1", "127.0.0.1:80")])),
            ("b", route("web", &[], "/", &[("b/web/1", "/run/b.sock")])),
            ("b", route("six", &["[::1]"], "/", &[])),
        ];
        assert_eq!(problems(&routes), Vec::<String>::new());
    }

    #[test]
    fn a_host_and_path_belongs_to_one_route() {
        let one = route("web", &["x.test"], "/api", &[]);
        let same = route("other", &["y.test", "x.test"], "/api/", &[]);

        assert_eq!(
            problems(&[("a", one.clone()), ("b", same.clone())]),
            ["`a` and `b` both claim x.test/api/"]
        );
        assert_eq!(problems(&[("a", one), ("a", same)]), ["`a` and `a` both claim x.test/api/"]);
        let every = |name| route(name, &[], "/", &[]);
        assert_eq!(problems(&[("a", every("web")), ("b", every("web"))]), ["`a` and `b` both claim */"]);
    }

    #[test]
    fn every_broken_rule_of_a_path_is_named() {
        for (path, problem) in [
            ("", "does not begin with `/`"),
            ("api", "does not begin with `/`"),
            ("/a//b", "has an empty segment"),
            ("/a/../b", "has a dot segment"),
            ("/a/.", "has a dot segment"),
            ("/a b", "has a character that no path has"),
            ("/a%2fb", "has a character that no path has"),
            ("/a?b", "has a character that no path has"),
        ] {
            let expected = format!("route `web` of `a`: path `{path}` {problem}");
            assert_eq!(problems(&[("a", route("web", &[], path, &[]))]), [expected]);
        }
    }

    #[test]
    fn every_broken_rule_of_a_host_is_named() {
        for (host, problem) in [
            ("", "is empty"),
            ("x.test:80", "has a port"),
            ("X.test", "is not in lower case"),
            ("x.test.", "ends with a dot"),
            ("x test", "is no host name"),
            ("*.x.test", "is no host name"),
            ("[::g]", "is no IPv6 address"),
        ] {
            let expected = format!("route `web` of `a`: host `{host}` {problem}");
            assert_eq!(problems(&[("a", route("web", &[host], "/", &[]))]), [expected]);
        }
    }

    #[test]
    fn a_target_id_stands_for_one_owner_and_one_address() {
        let one = route("one", &[], "/one", &[("t", "127.0.0.1:80")]);
        let moved = route("two", &[], "/two", &[("t", "127.0.0.1:81")]);
        let twice = route("one", &[], "/", &[("t", "127.0.0.1:80"), ("t", "127.0.0.1:80")]);

        assert_eq!(
            problems(&[("a", one.clone()), ("a", moved)]),
            ["route `two` of `a`: target `t` has another address in another route"]
        );
        assert_eq!(
            problems(&[("a", one.clone()), ("b", route("web", &[], "/", &[("t", "127.0.0.1:80")]))]),
            ["route `web` of `b`: target `t` is a target of `a` too"]
        );
        assert_eq!(problems(&[("a", twice)]), ["route `one` of `a`: target `t` stands twice in it"]);
        let zero = route("one", &[], "/", &[("t", "127.0.0.1:0")]);
        assert_eq!(problems(&[("a", zero)]), ["route `one` of `a`: target `t` has port 0"]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let bad = route("web", &["X.test"], "api", &[("", "relative.sock")]);

        assert_eq!(problems(&[("a", bad.clone()), ("a", bad)]).len(), 8);
    }
}
