//! What a deploy leaves alone though it differs: backing services run on as the release that started them made them.

use crate::layout;
use crate::release::{BackingRelease, Release, RuntimeKind};
use crate::state::{FoundInstance, HostState, Role};

/// A line for each backing service that runs otherwise than the release says.
pub(crate) fn drift(state: &HostState, release: &Release) -> Vec<String> {
    let there = state.instances.iter().filter(|found| found.role == Role::Backing && found.ours);
    there.filter_map(|found| differs(state, release, found)).collect()
}

fn differs(state: &HostState, release: &Release, found: &FoundInstance) -> Option<String> {
    let record = state.releases.iter().find(|record| record.release.id == found.release)?;
    let was = record.release.backing.get(&found.service)?;
    let Some(wanted) = release.backing.get(&found.service) else {
        return Some(format!(
            "backing service `{}` is no longer named, and runs on; {}",
            found.service,
            removal(state, found, "when nothing uses it")
        ));
    };
    let what = differences(was, wanted);
    if what.is_empty() {
        return None;
    }
    Some(format!(
        "backing service `{}` runs as release {} made it, and a deploy never replaces it; what differs now: {}; {}",
        found.service,
        found.release,
        what.join(", "),
        removal(state, found, "and deploy again to take the change: its volumes stay")
    ))
}

fn differences(was: &BackingRelease, wanted: &BackingRelease) -> Vec<&'static str> {
    let mut what = Vec::new();
    if was.content.identity() != wanted.content.identity() {
        what.push("its image");
    }
    if was.shipped != wanted.shipped {
        what.push("a file that is mounted into it");
    }
    if was.settings.run != wanted.settings.run || was.settings.port != wanted.settings.port {
        what.push("its settings");
    }
    what
}

fn removal(state: &HostState, found: &FoundInstance, why: &str) -> String {
    match found.runtime {
        RuntimeKind::Container => {
            format!("`docker rm -f {}` takes it off, {why}", layout::container(&state.app, &found.name))
        }
        RuntimeKind::Process => format!("`cutover remove` takes it off with the app, {why}"),
    }
}
