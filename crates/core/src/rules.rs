//! Safety rules: named pure functions over the plan. Each refuses with its four answers; `--allow RULE` lets one pass, recorded. The host
//! applies them again to what it received.

use std::collections::BTreeSet;

use cutover_routes::Entry;

use crate::config::settings::{Compatible, SnapshotPolicy};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::plan::{Crossing, DatabasePlace, HostPlan, Migration, Rule, SwitchPlan, Verb, snapshots};
use crate::request::{Ancestry, Request};
use crate::state::HostState;

/// Every rule that refuses the plan and was not let pass.
///
/// # Errors
/// The refusals, in the order of the rules.
pub fn check(plan: &HostPlan, state: &HostState, request: &Request) -> Result<(), Vec<Failure>> {
    let mut refusals = recheck(plan, state).err().unwrap_or_default();
    if !plan.allowed.contains(&Rule::OlderCommit) {
        refusals.extend(refuse_older_commit(state, request));
    }
    if !plan.allowed.contains(&Rule::RollbackAcrossBreakingMigration) {
        refusals.extend(refuse_rollback_across_breaking_migration(plan, state, request));
        refusals.extend(refuse_snapshot_across_breaking_migration(state, request));
    }
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// The rules that need nothing of the client: what a host applies again under its lock.
///
/// # Errors
/// The refusals, in the order of the rules.
pub fn recheck(plan: &HostPlan, state: &HostState) -> Result<(), Vec<Failure>> {
    if let Some(refusal) = refuse_unreadable_env_file(plan, state) {
        return Err(vec![refusal]);
    }
    let rules: [(Rule, Refuse); 6] = [
        (Rule::MigrationWithoutSnapshot, refuse_migration_without_snapshot),
        (Rule::BreakingMigrationBesideOld, refuse_breaking_migration_beside_old),
        (Rule::LowDisk, refuse_low_disk),
        (Rule::ForeignRoute, refuse_foreign_route),
        (Rule::MissingVariable, refuse_missing_variable),
        (Rule::OpenEnvFile, refuse_open_env_file),
    ];
    let asked = rules.iter().filter(|(rule, _)| !(rule.can_be_allowed() && plan.allowed.contains(rule)));
    let refusals: Vec<Failure> = asked.filter_map(|(_, refuse)| refuse(plan, state)).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// A rule: what it refuses, if it does.
type Refuse = fn(&HostPlan, &HostState) -> Option<Failure>;

fn refusal(rule: Rule, what: impl Into<String>) -> Failure {
    let failure = Failure::new(Exit::Refused, what);
    if rule.can_be_allowed() {
        failure.next(format!("or let it pass, on record: `--allow {}`", rule.as_str()))
    } else {
        failure
    }
}

/// A migration of what lies nowhere that snapshots are taken of runs only after the decision to go without one.
pub fn refuse_migration_without_snapshot(plan: &HostPlan, _: &HostState) -> Option<Failure> {
    let direct = &plan.migrate.todo()?.direct;
    let is_without = |migration: &&Migration| {
        let taken = matches!(&migration.place, Some(DatabasePlace::Server(_)));
        migration.snapshot == SnapshotPolicy::BeforeMigration && !taken
    };
    let without = direct.iter().find(is_without)?;
    let database = &without.database;
    let mut failure = refusal(
        Rule::MigrationWithoutSnapshot,
        format!("database `{database}` would be migrated without a snapshot"),
    );
    failure.cause.push("where it lies is not known to the plan".to_owned());
    failure.next.insert(0, format!("take one yourself and say so: `databases.{database}.snapshot: none`"));
    Some(failure)
}

/// A breaking migration takes the held path (S18): carried out beside the old release it would break that.
pub fn refuse_breaking_migration_beside_old(plan: &HostPlan, _: &HostState) -> Option<Failure> {
    // With all of it stopped there is no old release to break.
    plan.live.as_ref().filter(|live| !live.members.is_empty())?;
    let direct = &plan.migrate.todo()?.direct;
    let breaking = direct.iter().find(|migration| migration.compatible == Compatible::Breaking)?;
    let database = &breaking.database;
    let mut failure = refusal(
        Rule::BreakingMigrationBesideOld,
        format!("the breaking migration of `{database}` would be carried out while the old release serves"),
    );
    failure.cause.push("the plan holds no requests for it".to_owned());
    failure.next.push(
        "split it: a release that adds (`compatible: expand`), then one that takes away what nobody uses any more"
            .to_owned(),
    );
    failure.next.push("or in a window of your own: `cutover stop`, then deploy".to_owned());
    Some(failure)
}

/// A release from before a breaking migration does not run on the schema of today (S18); nor does one that needs what a restore has undone.
pub fn refuse_rollback_across_breaking_migration(
    plan: &HostPlan,
    state: &HostState,
    request: &Request,
) -> Option<Failure> {
    plan.live.as_ref()?;
    let release = plan.release.as_ref()?;
    if plan.verb != Verb::Rollback {
        return None;
    }
    let crossed = crate::plan::crossed(state, release);
    let taken_back = request.restore_databases || request.migrate_down;
    let first = crossed.iter().find(|crossed| crossed.how == Crossing::Undone || !taken_back)?;
    let (migrated, migration) = (&first.record.release.id, &first.migration.done);
    let mut failure = refusal(
        Rule::RollbackAcrossBreakingMigration,
        format!("release {} cannot run on the database of today", release.id),
    );
    let (cause, remedy) = match (first.how, &migration.snapshot) {
        (Crossing::Undone, _) => (
            format!(
                "it was live with the migration of `{}` by release {migrated}, and that was undone since",
                migration.database
            ),
            "deploy its commit again: the migration is then carried out anew".to_owned(),
        ),
        (Crossing::Since, snapshot) => (
            format!("release {migrated} migrated `{}` and declared it breaking", migration.database),
            snapshot.as_ref().map_or_else(
                || "it was migrated without a snapshot: go forward with a new release".to_owned(),
                |file| format!(
                    "`cutover rollback --to {} --restore-db` puts back the snapshot taken before it ({file}); what was written since is kept in a snapshot of the present, but not served",
                    release.id
                ),
            ),
        ),
    };
    failure.cause.push(cause);
    failure.next.insert(0, remedy);
    if first.how == Crossing::Since && crate::plan::downs_are_recorded(state, release) {
        let down = format!(
            "`cutover rollback --to {} --migrate-down` takes the migrations back by the `down` commands that are recorded with them, after a snapshot",
            release.id
        );
        failure.next.insert(0, down);
    }
    Some(failure)
}

/// A snapshot is not put under a release that cannot run on it (S18).
pub fn refuse_snapshot_across_breaking_migration(state: &HostState, request: &Request) -> Option<Failure> {
    let found = snapshots::named(state, request)?;
    let live = &state.live.as_ref()?.release;
    let apart = snapshots::apart(state, found);
    let first = apart.iter().find(|one| one.migration.done.compatible == Compatible::Breaking)?;
    let (database, migrated) = (&found.database, &first.record.release.id);
    let (cause, remedy) = match first.how {
        snapshots::Differs::Lacking => (
            format!(
                "it was taken before release {migrated} migrated `{database}`, and declared that breaking"
            ),
            both_back(state, first, &found.name),
        ),
        snapshots::Differs::Added => (
            format!(
                "release {migrated} had migrated `{database}` when it was taken, and declared that breaking; release {live} went live without it"
            ),
            Some(format!("deploy the commit of release {migrated} again")),
        ),
    };
    let mut failure = refusal(
        Rule::RollbackAcrossBreakingMigration,
        format!("release {live}, which is live, cannot run on the snapshot {}", found.name),
    );
    failure.cause.push(cause);
    failure.next.insert(
        0,
        format!("`cutover snapshot restore {} --to SCRATCH` puts it beside, to look at", found.name),
    );
    if let Some(remedy) = remedy {
        failure.next.insert(0, remedy);
    }
    Some(failure)
}

/// The way back to before a migration that a snapshot does not have, where there is one: by the snapshot that was taken for it.
fn both_back(state: &HostState, lacking: &snapshots::Apart<'_>, named: &str) -> Option<String> {
    let migration = lacking.migration;
    let live = &state.live.as_ref()?.release;
    let without = state
        .releases
        .iter()
        .filter(|record| record.lived && record.release.id != *live && !migration.held_at(record.sequence));
    let to = &without.max_by_key(|record| record.sequence)?.release;
    let crossed = crate::plan::crossed(state, to);
    let mut since = crossed.iter().filter(|one| one.how == Crossing::Since).map(|one| &one.migration.done);
    let file = since.find(|done| done.database == migration.done.database)?.snapshot.as_ref()?;
    let file = crate::layout::snapshot_name(file);
    let instead = if file == named { String::new() } else { format!(" (not {named})") };
    Some(format!(
        "`cutover rollback --to {} --restore-db` puts {file}{instead} and that release back together",
        to.id
    ))
}

/// Less room than the plan needs.
pub fn refuse_low_disk(plan: &HostPlan, state: &HostState) -> Option<Failure> {
    let needed = plan.preflight.todo()?.disk;
    (state.disk_free < needed).then(|| {
        let mut failure = refusal(Rule::LowDisk, "there is not enough room on the disk");
        failure.cause.push(format!(
            "{} free where state lies ({}), {} needed",
            size(state.disk_free),
            state.root,
            size(needed)
        ));
        failure.next.insert(0, format!("make room under {}", state.root));
        failure
    })
}

/// A disk that the plan writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What will be written, and where.
    pub places: Vec<(String, String)>,
    /// Free bytes.
    pub free: u64,
    /// Wanted bytes.
    pub needed: u64,
}

/// Like [`refuse_low_disk`], for each disk that is written to, as the host finds them.
pub fn refuse_low_room(rooms: &[Room]) -> Option<Failure> {
    let low: Vec<&Room> = rooms.iter().filter(|room| room.free < room.needed).collect();
    if low.is_empty() {
        return None;
    }
    let mut failure = refusal(Rule::LowDisk, "there is not enough room on the disk");
    for room in &low {
        let places: Vec<String> =
            room.places.iter().map(|(what, place)| format!("{what} ({place})")).collect();
        let (free, needed) = (size(room.free), size(room.needed));
        failure.cause.push(format!("{free} free for {}, {needed} needed", places.join(" and ")));
    }
    let places: Vec<&str> = low.iter().filter_map(|room| Some(room.places.first()?.1.as_str())).collect();
    failure.next.insert(0, format!("make room under {}", places.join(" and ")));
    Some(failure)
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, unit)| format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
    )
}

