//! Routes: which requests reach a service.

use super::read::At;
use super::settings::RouteSettings;

/// Reads a `route:`.
pub(crate) fn route(at: &At<'_>) -> RouteSettings {
    let mut hosts: Vec<String> = Vec::new();
    for host in at.texts("host").into_iter().chain(at.texts("hosts")) {
        let host = host.to_ascii_lowercase();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    RouteSettings {
        hosts,
        path: at.string("path").map_or_else(|| "/".to_owned(), |path| prefix(&path)),
        strip: at.flag("strip").unwrap_or(false),
    }
}

/// `/api/` and `/api` are one prefix.
fn prefix(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

/// The host name that a service has on this machine.
pub(crate) fn local_host(service: &str, app: &str) -> String {
    format!("{service}.{app}.localhost").replace('_', "-")
}
