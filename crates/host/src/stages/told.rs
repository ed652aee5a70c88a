//! What people are told of a migration that failed, or is not begun: the state of the schema as far as it is known, the snapshot, and the way back
//! by hand (S17).

use std::collections::BTreeSet;
use std::path::Path;

use cutover_core::config::settings::ServerKind;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout;
use cutover_core::names::{DatabaseName, ReleaseId, ServiceName};
use cutover_core::plan::{DatabasePlace, InstanceSpec, Migration, ScratchRehearsal, Stage};
use cutover_core::rules::size;
use cutover_core::state::{SchemaChange, SchemaVersion};

use super::Act;
use super::once::Ended;
use super::snapshot::Before;
use crate::journal::Trouble;
use crate::ports::ServerState;

/// In the place of words that may hold values.
pub(super) const NOT_SHOWN: &str = "what its client program said is not shown: the env file cannot be read";

/// What a migration that did not end well left in its server.
pub(super) struct Left {
    /// Sessions of it that still went on there, and were ended.
    pub(super) sessions: u64,
    /// Tables and the like differ.
    pub(super) changed: bool,
    /// Which, as far as the server says.
    pub(super) objects: Vec<String>,
    /// What its tool says.
    pub(super) schema: SchemaChange,
}

/// What is known of a database besides how its migration ended.
pub(super) struct Known<'a> {
    pub(super) before: &'a Before,
    pub(super) left: Option<Left>,
}

/// Which of a migration's commands it was, where it has several.
pub(super) fn of_several(ended: &mut Ended, migration: &Migration, spec: &InstanceSpec) {
    let all = migration.instances().count();
    let number = migration.instances().position(|other| other.name == spec.name);
    if let Some(number) = number.filter(|_| all > 1) {
        ended.why = format!("its command {} of {all}, in `{}`: {}", number + 1, spec.service, ended.why);
    }
}

/// A migration, or its rehearsal, that did not end well.
pub(super) fn failed(act: &Act<'_>, migration: &Migration, ended: &Ended, what: &str) -> Failure {
    let (database, back) = (&migration.database, act.plan.release.as_ref());
    let back = back.filter(|_| migration.down.is_some()).map(|back| &back.id);
    let headline = if let Some(release) = back {
        format!("release {release} was not put live: the down migration of `{database}` failed")
    } else {
        let release = &migration.spec.release;
        format!("release {release} was not put live: the migration of `{database}` failed")
    };
    let mut failure = Failure::new(Exit::Migration, headline);
    failure.cause.push(format!("{what}: {}", ended.why));
    failure.log = ended.output.iter().rev().take(cutover_core::defaults::LOG_TAIL).rev().cloned().collect();
    failure.next.push(back.map_or_else(
        || "mend the migration and deploy again".to_owned(),
        |to| format!("`cutover rollback --to {to} --restore-db` puts the snapshot from before the migration back instead"),
    ));
    failure.next.push(format!("its whole output: `cutover attach {}`", act.journal.run()));
    failure
}

/// A migration that failed on its scratch database.
pub(super) fn failed_on_scratch(
    act: &Act<'_>,
    migration: &Migration,
    ended: &Ended,
    (left, kind): (&Left, ServerKind),
) -> Failure {
    let mut failure = failed(act, migration, ended, "it");
    failure.what = format!("the migration of `{}` failed in its rehearsal", migration.database);
    failure.cause.extend(causes(left, kind.takes_definitions_back()));
    if let Some(first) = failure.next.first_mut() {
        "mend the migration and rehearse again".clone_into(first);
    }
    failure
}

/// What keeps a rehearsal from being one.
pub(super) fn not_rehearsed(act: &Act<'_>, plan: &ScratchRehearsal, exit: Exit, why: &str) -> Failure {
    Failure::new(exit, format!("the migration of `{}` was not rehearsed", plan.migration.database))
        .because(without_values(act, plan, why))
        .next("nothing live was touched: once that is mended, `cutover migrate rehearse` again")
}

/// The same, where it is a path that the engine gives a container, and that this user may not look at, or not read.
pub(super) fn forbidden(not_rehearsed: Failure, path: &Path, service: &ServiceName, user: u32) -> Failure {
    let path = path.display();
    let mut failure = not_rehearsed.because(format!(
        "the engine, which may read all, mounts {path} for `{service}`; for a rehearsal cutover makes a copy, and cutover runs there as the user with the number {user}"
    ));
    let let_in = format!(
        "let that user read it (`setfacl --modify user:{user}:r {path}`) and enter the folders that it lies in (`setfacl --modify user:{user}:x FOLDER`)"
    );
    failure.next.insert(0, let_in);
    failure
}