/// A commit that is a proper ancestor of the live one (S27).
pub fn refuse_older_commit(state: &HostState, request: &Request) -> Option<Failure> {
    let live = state.live.as_ref()?;
    (request.verb == Verb::Deploy && request.ancestry == Ancestry::Older).then(|| {
        let commit =
            request.source.commit.as_deref().and_then(|commit| commit.get(..7)).unwrap_or("this one");
        let mut failure = refusal(Rule::OlderCommit, format!("commit {commit} is older than what is live"));
        failure.cause.push(format!(
            "it is an ancestor of release {}: a stale work tree or a late job would undo it",
            live.release
        ));
        failure.next.insert(0, "pull and deploy again; to go back on purpose: `cutover rollback`".to_owned());
        failure
    })
}

/// A route another app holds, or an app of this name from another repository (S2).
pub fn refuse_foreign_route(plan: &HostPlan, state: &HostState) -> Option<Failure> {
    let mine = plan.release.as_ref().and_then(|release| release.source.repository.as_ref());
    let theirs = state.live.as_ref().and_then(|live| live.repository.as_ref());
    if let (Some(mine), Some(theirs)) = (mine, theirs)
        && mine != theirs
    {
        let what = format!("{} on this host belongs to another repository", plan.app);
        let failure = refusal(Rule::ForeignRoute, what)
            .because(format!("it was deployed from {theirs}, this is {mine}"));
        return Some(failure.next("give one of them another `app:` name"));
    }
    let SwitchPlan::Table { after: Some(after), .. } = plan.switch.todo()? else { return None };
    let own = plan.app.owner();
    let others = state.table.iter().flat_map(|found| &found.table.owners).filter(|(owner, _)| **owner != own);
    for (owner, entry) in others {
        if let Some((host, path)) = clash(entry, after) {
            let what = format!("route {host}{path} belongs to {owner}");
            return Some(
                refusal(Rule::ForeignRoute, what)
                    .because(format!(
                        "{owner} is live on this host with that route; one route leads to one app"
                    ))
                    .next(format!("choose another host or path, or take it off there first (app {owner})")),
            );
        }
    }
    None
}

