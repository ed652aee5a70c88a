//! Drift: what is otherwise on a host than it was recorded when it went live, each with what mends it. Pure: from one look.

use std::collections::BTreeSet;

use cutover_routes::{Entry, Route, RouteState};
use serde::Serialize;

use crate::config::settings::Config;
use crate::names::{InstanceName, ServiceName};
use crate::plan::{Change, backing_differences, change_words, respecify};
use crate::release::{Content, Live, Release, RuntimeKind};
use crate::state::{FoundInstance, HostState, InstanceState, ReleaseRecord, RestartPolicy, Role};
use crate::wire::{HostFacts, TableFile};

/// One thing that is otherwise than recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// What is otherwise, as a sentence.
    pub what: String,
    /// What mends it.
    pub mend: String,
}

fn drift(what: impl Into<String>, mend: impl Into<String>) -> Drift {
    Drift { what: what.into(), mend: mend.into() }
}

/// All of it. `wanted` is the configuration as it is now, where it makes sense.
pub fn find(state: &HostState, facts: &HostFacts, wanted: Option<&Config>) -> Vec<Drift> {
    let mut found = files(state, facts);
    if let Some(run) = state.unfinished
        && state.lock.is_none()
    {
        found.push(drift(
            format!("run {run} has not come to its end"),
            "watch settles it; `cutover attach` shows how far it is",
        ));
    }
    let Some(live) = &state.live else {
        found.extend(nobodys(state, None));
        return found;
    };
    let Some(record) = state.releases.iter().find(|record| record.release.id == live.release) else {
        found.push(drift(
            format!("release {} is live, and nothing is on record of it", live.release),
            "`cutover deploy` puts a release live that is",
        ));
        return found;
    };
    found.extend(members(state, live));
    found.extend(nobodys(state, Some(live)));
    found.extend(routes(state, facts, live, &record.release));
    found.extend(backing(state, &record.release, wanted));
    found.extend(contents(state, &record.release));
    found.extend(variables(state, record));
    found.extend(written(state, None).into_iter().map(|what| drift(what, ELSEWHERE)));
    found
}

/// Live instances that are gone, down, or were made otherwise.
fn members(state: &HostState, live: &Live) -> Vec<Drift> {
    let mut found = Vec::new();
    for (service, names) in &live.members {
        let mend = format!("`cutover restart {service}` makes it anew");
        for name in names {
            let here = state.instances.iter().find(|instance| instance.name == *name);
            let what = here
                .map_or_else(|| Some("is live, and is not there".to_owned()), |here| differs(state, here));
            found.extend(
                what.map(|what| drift(format!("instance {name} of `{service}` {what}"), mend.clone())),
            );
        }
    }
    found
}

fn differs(state: &HostState, here: &FoundInstance) -> Option<String> {
    match &here.state {
        InstanceState::Created => return Some("is live, and was never started".to_owned()),
        InstanceState::Exited { exit } => return Some(format!("is live, and is down: it {exit}")),
        InstanceState::Restarting { exit, .. } => return Some(format!("ends again and again: it {exit}")),
        InstanceState::Running { .. } => {}
    }
    if !here.ours {
        return Some("belongs to another installation".to_owned());
    }
    if here.restart == RestartPolicy::No {
        return Some("would not come back after an exit or a reboot".to_owned());
    }
    // A plain process is told addresses of others, which move on: its keeper has the specification it began with.
    let again = respecify(state, here).filter(|_| here.runtime == RuntimeKind::Container)?;
    (again.spec.hash() != here.spec).then(|| "was made otherwise than its release says".to_owned())
}

