//! A plan as people read it: what happens to each service and why, what each stage does or why nothing, where each variable comes from.

use std::collections::BTreeSet;

use cutover_core::config::settings::{Origin, Strategy};
use cutover_core::names::{DatabaseName, ServiceName};
use cutover_core::plan::{
    BackingPlan, BakePlan, Change, Down, DrainPlan, HandoverPlan, HeldDatabase, HostPlan, MigratePlan,
    Migration, Plan, Planned, PreflightPlan, ServicePlan, SnapshotPlan, Stage, StartPlan, SwitchPlan,
    VerifyPlan, WhyNot,
};

use super::event::size;
use super::paint::{self, Text};
use super::time::span;

const WIDTH: usize = 11;
const KIND_WIDTH: usize = 26;
/// Names that are shown of each kind.
const NAMES: usize = 8;

/// The plan, host by host.
pub(crate) fn plan(plan: &Plan) -> String {
    plan.hosts.values().map(host).collect::<Vec<_>>().join("\n")
}

/// Whether all is as asked for already: no stage before the record has anything to do.
pub(crate) fn nothing_to_do(plan: &Plan) -> bool {
    plan.hosts.values().all(|host| {
        // Preflight only looks, the record only writes down: neither changes what is there.
        let Changes { backing, snapshot, migrate, start, check, handover, switch, verify, bake, drain } =
            changes(host);
        !(backing || snapshot || migrate || start || check || handover || switch || verify || bake || drain)
            && !host.record.forget_app
            && !(host.verb.is_prune() && takes_away(host))
    })
}

/// Whether a prune has anything to do.
fn takes_away(host: &HostPlan) -> bool {
    !(host.record.leftovers.is_empty() && host.record.candidates.is_empty())
}

struct Changes {
    backing: bool,
    snapshot: bool,
    migrate: bool,
    start: bool,
    check: bool,
    handover: bool,
    switch: bool,
    verify: bool,
    bake: bool,
    drain: bool,
}

fn changes(host: &HostPlan) -> Changes {
    Changes {
        backing: host.backing.todo().is_some(),
        snapshot: host.snapshot.todo().is_some(),
        migrate: host.migrate.todo().is_some(),
        start: host.start.todo().is_some(),
        check: host.check.todo().is_some(),
        handover: host.handover.todo().is_some(),
        switch: host.switch.todo().is_some(),
        verify: host.verify.todo().is_some(),
        bake: host.bake.todo().is_some(),
        drain: host.drain.todo().is_some(),
    }
}

fn host(host: &HostPlan) -> String {
    let mut text = Text::default();
    text.line(format!(
        "{} of {}{}",
        paint::strong(host.verb.as_str()),
        paint::name(&host.app),
        release(host)
    ));
    let live = host.live.as_ref();
    let live =
        live.map_or_else(|| "nothing".to_owned(), |live| format!("release {} ({})", live.release, live.slot));
    text.line(format!("live now: {live}"));
    if !host.allowed.is_empty() {
        let rules: Vec<&str> = host.allowed.iter().map(|rule| rule.as_str()).collect();
        text.line(format!("{} {}", paint::warn("let pass:"), rules.join(", ")));
    }
    section(&mut text, "services", host.services.iter().map(|(name, service)| service_line(name, service)));
    section(&mut text, "stages", stages(host));
    if host.verb.is_prune() {
        section(&mut text, "what goes", leftovers(host));
    }
    // What cutover gives to every instance is the same in every plan.
    let variables = host.variables.iter().filter(|(_, origin)| **origin != Origin::Cutover);
    section(
        &mut text,
        "variables",
        variables.map(|(name, origin)| format!("  {name}: {}", origin_text(*origin))),
    );
    section(&mut text, "notes", host.notes.iter().map(|note| format!("  {} {note}", paint::warn("-"))));
    text.finish()
}

fn section(text: &mut Text, title: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        text.line(paint::strong(title));
    }
    lines.for_each(|line| text.line(line));
}

fn line(word: &str, paint_word: impl Fn(&str) -> String, rest: impl AsRef<str>) -> String {
    format!("  {} {}", paint::column(word, WIDTH, paint_word), rest.as_ref())
}

/// The release, and where it comes from.
fn release(host: &HostPlan) -> String {
    let Some(release) = &host.release else { return String::new() };
    let source = &release.source;
    let commit = source.commit.as_deref().map(|commit| {
        let subject = source.subject.as_ref().map(|subject| format!(" \"{subject}\"")).unwrap_or_default();
        let dirty = if source.dirty { ", with changes of the work tree" } else { "" };
        format!("commit {}{subject}{dirty}", &commit[..commit.len().min(7)])
    });
    let version = source.version.as_ref().map(|version| format!("version {version}"));
    let facts: Vec<String> = commit.into_iter().chain(version).collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    format!(": release {}{facts}", paint::strong(&release.id))
}