fn clash(theirs: &Entry, mine: &Entry) -> Option<(String, String)> {
    let ways = |entry: &Entry| -> BTreeSet<(String, String)> {
        let of = |route: &cutover_routes::Route| {
            let hosts = if route.hosts.is_empty() { vec!["*".to_owned()] } else { route.hosts.clone() };
            hosts.into_iter().map(|host| (host, route.path.clone())).collect::<Vec<_>>()
        };
        entry.routes.iter().flat_map(of).collect()
    };
    ways(theirs).intersection(&ways(mine)).next().cloned()
}

/// A required variable without a value, or with a placeholder in the host's env file.
pub fn refuse_missing_variable(plan: &HostPlan, state: &HostState) -> Option<Failure> {
    let preflight = plan.preflight.todo()?;
    let release = plan.release.as_ref()?;
    let missing: Vec<_> = preflight
        .required
        .iter()
        .filter(|name| !release.variables.contains_key(*name) && !preflight.generate.contains(*name))
        .map(ToString::to_string)
        .collect();
    let unfilled = preflight.required.iter().filter(|name| {
        // A value sent along stands over the host's placeholder.
        state.placeholders.contains(*name)
            && state.variables.as_ref().and_then(|v| v.get(*name)) == release.variables.get(*name)
    });
    let unfilled: Vec<_> = unfilled.map(ToString::to_string).collect();
    let environment = &plan.app.environment;
    if !missing.is_empty() {
        let failure = refusal(Rule::MissingVariable, format!("no value for {}", missing.join(", ")));
        let them = if missing.len() == 1 { "it" } else { "them" };
        return Some(
            failure.because(format!("cutover.yml names {them} without a value, and no source has one")).next(
                format!(
                    "`cutover env set -e {environment} {}`, or a line in `{}` (0600) beside cutover.yml",
                    missing[0],
                    if environment.as_str() == "local" {
                        ".env".to_owned()
                    } else {
                        format!(".env.{environment}")
                    }
                ),
            ),
        );
    }
    (!unfilled.is_empty()).then(|| {
        refusal(Rule::MissingVariable, format!("{} still holds a placeholder", unfilled.join(", ")))
            .because("the host's env file has `CHANGE_ME` or the like there")
            .next(format!("`cutover env set -e {environment} {}`", unfilled[0]))
    })
}