/// What runs and belongs to nothing that is live.
fn nobodys(state: &HostState, live: Option<&Live>) -> Vec<Drift> {
    if state.lock.is_some() || state.unfinished.is_some() {
        // A run's own instances are nobody's yet.
        return Vec::new();
    }
    let is_warm = |found: &FoundInstance| {
        let record = state.releases.iter().find(|record| record.release.id == found.release);
        record.and_then(|record| record.warm_until).is_some_and(|until| until > state.now)
    };
    let runs = |found: &&FoundInstance| {
        !matches!(found.state, InstanceState::Exited { .. } | InstanceState::Created)
    };
    let strays = state.instances.iter().filter(runs).filter(|found| {
        let is_member = live.is_some_and(|live| live.has(&found.name));
        found.ours && found.role == Role::Service && !is_member && !is_warm(found)
    });
    strays
        .map(|found| {
            drift(
                format!(
                    "instance {} of `{}` runs, and nothing that is live has it",
                    found.name, found.service
                ),
                "watch takes it away within seconds; see that `cutover-host` watch runs",
            )
        })
        .collect()
}

/// The table against what the release says.
fn routes(state: &HostState, facts: &HostFacts, live: &Live, release: &Release) -> Vec<Drift> {
    let routed: Vec<_> = release.services.iter().filter(|(_, of)| of.settings.route.is_some()).collect();
    let Some(table) = &state.table else {
        let none = routed.is_empty();
        let what =
            drift("no proxy answers, and the app has routes", "`cutover start` starts proxy and watch");
        return if none { Vec::new() } else { vec![what] };
    };
    let nothing = Entry::default();
    let entry = table.table.owners.get(&state.app.owner()).unwrap_or(&nothing);
    let mut found = Vec::new();
    for (name, service) in &routed {
        let mend = format!("`cutover restart {name}` writes its route anew");
        let Some(wanted) = &service.settings.route else { continue };
        let Some(route) = entry.routes.iter().find(|route| route.name == name.as_str()) else {
            found.push(drift(format!("the route of `{name}` is not in the table"), mend));
            continue;
        };
        if route.hosts != wanted.hosts || route.path != wanted.path || route.strip != wanted.strip {
            found.push(drift(
                format!("the route of `{name}` was edited: it leads from {}", shown(route)),
                mend,
            ));
        } else if let Some(what) = targets(route, live, name) {
            found.push(drift(format!("the route of `{name}` {what}"), mend));
        }
    }
    let known = |route: &&Route| !routed.iter().any(|(name, _)| name.as_str() == route.name);
    found.extend(entry.routes.iter().filter(known).map(|route| {
        drift(
            format!("the table has a route `{}` that the release does not name", route.name),
            "`cutover restart` writes the app's routes anew",
        )
    }));
    if facts.table_file == TableFile::Other && state.lock.is_none() {
        found.push(drift(
            "the table on the disk is not the one that is served: a proxy that starts would serve that one",
            "`cutover restart` of any service writes it anew",
        ));
    }
    found
}

fn shown(route: &Route) -> String {
    let hosts = if route.hosts.is_empty() { "every host".to_owned() } else { route.hosts.join(", ") };
    format!("{hosts}{}", route.path)
}

/// What is served is what is live; an instance that is out of balance for a while is watch's doing.
fn targets(route: &Route, live: &Live, service: &ServiceName) -> Option<String> {
    let RouteState::Serving { targets } = &route.state else { return None };
    let members: BTreeSet<&str> =
        live.members.get(service).into_iter().flatten().map(InstanceName::as_str).collect();
    let foreign = targets.iter().find(|target| !members.contains(target.id.as_str()));
    if let Some(foreign) = foreign {
        return Some(format!("leads to {}, which is not live", foreign.id));
    }
    (targets.is_empty() && !members.is_empty()).then(|| "leads nowhere".to_owned())
}