fn service_line(name: &ServiceName, service: &ServicePlan) -> String {
    let text = match service {
        ServicePlan::Kept => "kept: nothing differs from what is live".to_owned(),
        ServicePlan::Started { incoming } => format!("started: {}", counted(incoming.len())),
        ServicePlan::Replaced { why, strategy, incoming, .. } => {
            let why: Vec<&str> = why.iter().map(|change| change_text(*change)).collect();
            let strategy = match strategy {
                Strategy::BlueGreen => "blue-green",
                Strategy::Handover => "handover",
            };
            format!("replaced ({strategy}, {}): {}", counted(incoming.len()), why.join(", "))
        }
        ServicePlan::Restarted { instances } => format!("stopped and started: {}", counted(instances.len())),
        ServicePlan::Stopped { outgoing } => format!("stopped: {}", counted(outgoing.len())),
    };
    line(name.as_str(), |name| paint::name(name), text)
}

fn counted(instances: usize) -> String {
    if instances == 1 { "1 instance".to_owned() } else { format!("{instances} instances") }
}

fn change_text(change: Change) -> &'static str {
    match change {
        Change::Content => "its image or artifact differs",
        Change::Files => "a file that is mounted into it differs",
        Change::Settings => "its settings differ",
        Change::Variables => "the value of a variable differs",
        Change::Url => "a service it refers to is made anew",
        Change::Asked => "it was asked for",
        Change::Missing => "not all of its instances are there",
    }
}

/// How much of each kind, how many bytes, and which.
fn leftovers(host: &HostPlan) -> Vec<String> {
    let mut lines = Vec::new();
    let (count, total) =
        (host.record.leftovers.len(), host.record.leftovers.iter().map(|one| one.bytes).sum());
    for of_kind in host.record.leftovers.chunk_by(|one, other| one.kind == other.kind) {
        let Some(first) = of_kind.first() else { continue };
        let bytes = of_kind.iter().map(|one| one.bytes).sum();
        lines.push(counted_bytes(first.kind.plural(), of_kind.len(), bytes));
        let shown = of_kind.iter().take(NAMES).map(|one| format!("      {}", paint::quiet(&one.name)));
        lines.extend(shown);
        if let more @ 1.. = of_kind.len().saturating_sub(NAMES) {
            lines.push(format!("      {}", paint::quiet(format!("and {more} more (`--json` names them)"))));
        }
    }
    let candidates = host.record.candidates.len();
    if candidates > 0 {
        lines.push(counted_bytes("failed candidates, stopped", candidates, 0));
    }
    lines.push(counted_bytes("in all", count + candidates, total));
    lines
}

fn counted_bytes(what: &str, count: usize, bytes: u64) -> String {
    format!("  {} {count:>6}  {:>12}", paint::column(what, KIND_WIDTH, |word| paint::name(word)), size(bytes))
}

/// The stages that are part of the verb.
fn stages(host: &HostPlan) -> impl Iterator<Item = String> {
    [
        stage(Stage::Preflight, &host.preflight, preflight),
        stage(Stage::Backing, &host.backing, backing),
        rehearsed(host, Stage::Snapshot)
            .or_else(|| stage(Stage::Snapshot, &host.snapshot, |plan| snapshot(plan, host))),
        stage(Stage::Migrate, &host.migrate, migrate),
        stage(Stage::Start, &host.start, start),
        stage(Stage::Check, &host.check, |check| format!("gates of {}", counted(check.instances.len()))),
        rehearsed(host, Stage::Handover).or_else(|| stage(Stage::Handover, &host.handover, handover)),
        stage(Stage::Switch, &host.switch, switch),
        stage(Stage::Verify, &host.verify, verify),
        stage(Stage::Bake, &host.bake, bake),
        stage(Stage::Drain, &host.drain, drain),
    ]
    .into_iter()
    .flatten()
}

fn stage<T>(stage: Stage, planned: &Planned<T>, what: impl Fn(&T) -> String) -> Option<String> {
    match planned {
        Planned::Do(plan) => Some(line(stage.as_str(), |word| paint::strong(word), what(plan))),
        Planned::NotNeeded(WhyNot::NotInThisVerb) => None,
        Planned::NotNeeded(why) => {
            let text = paint::quiet(format!("nothing: {}", why.text()));
            Some(line(stage.as_str(), |word| paint::quiet(word), text))
        }
    }
}