/// The same, where the kernel ended a process of the scratch server, or the migration, for want of memory.
pub(super) fn out_of_memory(act: &Act<'_>, plan: &ScratchRehearsal, ended: &InstanceSpec) -> Failure {
    let why = out_of_memory_of(ended, ended.name == plan.server.name);
    let mut failure = not_rehearsed(act, plan, Exit::Failed, &why);
    // An image of a migration's own has no such key.
    let release = act.plan.release.as_ref();
    let has_limit = release.is_none_or(|release| !release.one_offs.contains_key(&ended.service));
    failure.next.insert(
        0,
        format!(
            "rehearse where more memory is free{}",
            if has_limit {
                format!(", or give `{}` a larger `mem_limit:` where that is what it had", ended.service)
            } else {
                String::new()
            }
        ),
    );
    failure
}

fn out_of_memory_of(ended: &InstanceSpec, is_server: bool) -> String {
    let whose = if is_server {
        format!("a process of the scratch server, made like `{}`,", ended.service)
    } else {
        format!("the migration by `{}`", ended.service)
    };
    let had =
        ended.settings.memory.map_or_else(String::new, |had| format!(", of which it had {}", size(had)));
    format!(
        "{whose} was ended by the kernel for want of memory{had}: that says nothing else of the migration"
    )
}

/// A scratch server that could not be taken away.
pub(super) fn left_over(database: &DatabaseName, container: &str, failure: &Failure) -> String {
    format!(
        "the scratch server of `{database}` is still there ({}): cutover takes the container {container} away as soon as the engine lets it, and `docker rm --force --volumes {container}` does at once",
        failure.cause.join("; ")
    )
}

/// A migration that would not find the scratch server.
pub(super) fn unnamed(
    act: &Act<'_>,
    plan: &ScratchRehearsal,
    told: &ServiceName,
    kind: ServerKind,
) -> Failure {
    let (service, names) = (&plan.server.service, plan.names.iter().map(|name| format!("`{name}`")));
    let why = format!(
        "nothing that `{told}` is told leads to the database by a name that leads to the scratch server there: {}",
        names.collect::<Vec<_>>().join(", ")
    );
    let scheme = kind.schemes().first().copied().unwrap_or_default();
    let mut failure = not_rehearsed(act, plan, Exit::Refused, &why);
    failure.next = vec![
        format!(
            "name it in a variable: `DATABASE_URL: {scheme}://…@{service}/…`, or `DATABASE_HOST: {service}` beside what the image itself holds"
        ),
        "an address, a port of the host and a socket lead nowhere in a rehearsal".to_owned(),
    ];
    failure
}

/// What a client program or a server of a rehearsal said, without the values that any part of it is told.
pub(super) fn without_values(act: &Act<'_>, plan: &ScratchRehearsal, text: &str) -> String {
    let live = act.plan.live.as_ref().map(|live| &live.release);
    let releases = live.into_iter().chain([&plan.server.release, &plan.migration.spec.release]);
    let mut text = text.to_owned();
    for release in releases.collect::<BTreeSet<_>>() {
        match act.values(release) {
            Ok(values) => text = values.redact(&text),
            Err(_) => return NOT_SHOWN.to_owned(),
        }
    }
    text
}

/// A `down` that takes nothing back would leave the old release on a schema that it cannot live with.
pub(super) fn nothing_taken_back(database: &DatabaseName, to: Option<&ReleaseId>, place: &str) -> Failure {
    let to = to.map(|release| format!(" --to {release}")).unwrap_or_default();
    Failure::new(Exit::Refused, format!("the migrations of `{database}` were not taken back"))
        .because(format!("the recorded `down` commands changed nothing{place}"))
        .next(format!(
            "`cutover rollback{to} --restore-db` puts the snapshot from before the migration back instead"
        ))
        .next("or go forward with a new release")
}