/// An env file that cannot be read: which variables the host has is not known. No rule that could be let pass.
pub fn refuse_unreadable_env_file(plan: &HostPlan, state: &HostState) -> Option<Failure> {
    plan.preflight.todo().filter(|_| !state.env_file_problems.is_empty())?;
    let mut failure = Failure::new(Exit::Configuration, "the host's env file cannot be read");
    failure.cause.clone_from(&state.env_file_problems);
    Some(failure.next("mend the lines named above; each is `NAME=value`, a comment, or empty"))
}

/// An env file that others on the host can read.
pub fn refuse_open_env_file(plan: &HostPlan, state: &HostState) -> Option<Failure> {
    let mode = state.env_file_mode?;
    (plan.preflight.todo().is_some() && mode & 0o077 != 0).then(|| {
        let path = format!("{}/apps/{}/{}/env", state.root, plan.app.app, plan.app.environment);
        let mut failure = refusal(Rule::OpenEnvFile, "the host's env file can be read by others");
        failure.cause.push(format!("{path} has mode {:04o}", mode & 0o7777));
        failure.next.insert(0, format!("`chmod 600 {path}`; consider its secrets known and change them"));
        failure
    })
}

/// A dump while requests are held that would take longer than half the hold's budget (S18).
pub fn refuse_long_dump(database: &str, bytes: u64, budget_ms: u64) -> Option<Failure> {
    let seconds = bytes / crate::defaults::DUMP_RATE;
    (seconds.saturating_mul(2_000) > budget_ms).then(|| {
        let what = format!("the snapshot of `{database}` would hold requests for too long");
        let mut failure = refusal(Rule::LongHold, what);
        failure.cause.push(format!(
            "it has {}, which may take {seconds} s to dump; half the hold's budget is {} ms",
            size(bytes),
            budget_ms / 2
        ));
        failure.next.insert(
            0,
            "raise `hold: { budget: … }` of the services that use it; or split the migration: a release that adds (`compatible: expand`), then one that takes away"
                .to_owned(),
        );
        failure
    })
}

/// A rehearsed migration whose hold would be longer than half its budget (S16).
pub fn refuse_long_hold(database: &str, took_ms: u64, budget_ms: u64) -> Option<Failure> {
    (took_ms.saturating_mul(2) > budget_ms).then(|| {
        let mut failure = refusal(
            Rule::LongHold,
            format!("the migration of `{database}` would hold requests for too long"),
        );
        failure.cause.push(format!(
            "copy and migration took {took_ms} ms in the rehearsal; half the hold's budget is {} ms",
            budget_ms / 2
        ));
        failure.next.insert(
            0,
            "raise `hold: { budget: … }` of the services that share the file, or make the migration quicker"
                .to_owned(),
        );
        failure
    })
}