/// What has nothing to do unless the rehearsal finds a migration pending, which nobody knows before.
fn rehearsed(host: &HostPlan, stage: Stage) -> Option<String> {
    let pending = host.migrate.todo()?.if_pending.as_deref()?;
    let text = match (stage, pending.handover.todo()) {
        (Stage::Handover, Some(plan)) if host.handover.todo().is_none() => handover(plan),
        (Stage::Snapshot, _) if host.snapshot.todo().is_none() => "in the handover".to_owned(),
        _ => return None,
    };
    let text = paint::quiet(format!("if a migration is pending: {text}"));
    Some(line(stage.as_str(), |word| paint::quiet(word), text))
}

fn preflight(plan: &PreflightPlan) -> String {
    let mut parts = vec!["disk, rights, variables".to_owned()];
    if plan.engine {
        parts.push("container engine".to_owned());
    }
    if plan.proxy {
        parts.push("proxy".to_owned());
    }
    if !plan.images.is_empty() {
        let images: BTreeSet<&str> = plan
            .images
            .iter()
            .map(|(reference, wanted)| wanted.name.as_deref().unwrap_or_else(|| short(reference)))
            .collect();
        let images: Vec<&str> = images.into_iter().collect();
        parts.push(format!("images {}", images.join(", ")));
    }
    format!("looks at {}", parts.join(", "))
}

/// An image's id as the engine's own client shows it; other references as they are.
fn short(image: &str) -> &str {
    image.strip_prefix("sha256:").and_then(|digits| digits.get(..12)).unwrap_or(image)
}