/// A migration of the database itself that did not end well.
pub(super) fn failed_for_real(
    act: &Act<'_>,
    stage: Stage,
    migration: &Migration,
    ended: &Ended,
    known: &Known<'_>,
) -> Failure {
    let mut failure = failed(act, migration, ended, "it");
    if let Some(left) = &known.left {
        let kind = known.before.server.as_ref().map(|(server, _)| server.kind);
        failure.cause.extend(causes(left, kind.is_none_or(ServerKind::takes_definitions_back)));
    }
    // A file, and what takes the held path, is put back by itself.
    if migration.file().is_some() || stage == Stage::Handover {
        return failure;
    }
    let database = &migration.database;
    let mut next = Vec::new();
    match &known.left {
        None => next.push(format!("see first what it left in `{database}`: nothing there was undone")),
        Some(left) if left.changed => {
            next.push(format!(
                "what it changed in `{database}` stays: see that what serves can live with it"
            ));
        }
        Some(_) => {}
    }
    if let Some(file) = &known.before.snapshot {
        next.push(format!("the snapshot before it is {}", act.layout.snapshot(file).display()));
        next.push(put_back(file));
    }
    if let Some(left) = &known.left
        && let Some(broken) = left.schema.after.iter().find(|version| version.broken)
    {
        let before = left.schema.before.iter().find(|version| version.tool == broken.tool);
        next.push(mended(broken, Some(before.map_or("", |before| before.version.as_str()))));
    }
    next.append(&mut failure.next);
    failure.next = next;
    failure
}

/// What is typed to put a snapshot back.
fn put_back(file: &str) -> String {
    format!(
        "to put it back: `cutover snapshot restore {}`; what was written since is then kept in a snapshot, and not served",
        layout::snapshot_name(file)
    )
}

/// What differs between two looks: what was changed, made, and taken away.
pub(super) fn changed_objects(before: &ServerState, after: &ServerState) -> Vec<String> {
    let is = |name: &String, how| format!("{name} ({how})");
    let left = after.objects.iter().filter_map(|(name, now)| match before.objects.get(name) {
        Some(then) if then == now => None,
        Some(_) => Some(is(name, "changed")),
        None => Some(is(name, "new")),
    });
    let gone = before.objects.keys().filter(|name| !after.objects.contains_key(*name));
    left.chain(gone.map(|name| is(name, "gone"))).collect()
}

/// Of so many objects it is said what became of them.
const TOLD_OBJECTS: usize = 10;