fn backing(state: &HostState, release: &Release, wanted: Option<&Config>) -> Vec<Drift> {
    let mut found = Vec::new();
    for (name, of) in &release.backing {
        let here =
            state.instances.iter().filter(|found| found.role == Role::Backing && found.service == *name);
        let here = here.min_by_key(|found| !found.is_running());
        let apply = format!("`cutover backing apply {name}`");
        match here {
            None => found
                .push(drift(format!("backing service `{name}` is not there"), format!("{apply} makes it"))),
            Some(here) if !here.is_running() => {
                found.push(drift(
                    format!("backing service `{name}` is down"),
                    format!("`cutover backing restart {name}`"),
                ));
            }
            Some(here) => {
                let differs = backing_differences(state, release, of, here);
                if !differs.is_empty() {
                    found.push(drift(
                        format!(
                            "backing service `{name}` runs as release {} made it; what differs: {}",
                            here.release,
                            words(&differs)
                        ),
                        format!("{apply} makes it anew"),
                    ));
                }
            }
        }
        let now = wanted.and_then(|config| config.backing.get(name));
        if now.is_some_and(|now| now.run != of.settings.run || now.port != of.settings.port) {
            found.push(drift(
                format!("cutover.yml wants other settings of backing service `{name}` than the live release"),
                format!("`cutover deploy`, then {apply}"),
            ));
        }
    }
    found
}

fn words(changes: &[Change]) -> String {
    changes.iter().map(|change| change_words(*change)).collect::<Vec<_>>().join(", ")
}

/// What the live release is made of and the host no longer has: the next start of an instance would fail.
fn contents(state: &HostState, release: &Release) -> Vec<Drift> {
    let services = release.services.iter().map(|(name, of)| (name, &of.content));
    let backing = release.backing.iter().map(|(name, of)| (name, &of.content));
    let gone = services.chain(backing).filter_map(|(name, content)| match content {
        Content::Image { reference, name: called, .. } if !state.images.contains_key(reference) => {
            Some((name, format!("image {}", called.as_ref().unwrap_or(reference))))
        }
        Content::Artifact { hash } if !state.artifacts.contains(hash) => {
            Some((name, format!("artifact {}", hash.short())))
        }
        Content::Image { .. } | Content::Artifact { .. } => None,
    });
    gone.map(|(name, what)| {
        drift(
            format!("{what} of `{name}` is gone from the host: it runs on, and could not be started again"),
            "`cutover deploy` brings it again",
        )
    })
    .collect()
}

const ELSEWHERE: &str = "write to `${databases.NAME.file}`, a volume or an absolute path";

/// What the live release wrote into its own folder: as a sentence for each service. With `next` only what goes when that release is put live.
pub(crate) fn written(state: &HostState, next: Option<&Release>) -> Vec<String> {
    let Some(live) = &state.live else { return Vec::new() };
    let record = state.releases.iter().find(|record| record.release.id == live.release);
    let services = record.into_iter().flat_map(|record| &record.release.services);
    let told = services.filter_map(|(name, of)| {
        let Content::Artifact { hash } = &of.content else { return None };
        let names: Vec<&str> = state.written.get(hash)?.iter().map(String::as_str).collect();
        let stays =
            next.and_then(|next| next.services.get(name)).is_some_and(|next| next.content == of.content);
        (!stays).then(|| {
            format!(
                "`{name}` of release {} has written {} into its own folder: it goes with that release",
                live.release,
                names.join(", ")
            )
        })
    });
    match next {
        None => told.collect(),
        Some(_) => told.map(|what| format!("{what}, and the next one has none of it; {ELSEWHERE}")).collect(),
    }
}

/// The host's env file against what the live release was made with.
fn variables(state: &HostState, record: &ReleaseRecord) -> Vec<Drift> {
    let host = state.variables.iter().flatten();
    let other = host.filter(|(name, hash)| record.release.variables.get(*name) != Some(*hash));
    let names: Vec<&str> = other.map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let what = format!("the host's env file has other values than the live release: {}", names.join(", "));
    vec![drift(what, "`cutover deploy` takes them; `cutover env diff` compares them with the local file")]
}

/// Rights and readability of what holds secrets.
fn files(state: &HostState, facts: &HostFacts) -> Vec<Drift> {
    let open = facts.open_files.iter().map(|file| {
        drift(
            format!("{} can be read by others: its mode is {:04o}", file.path, file.mode),
            format!("`chmod 600 {}` on the host; consider its secrets known", file.path),
        )
    });
    let unreadable = state
        .env_file_problems
        .iter()
        .map(|problem| drift(format!("the host's env file: {problem}"), "mend that line on the host"));
    open.chain(unreadable).collect()
}