fn backing(plan: &BackingPlan) -> String {
    let named =
        |what: &str, names: Vec<&str>| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
    // Networks and volumes that are there stay as they are.
    let where_absent = |text: String| format!("{text} where absent");
    let parts = [
        named("makes network", plan.networks.iter().map(|network| network.name.as_str()).collect())
            .map(where_absent),
        named("makes volume", plan.volumes.iter().map(|volume| file_name(&volume.name)).collect())
            .map(where_absent),
        named("takes off", plan.retire.iter().map(|instance| instance.service.as_str()).collect())
            .map(|text| format!("{text} as an earlier deploy made it")),
        named("starts", plan.instances.iter().map(|instance| instance.spec.service.as_str()).collect()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The volume of a plain process is a folder: its last name says which.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Which databases, and which file each dump goes to.
fn snapshot(plan: &SnapshotPlan, host: &HostPlan) -> String {
    let direct = host.migrate.todo().into_iter().flat_map(|migrate| &migrate.direct);
    let parts = direct.filter(|migration| plan.databases.contains(&migration.database)).map(|migration| {
        let unless = if migration.questions().is_empty() { "" } else { ", where something is pending" };
        format!("dumps {} into {}{unless}", migration.database, file_name(&migration.snapshot_file))
    });
    let asked =
        plan.asked.iter().map(|asked| format!("copies {} into {}", asked.database, file_name(&asked.file)));
    let beside = plan.beside.iter().map(|beside| {
        format!("puts {} back beside {}, as {}", file_name(&beside.file), beside.database, beside.to)
    });
    parts.chain(asked).chain(beside).collect::<Vec<_>>().join("; ")
}

fn migrate(plan: &MigratePlan) -> String {
    let names = |migrations: &[&Migration]| {
        let names = migrations.iter().map(|migration| match migration.instances().count() {
            1 => migration.database.to_string(),
            several => format!("{} ({several} commands)", migration.database),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let (files, servers): (Vec<_>, Vec<_>) =
        plan.rehearse.iter().partition(|migration| migration.file().is_some());
    let mut parts = Vec::new();
    let is_down = plan.rehearse.iter().any(|migration| migration.down.is_some());
    if !files.is_empty() && is_down {
        parts.push(format!("rehearses what takes the migration of {} back, on a copy", names(&files)));
    } else if !files.is_empty() {
        parts.push(format!("rehearses {} on a copy; what is pending is done in a handover", names(&files)));
    }
    if !servers.is_empty() && is_down {
        parts.push(format!("{}: taken back in a handover", names(&servers)));
    } else if !servers.is_empty() {
        parts.push(format!("{}: breaking, so what is pending is done in a handover", names(&servers)));
    }
    parts.extend(plan.scratch.iter().map(|one| {
        format!("tries {} on {}, in a server of its own", one.migration.database, file_name(&one.snapshot))
    }));
    if !plan.direct.is_empty() {
        parts.push(format!("migrates {}", names(&plan.direct.iter().collect::<Vec<_>>())));
    }
    parts.join("; ")
}

/// Whose migrations of a database are taken back.
fn taken_back(database: &DatabaseName, down: &Down) -> String {
    let releases: Vec<_> = down.undoes.iter().map(|undone| undone.release.to_string()).collect();
    format!("the migration of {database} by release {} taken back", releases.join(", then "))
}

fn start(plan: &StartPlan) -> String {
    let started: Vec<String> =
        plan.waves.iter().flatten().map(|instance| instance.spec.name.to_string()).collect();
    let mut parts = Vec::new();
    if !started.is_empty() {
        parts.push(started.join(", "));
    }
    if !plan.joins.is_empty() {
        parts.push(format!("{} kept join the new network", counted(plan.joins.len())));
    }
    parts.join("; ")
}

fn handover(plan: &HandoverPlan) -> String {
    let names: Vec<&str> = plan.hold.iter().map(ServiceName::as_str).collect();
    let mut parts = Vec::new();
    if !names.is_empty() {
        parts.push(format!(
            "holds requests to {} for at most {}",
            names.join(", "),
            span(plan.bounds.budget)
        ));
    }
    let starts = format!("starts {}", counted(plan.incoming.len()));
    parts.push(match plan.outgoing.len() {
        0 => starts,
        outgoing => format!("stops {}, {starts}", counted(outgoing)),
    });
    for database in &plan.databases {
        parts.push(match database {
            HeldDatabase::Migrate { migration } => match &migration.down {
                Some(down) => format!("snapshot and {}", taken_back(&migration.database, down)),
                None => format!("snapshot and migration of {}", migration.database),
            },
            HeldDatabase::Restore { database, snapshot: Some(file), present: Some(present), .. } => {
                format!(
                    "{database} as it is now kept in {}, then {} put in its place",
                    file_name(present),
                    file_name(file)
                )
            }
            HeldDatabase::Restore { database, .. } => format!("snapshot of {database} put back"),
            HeldDatabase::Password { change } => {
                format!("the server of {} gets the new password", change.service)
            }
            HeldDatabase::Settle { database, .. } => {
                format!("the migration of {database} ended in its server")
            }
        });
    }
    parts.join("; ")
}

fn switch(plan: &SwitchPlan) -> String {
    match plan {
        SwitchPlan::Table { after: None, .. } => "takes the routes out".to_owned(),
        SwitchPlan::Table { after: Some(entry), .. } => {
            let routes: Vec<String> = entry
                .routes
                .iter()
                .flat_map(|route| {
                    let hosts =
                        if route.hosts.is_empty() { vec!["*".to_owned()] } else { route.hosts.clone() };
                    hosts.into_iter().map(|host| format!("{host}{}", route.path)).collect::<Vec<_>>()
                })
                .collect();
            format!("routes {}", routes.join(", "))
        }
        SwitchPlan::LiveFile => "writes which release is live (no routes)".to_owned(),
    }
}

fn verify(plan: &VerifyPlan) -> String {
    let mut parts: Vec<String> = plan
        .routes
        .iter()
        .map(|route| format!("GET {}{}", route.host.as_deref().unwrap_or_default(), route.path))
        .collect();
    let follow: Vec<&str> = plan.follow.iter().map(|follow| follow.service.as_str()).collect();
    if !follow.is_empty() {
        parts.push(format!("then {}", follow.join(", ")));
    }
    parts.join("; ")
}

fn bake(plan: &BakePlan) -> String {
    format!("watches {} for {}", counted(plan.watched.len()), span(plan.duration))
}

fn drain(plan: &DrainPlan) -> String {
    let names: Vec<String> = plan.outgoing.iter().map(|instance| instance.name.to_string()).collect();
    let mut parts = Vec::new();
    if !names.is_empty() {
        parts.push(format!(
            "{} go, with at most {} for requests in flight",
            names.join(", "),
            span(plan.deadline)
        ));
    }
    if !plan.keep_warm.is_zero() {
        parts.push(format!("kept warm for {}", span(plan.keep_warm)));
    }
    if !plan.leaves.is_empty() {
        parts.push(format!("{} kept leave the old network", counted(plan.leaves.len())));
    }
    parts.join("; ")
}

/// Where a value comes from; the value itself is printed nowhere.
fn origin_text(origin: Origin) -> &'static str {
    match origin {
        Origin::CommandLine => "the command line",
        Origin::ProcessEnvironment => "this process's environment",
        Origin::LocalFile => "the local env file",
        Origin::HostFile => "the host's env file",
        Origin::EnvironmentVariables => "environments.*.variables",
        Origin::Configuration => "cutover.yml",
        Origin::Generated => "made by cutover",
        Origin::Cutover => "given by cutover",
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