fn causes(left: &Left, takes_back: bool) -> Vec<String> {
    let mut causes = Vec::new();
    if left.sessions > 0 {
        causes.push("it still went on in the server: its sessions there were ended".to_owned());
    }
    let versions =
        |versions: &[SchemaVersion]| versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (before, after) = (versions(&left.schema.before), versions(&left.schema.after));
    match (before.as_str(), after.as_str()) {
        ("", "") => {}
        _ if before == after => causes.push(format!("the schema is at version {after}, as before")),
        ("", _) => causes.push(format!("the schema is at version {after}, and had none before")),
        (_, "") => causes.push(format!("the schema was at version {before}, and has none now")),
        _ => causes.push(format!("the schema was at version {before}, and is at {after}")),
    }
    causes.push(
        match (left.changed, takes_back) {
            (true, true) => "tables, columns, indexes or functions were changed, and no transaction took that back",
            (true, false) => {
                "tables, columns, indexes or routines were changed, and stay so: this engine commits each such statement by itself"
            }
            (false, true) => {
                "tables, columns, indexes and functions are as they were: a transaction took back what it did, or it did nothing to them (rows are not compared)"
            }
            (false, false) => {
                "tables, columns, indexes and routines are as they were; what it did to rows outside of a transaction stays"
            }
        }
        .to_owned(),
    );
    if !left.objects.is_empty() {
        let told = left.objects[..left.objects.len().min(TOLD_OBJECTS)].join(", ");
        let more = left.objects.len().saturating_sub(TOLD_OBJECTS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        causes.push(format!("what differs from before it: {told}{more}"));
    }
    causes
}

/// A database whose migration tool says that an earlier migration did not come to its end is not migrated: the tool would refuse, or go on from
/// what nobody knows.
pub(super) fn refuse_broken(
    act: &Act<'_>,
    migration: &Migration,
    schema: &[SchemaVersion],
) -> Result<(), Failure> {
    let Some(broken) = schema.iter().find(|version| version.broken) else { return Ok(()) };
    let database = &migration.database;
    let mut failure = Failure::new(
        Exit::Migration,
        format!("`{database}` was not migrated: an earlier migration of it did not come to its end"),
    );
    failure.cause.push(format!("the schema is at version {broken}"));
    failure.next.push(mended(broken, None));
    let newest = newest_snapshot(act, migration);
    failure.next.push(match newest {
        Some(name) => format!(
            "or put a snapshot from before it back: `cutover snapshot restore {name}` puts the newest back"
        ),
        None => "or put a backup from before it back".to_owned(),
    });
    Err(failure)
}

/// The way out in the tool's own words, which may want to be told the version before: empty where there was none, `None` where it is not known.
fn mended(broken: &SchemaVersion, before: Option<&str>) -> String {
    let version = &broken.version;
    let tell = match broken.tool.as_str() {
        "golang-migrate" => {
            let undone = match before {
                // What the tool itself calls no version.
                Some("") => "`migrate force -- -1`".to_owned(),
                Some(before) => format!("`migrate force {before}`"),
                None => "`migrate force` with the version before".to_owned(),
            };
            // What it brought before this one is done, and is no longer at the version before.
            format!(
                "`migrate force {version}` where it is done, {undone} where it is not (the number of the file before {version}, \
                 where that was brought with it)"
            )
        }
        "sqlx" => format!(
            "`update _sqlx_migrations set success = true where version = {version}` where it is done, \
             `delete from _sqlx_migrations where version = {version}` where it is not"
        ),
        "prisma" => "`prisma migrate resolve --applied` or `--rolled-back` with its name".to_owned(),
        "flyway" => "`flyway repair`".to_owned(),
        _ => "delete its row in the tool's table".to_owned(),
    };
    format!("finish or undo by hand what it left, then tell {}: {tell}", broken.tool)
}

fn newest_snapshot(act: &Act<'_>, migration: &Migration) -> Option<String> {
    let known = act.store.snapshots(act.app()).ok()?;
    let of_it = known.into_iter().filter(|(file, _)| {
        layout::database_of_snapshot(layout::snapshot_name(file)).as_ref() == Some(&migration.database)
    });
    let (file, _) = of_it.max_by_key(|(_, place)| *place)?;
    Some(layout::snapshot_name(&file).to_owned())
}

/// A snapshot that cannot be trusted is not put back.
pub(super) fn distrusted(act: &Act<'_>, database: &DatabaseName, file: &str, trouble: &Trouble) -> Failure {
    let name = layout::snapshot_name(file);
    Failure::new(
        Exit::Refused,
        format!("`{database}` was not put back: the snapshot {name} cannot be trusted"),
    )
    .because(redacted(act, &trouble.message))
    .next("`cutover snapshot list` shows the others; `cutover snapshot verify` reads one whole")
}

/// A snapshot that does not fit its database, or whose server does not say that it does, is not put back.
pub(super) fn unreadable(act: &Act<'_>, database: &DatabaseName, file: &str, trouble: &Trouble) -> Failure {
    let name = layout::snapshot_name(file);
    Failure::new(Exit::Refused, format!("`{database}` was not put back: the snapshot {name} could not be read back"))
        .because(redacted(act, &trouble.message))
        .next("see that the database's server runs and can be reached; `cutover snapshot list` shows other snapshots")
}

/// A database whose server does not say whether somebody migrates it is not put back.
pub(super) fn not_put_back(act: &Act<'_>, database: &DatabaseName, trouble: &Trouble) -> Failure {
    Failure::new(Exit::Refused, format!("`{database}` was not put back: its server cannot be asked"))
        .because(redacted(act, &trouble.message))
        .next("see that it runs and can be reached; then do the same again")
}

/// A database that is not reached has no snapshot.
pub(super) fn unreached(act: &Act<'_>, database: &DatabaseName, trouble: &Trouble) -> Failure {
    Failure::new(Exit::Migration, format!("no snapshot was taken of `{database}`"))
        .because(redacted(act, &trouble.message))
        .next("see that it is there and can be reached; then try again")
}

/// What has the name already is not replaced.
pub(super) fn taken(database: &DatabaseName, to: &str) -> Failure {
    Failure::new(Exit::Migration, format!("the snapshot of `{database}` was not put back as {to}"))
        .because(format!("{to} is there already"))
        .next("name one that is not there yet, or take that away first")
}

/// Whether a snapshot has room is not known.
pub(super) fn no_room_told(trouble: &Trouble) -> Failure {
    Failure::new(Exit::Refused, "the free room on a disk cannot be told")
        .because(trouble.message.clone())
        .next("see that it is mounted and can be read; then do the same again")
}

/// Somebody else has the lock of migrations that the database has in its server.
pub(super) fn migrated_by_another(act: &Act<'_>, stage: Stage, database: &DatabaseName) -> Failure {
    another_migrates(stage, database)
        .because(format!(
            "another app, environment or host than {} reaches the same database, and holds its lock of migrations",
            act.app()
        ))
        .next("do the same again once that is over")
        .next("if it is not meant to be the same database, see its `url`, or the service it lies in")
}

/// Somebody else, who has lost that lock, goes on all the same.
pub(super) fn still_migrated(act: &Act<'_>, stage: Stage, database: &DatabaseName, who: &str) -> Failure {
    another_migrates(stage, database)
        .because(format!("{} came back as a migration, after such sessions were ended: the run that it is of was killed, and nobody has settled that yet", redacted(act, who)))
        .next("the host of that run settles it by itself: see `cutover status` of the app that reaches the same database")
        .next("do the same again once that is over")
}

fn another_migrates(stage: Stage, database: &DatabaseName) -> Failure {
    // By then requests were held, and what serves was stopped: that is more than to be refused.
    let exit = if stage == Stage::Handover { Exit::Migration } else { Exit::Locked };
    Failure::new(exit, format!("`{database}` is being migrated by somebody else"))
}

/// The server has ended the session that held its lock of migrations, or does not answer it, before that was begun (`done`).
pub(super) fn lost_before(database: &DatabaseName, done: &str) -> Failure {
    Failure::new(Exit::Migration, format!("`{database}` was not {done}: the lock of its migrations was lost"))
        .because(LOST)
        .because("another app, environment or host that reaches the same database may have changed it since its snapshot")
        .next("do the same again: the lock is taken and the snapshot made anew")
        .next("where that happens again, see in the server's log what ends the session")
}

/// The same meanwhile.
pub(super) fn lost_meanwhile(database: &DatabaseName, done: &str) -> String {
    format!(
        "the lock of migrations of `{database}` was lost while it was {done}: {LOST}; another app, environment or host that reaches the same database may have migrated it, too"
    )
}

/// What is known of it.
const LOST: &str = "the session that held it was ended by its server (a restart, a timeout, somebody there), or is not answered any more";

/// A client program may say what it was told.
fn redacted(act: &Act<'_>, text: &str) -> String {
    let live = act.plan.live.as_ref().map(|live| act.values(&live.release));
    match live {
        Some(Ok(values)) => values.redact(text),
        Some(Err(_)) | None => NOT_SHOWN.to_owned(),
    }
}

/// A database that could not be put back is not migrated where that may have to be done.
pub(super) fn not_restorable(act: &Act<'_>, migration: &Migration, trouble: &Trouble) -> Failure {
    let database = &migration.database;
    let other = if migration.down.is_some() {
        "or go forward with a new release"
    } else {
        "or let the old release live with it (`compatible: expand`), or decide to go without (`snapshot: none`)"
    };
    Failure::new(Exit::Refused, format!("`{database}` was not migrated: it could not be put back if that failed"))
        .because(format!("a trial beside it: {}", redacted(act, &trouble.message)))
        .next("give the role by which cutover comes what it lacks (PostgreSQL: CREATEDB, membership in the owner, its extensions; MariaDB: `GRANT ALL` on databases beside, SET USER)")
        .next(other)
}

/// A database that cannot be looked at is not migrated.
pub(super) fn unseen(act: &Act<'_>, migration: &Migration, trouble: &Trouble) -> Failure {
    let database = &migration.database;
    // A client program may say what it was told.
    let cause = act
        .values(&migration.spec.release)
        .map_or_else(|_| NOT_SHOWN.to_owned(), |values| values.redact(&trouble.message));
    let server = match &migration.place {
        Some(DatabasePlace::Server(_)) => "its server",
        Some(DatabasePlace::File(_)) | None => "it",
    };
    Failure::new(Exit::Migration, format!("`{database}` was not migrated: {server} cannot be asked"))
        .because(cause)
        .next(format!("see that {server} runs and can be reached; then do the same again"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::files::FileError;

    /// What is said here; what is serving comes to it where the run ends.
    fn text(failure: &Failure) -> String {
        let part = |word: &str, lines: &[String]| {
            lines.iter().map(|line| format!("\n{word}: {line}")).collect::<String>()
        };
        format!("{} ({})", failure.what, failure.exit.code())
            + &part("cause", &failure.cause)
            + &part("next", &failure.next)
    }

    #[test]
    fn a_down_that_changed_nothing_is_told_with_the_way_that_is_left() {
        let (database, to) = ("main".parse().unwrap(), "41d0aa2".parse().unwrap());
        insta::assert_snapshot!(text(&nothing_taken_back(&database, Some(&to), " in a copy of the database")), @r"
        the migrations of `main` were not taken back (7)
        cause: the recorded `down` commands changed nothing in a copy of the database
        next: `cutover rollback --to 41d0aa2 --restore-db` puts the snapshot from before the migration back instead
        next: or go forward with a new release
        ");
        insta::assert_snapshot!(text(&nothing_taken_back(&database, None, "")), @r"
        the migrations of `main` were not taken back (7)
        cause: the recorded `down` commands changed nothing
        next: `cutover rollback --restore-db` puts the snapshot from before the migration back instead
        next: or go forward with a new release
        ");
    }

    #[test]
    fn a_scratch_server_that_stays_is_named_with_what_takes_it_away() {
        let failure = Failure::new(Exit::Migration, "stage migrate: stopping scratch-main-1 did not work")
            .because("the engine did not stop scratch-main-1 within 60 s");
        insta::assert_snapshot!(left_over(&"main".parse().unwrap(), "cutover-shop.local.scratch-main-1", &failure), @"the scratch server of `main` is still there (the engine did not stop scratch-main-1 within 60 s): cutover takes the container cutover-shop.local.scratch-main-1 away as soon as the engine lets it, and `docker rm --force --volumes cutover-shop.local.scratch-main-1` does at once");
    }

    #[test]
    fn a_lock_that_was_lost_is_told_with_what_may_have_happened() {
        let database = "main".parse().unwrap();
        insta::assert_snapshot!(text(&lost_before(&database, "migrated")), @r"
        `main` was not migrated: the lock of its migrations was lost (5)
        cause: the session that held it was ended by its server (a restart, a timeout, somebody there), or is not answered any more
        cause: another app, environment or host that reaches the same database may have changed it since its snapshot
        next: do the same again: the lock is taken and the snapshot made anew
        next: where that happens again, see in the server's log what ends the session
        ");
        insta::assert_snapshot!(lost_meanwhile(&database, "migrated"), @"the lock of migrations of `main` was lost while it was migrated: the session that held it was ended by its server (a restart, a timeout, somebody there), or is not answered any more; another app, environment or host that reaches the same database may have migrated it, too");
    }

    #[test]
    fn a_file_that_only_root_may_read_is_told_with_who_may_not_and_what_lets_him() {
        let failure = Failure::new(Exit::Failed, "the migration of `main` was not rehearsed")
            .because("cannot copy for the rehearsal /etc/ssl/private/db.key: permission denied")
            .next("nothing live was touched: once that is mended, `cutover migrate rehearse` again");
        let service = "web".parse().unwrap();
        insta::assert_snapshot!(text(&forbidden(failure, Path::new("/etc/ssl/private/db.key"), &service, 1000)), @r"
        the migration of `main` was not rehearsed (1)
        cause: cannot copy for the rehearsal /etc/ssl/private/db.key: permission denied
        cause: the engine, which may read all, mounts /etc/ssl/private/db.key for `web`; for a rehearsal cutover makes a copy, and cutover runs there as the user with the number 1000
        next: let that user read it (`setfacl --modify user:1000:r /etc/ssl/private/db.key`) and enter the folders that it lies in (`setfacl --modify user:1000:x FOLDER`)
        next: nothing live was touched: once that is mended, `cutover migrate rehearse` again
        ");
    }

    #[test]
    fn a_name_that_is_there_is_not_replaced() {
        insta::assert_snapshot!(text(&taken(&"main".parse().unwrap(), "/srv/scratch.sqlite")), @r"
        the snapshot of `main` was not put back as /srv/scratch.sqlite (5)
        cause: /srv/scratch.sqlite is there already
        next: name one that is not there yet, or take that away first
        ");
    }

    #[test]
    fn a_disk_whose_room_is_not_known_is_told_by_its_place() {
        let error = FileError::new(
            "look at",
            Path::new("/var/backups/cutover"),
            &io::ErrorKind::PermissionDenied.into(),
        );
        insta::assert_snapshot!(text(&no_room_told(&error.into())), @r"
        the free room on a disk cannot be told (7)
        cause: cannot look at /var/backups/cutover: permission denied
        next: see that it is mounted and can be read; then do the same again
        ");
    }
}
