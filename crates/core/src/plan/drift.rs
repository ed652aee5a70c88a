//! What a deploy leaves alone though it differs: backing services run on as the release that started them made them.

use crate::layout;
use crate::names::ReleaseId;
use crate::plan::Change;
use crate::plan::passwords::{is_password, keeps_data};
use crate::release::{BackingRelease, Release, RuntimeKind};
use crate::state::{FoundInstance, HostState, RestartPolicy, Role};

/// A line for each backing service that runs otherwise than the release says.
pub(crate) fn drift(state: &HostState, release: &Release) -> Vec<String> {
    let there = state.instances.iter().filter(|found| found.role == Role::Backing && found.ours);
    there.filter_map(|found| differs(state, release, found)).collect()
}

fn differs(state: &HostState, release: &Release, found: &FoundInstance) -> Option<String> {
    let Some(wanted) = release.backing.get(&found.service) else {
        return Some(format!(
            "backing service `{}` is no longer named, and runs on; {}",
            found.service,
            removal(state, found)
        ));
    };
    let what = differences(state, release, wanted, found);
    if what.is_empty() || may_be_made_anew(state, found) {
        return None;
    }
    let what: Vec<&str> = what.into_iter().map(words).collect();
    Some(format!(
        "backing service `{0}` runs as release {1} made it, and a deploy never replaces it; what differs now: {2}; \
         once this release is live, `cutover backing apply {0}` makes it anew (its volumes stay)",
        found.service,
        found.release,
        what.join(", "),
    ))
}

/// Whether a deploy may replace a backing service: no release that went live has it, and what it has written is in volumes that stay, or it never was
/// healthy.
pub(crate) fn may_be_made_anew(state: &HostState, found: &FoundInstance) -> bool {
    let is_live = |id: &ReleaseId| state.live.as_ref().is_some_and(|live| live.release == *id);
    let of = |release: &Release| release.backing.contains_key(&found.service);
    let mut lived = state.releases.iter().filter(|record| record.lived || is_live(&record.release.id));
    let made = state.releases.iter().find(|record| record.release.id == found.release);
    let has_volumes = made
        .and_then(|record| record.release.backing.get(&found.service))
        .is_some_and(|backing| !backing.settings.run.mounts.is_empty());
    found.ours
        && !lived.any(|record| of(&record.release))
        && (has_volumes || found.restart == RestartPolicy::No)
}

/// What differs between a backing service as it runs and as a release wants it; nothing where nobody knows how it was made.
pub(crate) fn differences(
    state: &HostState,
    release: &Release,
    wanted: &BackingRelease,
    found: &FoundInstance,
) -> Vec<Change> {
    let record = state.releases.iter().find(|record| record.release.id == found.release);
    let Some(record) = record else { return Vec::new() };
    let Some(was) = record.release.backing.get(&found.service) else { return Vec::new() };
    let used = wanted.settings.run.environment.values().flat_map(crate::template::Template::variables);
    // Made anew it would not read a password either, where it has its data from before.
    let heeds = |variable: &&_| !(keeps_data(wanted) && is_password(wanted, variable));
    let another_value =
        |variable: &_| record.release.variables.get(variable) != release.variables.get(variable);
    let differ = [
        (Change::Content, was.content.identity() != wanted.content.identity()),
        (Change::Files, was.shipped != wanted.shipped),
        (
            Change::Settings,
            was.settings.run != wanted.settings.run || was.settings.port != wanted.settings.port,
        ),
        (Change::Variables, used.into_iter().filter(heeds).any(another_value)),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(change, _)| change).collect()
}

/// What differs, as part of a sentence.
pub(crate) fn words(change: Change) -> &'static str {
    match change {
        Change::Content => "its image",
        Change::Files => "a file that is mounted into it",
        Change::Settings => "its settings",
        Change::Variables => "the value of a variable",
        Change::Url | Change::Asked | Change::Missing => "what it is made of",
    }
}

fn removal(state: &HostState, found: &FoundInstance) -> String {
    match found.runtime {
        RuntimeKind::Container => format!(
            "`docker rm -f {}` takes it off, when nothing uses it",
            layout::container(&state.app, &found.name)
        ),
        RuntimeKind::Process => "`cutover remove` takes it off with the app".to_owned(),
    }
}
