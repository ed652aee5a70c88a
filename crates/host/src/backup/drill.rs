//! A trial of a backup: all of it comes back beside what is live, databases of servers into scratch databases of their servers; they are asked what
//! cutover.yml says, and all of it is taken away again. What a drill that was killed has left goes with the next one, or with the next backup.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::backup::{Drill, DumpInBackup, Items, Manifest, ServerItem};
use cutover_core::failure::Failure;
use cutover_core::layout::DRILLED;
use cutover_core::names::{AppId, DatabaseName, VolumeName};
use tokio::time::Instant;

use super::dumps::{self, Fetched, reach};
use super::gather::{self, failed, trouble};
use super::manifest::{self, Found};
use super::prune::is_verified;
use super::restic::{Listed, Restic};
use super::work::doing;
use super::{drill_room, restore};
use crate::files;
use crate::host::Host;
use crate::lock::ProcessLock;
use crate::ports::{DatabaseError, Located, Server};

/// What failed.
const WHAT: &str = "the backup did not pass its drill";
/// Bytes that the name of a database has at most, in every engine.
const LONGEST: usize = 63;
/// For all of a drill: whoever waits for the repository has more patience.
pub(super) const WHOLE: Duration = Duration::from_hours(10);
/// For one thing to come out of the repository, or into a server.
const STEP: Duration = Duration::from_hours(6);
/// For the answer to one check.
const CHECK: Duration = Duration::from_hours(1);

/// One drill.
pub(super) struct Trial<'a> {
    pub(super) host: &'a Host,
    pub(super) app: &'a AppId,
    pub(super) restic: &'a Restic,
    pub(super) room: &'a Path,
    /// What is live has.
    pub(super) items: &'a Items,
    pub(super) drill: Option<&'a Drill>,
    /// When it ends, whatever it has come to.
    pub(super) end: Instant,
}

/// A server that a dump can come back in.
struct Ready {
    server: Server,
    scratch: String,
    /// Where it keeps its data, where that is on this host.
    data: Option<PathBuf>,
}

impl Trial<'_> {
    /// Puts the backup back for a moment; what was found good, a line each. `reading` is the lock of the repository, let go of once all came out of it.
    pub(super) async fn of(&self, backup: &Listed, reading: ProcessLock) -> Result<Vec<String>, Failure> {
        let because = |error: super::restic::ResticError| error.failure(WHAT, self.restic.target());
        let found = manifest::read(self.restic, backup).await.map_err(because)?;
        self.refuse_unchecked(&found)?;
        let mut lines = self.absent(&found).await?;
        let servers = self.servers(&found)?;
        for (item, dump) in &servers {
            self.made_ready(item, dump).await?;
        }
        let scratch = self.room.join("scratch");
        let bytes = restore::refuse_without_room(self.restic, backup, &found, &scratch).await?;
        let volumes = restore::volumes(self.restic, backup, &found, bytes, &scratch);
        let volumes = self.within(STEP, "volumes come back", volumes).await?;
        lines.extend(
            volumes.iter().filter_map(|line| Some(format!("{}: it came back", line.split_once(": ")?.0))),
        );
        for (item, dump) in &servers {
            self.fetched(&item.name, dump).await?;
        }
        drop(reading);
        for (name, file) in &found.manifest.databases {
            let file = Located::File(restore::file_of_database(&scratch, file)?);
            let asked = self.asked(name, &file).await?;
            lines.push(format!("database {name}: it came back, integrity_check: ok{asked}"));
        }
        for (item, dump) in &servers {
            doing(format!("database {} comes back beside the live one", item.name));
            lines.push(self.server(item, dump).await?);
        }
        lines.sort();
        Ok(lines)
    }

    /// The dumps, each with the live database that it is of.
    fn servers<'b>(&self, found: &'b Found) -> Result<Vec<(&ServerItem, &'b DumpInBackup)>, Failure> {
        let of = |(name, dump): (&DatabaseName, &'b DumpInBackup)| {
            let item = self.items.servers.iter().find(|item| item.name == *name);
            item.map(|item| (item, dump)).ok_or_else(|| {
                failed(WHAT)
                    .because(format!(
                        "what is live has no database `{name}`, so that there is no server to try it in"
                    ))
                    .next("`cutover backup verify` reads it; `cutover backup run` makes one of what is live")
            })
        };
        found.manifest.dumps.iter().map(of).collect()
    }

    /// What was left of a drill is gone, and there is room.
    async fn made_ready(&self, item: &ServerItem, dump: &DumpInBackup) -> Result<Ready, Failure> {
        let told = |error| told(&item.name, &error);
        let server = reach(self.host, self.app, item).await?;
        let database = &self.host.ports.database;
        let live = database.look(&server).await.map_err(told)?;
        let scratch = scratch_of(&live.database);
        database.drop_kept(&server, &scratch).await.map_err(told)?;
        let data = drill_room::data_of(self.host, item).await;
        if let Some(data) = &data {
            drill_room::refuse_without(data, live.bytes, dump.bytes)?;
        }
        Ok(Ready { server, scratch, data })
    }

    fn file_of(&self, name: &DatabaseName) -> PathBuf {
        self.room.join("drilled").join(name.as_str())
    }

    async fn fetched(&self, name: &DatabaseName, dump: &DumpInBackup) -> Result<(), Failure> {
        let file = self.file_of(name);
        files::ensure_folder(files::folder_of(&file), 0o700).map_err(|error| trouble(&error))?;
        let packed = Fetched::Packed(dump.parts.clone());
        let fetched = async {
            let fetched = dumps::fetch(self.restic, self.app, dump, packed, &file).await;
            fetched.map_err(|error| error.failure(WHAT, self.restic.target()))
        };
        self.within(STEP, &format!("the dump of database `{name}` comes"), fetched).await
    }

    async fn server(&self, item: &ServerItem, dump: &DumpInBackup) -> Result<String, Failure> {
        let name = &item.name;
        // What came meanwhile lies on the same disk, maybe.
        let ready = self.made_ready(item, dump).await?;
        let (database, file) = (&self.host.ports.database, self.file_of(name));
        let tried = self.filled(name, dump, &ready, &file).await;
        files::discard(&file);
        let scratch = &ready.scratch;
        let gone = database.drop_kept(&ready.server, scratch).await;
        let line = tried?;
        gone.map_err(|error| {
            failed("the backup passed its drill, and what was made for it stays")
                .because(format!("database `{scratch}` in the server of `{name}`: {}", error.message))
                .next("the next drill or backup takes it away")
        })?;
        Ok(line)
    }

    async fn filled(
        &self,
        name: &DatabaseName,
        dump: &DumpInBackup,
        ready: &Ready,
        file: &Path,
    ) -> Result<String, Failure> {
        let told = |error| told(name, &error);
        let (database, whole) = (&self.host.ports.database, Located::Server(ready.server.clone()));
        let filling = async {
            tokio::select! {
                filled = database.restore_beside(file, &whole, &ready.scratch) => filled.map_err(told),
                failure = drill_room::filled_up(ready.data.as_deref(), files::free, drill_room::DRILL) => Err(failure),
            }
        };
        self.within(STEP, &format!("database `{name}` is filled"), filling).await?;
        let beside = Server { name: Some(ready.scratch.clone()), ..ready.server.clone() };
        let tables = database.look(&beside).await.map_err(told)?.tables;
        if let Some(were) = dump.tables.filter(|were| *were != tables) {
            return Err(told(DatabaseError::plain(format!(
                "{were} tables were dumped, and {tables} came back"
            ))));
        }
        let asked = self.asked(name, &Located::Server(beside)).await?;
        Ok(format!("database {name}: it came back with {tables} tables{asked}"))
    }

    /// One thing that is done, which ends in time, or with the drill.
    async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let end = self.end.min(Instant::now() + limit);
        in_time(end, what, work).await
    }

    /// Asks a database that is back what cutover.yml says.
    async fn asked(&self, name: &DatabaseName, of: &Located) -> Result<String, Failure> {
        let checks =
            self.drill.and_then(|drill| drill.checks.get(name)).map(Vec::as_slice).unwrap_or_default();
        let mut all = String::new();
        for query in checks {
            let wrong = |why: String| {
                failed(WHAT)
                    .because(format!("database `{name}`, `{query}`: {why}"))
                    .next("see whether the query is right, and what the live database says to it")
                    .next(
                        "`cutover backup restore --to /srv/scratch` puts the backup beside, to be looked at",
                    )
            };
            let answer = async {
                let answer = self.host.ports.database.answer(of, query).await;
                answer.map_err(|error| wrong(error.message))
            };
            let what = format!("database `{name}`, `{query}`: it is asked");
            let answer = self.within(CHECK, &what, answer).await?;
            if matches!(answer.trim(), "" | "0" | "f" | "false") {
                return Err(wrong(format!("the answer is `{}`", answer.trim())));
            }
            all.extend(["; `", query.as_str(), "`: ", answer.as_str()]);
        }
        Ok(all)
    }

    /// Whoever trusts the backup trusts that all of what is live is in it; a line of each that is nowhere.
    async fn absent(&self, found: &Found) -> Result<Vec<String>, Failure> {
        let present = gather::present(self.host, self.items).await?;
        let (there, nowhere) = not_in(&found.manifest, self.items, &present);
        if !there.is_empty() {
            return Err(failed(WHAT).because(format!("not in it, and live: {}", there.join(", "))).next(
                "`cutover backup run` makes one of what is live, and says what it leaves out and why",
            ));
        }
        // So that it reads as the other lines do.
        let line = |name: String| format!("{}: not in it, and not there now", name.replace('`', ""));
        Ok(nowhere.into_iter().map(line).collect())
    }

    /// A check of what is not in the backup would say nothing.
    fn refuse_unchecked(&self, found: &Found) -> Result<(), Failure> {
        let checked = self.drill.map(|drill| drill.checks.keys()).into_iter().flatten();
        let is_in = |name: &&DatabaseName| {
            found.manifest.databases.contains_key(*name) || found.manifest.dumps.contains_key(*name)
        };
        let absent: Vec<String> =
            checked.filter(|name| !is_in(name)).map(|name| format!("`{name}`")).collect();
        if absent.is_empty() {
            return Ok(());
        }
        Err(failed(WHAT)
            .because(format!("{} should be checked, and is not in the backup", absent.join(", ")))
            .next("`cutover backup run` makes one of what is live"))
    }
}

/// Whether it is the newest that counts: only what that is worth is on record. `all` has the newest first.
pub(super) fn is_newest(all: &[Listed], backup: &Listed) -> bool {
    all.iter().find(|backup| is_verified(backup)).is_some_and(|newest| newest.id == backup.id)
}

/// Does it until then; what is left to do is dropped.
async fn in_time<T>(
    end: Instant,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout_at(end, work).await.map_err(|_| {
        failed("the drill was broken off: it took too long").because(format!("{what}, and had no end")).next(
            "see that its server answers, and whether the checks under `drill:` end; then `cutover backup drill`",
        )
    })?
}

fn told(name: &DatabaseName, error: &DatabaseError) -> Failure {
    failed(WHAT).because(format!("database `{name}`: {}", error.message)).next(
        "`cutover backup run` makes a new one; `cutover backup verify` tells whether its bytes are good",
    )
}

/// What is live and not in the backup: first what is there now, then what is not there either.
fn not_in(
    manifest: &Manifest,
    items: &Items,
    (volumes, files): &(BTreeSet<VolumeName>, BTreeSet<DatabaseName>),
) -> (Vec<String>, Vec<String>) {
    let mut all = Vec::new();
    for item in items.volumes.iter().filter(|item| !manifest.volumes.contains_key(&item.name)) {
        all.push((format!("volume `{}`", item.name), volumes.contains(&item.name)));
    }
    for item in items.databases.iter().filter(|item| !manifest.databases.contains_key(&item.name)) {
        all.push((format!("database `{}`", item.name), files.contains(&item.name)));
    }
    for item in items.servers.iter().filter(|item| !manifest.dumps.contains_key(&item.name)) {
        all.push((format!("database `{}`", item.name), true));
    }
    let (there, nowhere): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, is_there)| *is_there);
    let names = |all: Vec<(String, bool)>| all.into_iter().map(|(name, _)| name).collect();
    (names(there), names(nowhere))
}

/// The name of a database that is there for a drill of this one.
pub(super) fn scratch_of(name: &str) -> String {
    let mut end = name.len().min(LONGEST - DRILLED.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{DRILLED}", &name[..end])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cutover_core::backup::DatabaseItem;

    use super::super::restic::VERIFIED;
    use super::*;

    #[test]
    fn only_the_newest_that_was_read_back_is_on_record() {
        let listed = |id: &str, tags: &[&str]| Listed {
            id: id.to_owned(),
            time: jiff::Timestamp::UNIX_EPOCH,
            paths: Vec::new(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            original: None,
        };
        let all = [listed("c", &[]), listed("b", &[VERIFIED]), listed("a", &[VERIFIED])];
        assert_eq!(all.each_ref().map(|backup| is_newest(&all, backup)), [false, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn given_what_has_no_end_then_the_drill_has() {
        let end = Instant::now() + CHECK;
        let asked = in_time::<()>(end, "database `main`: it is asked", std::future::pending()).await;
        let failure = asked.unwrap_err();
        assert!(failure.cause[0].contains("it is asked"), "{failure:?}");
        assert!(Instant::now() >= end && CHECK <= WHOLE && STEP <= WHOLE);
        in_time(Instant::now() + CHECK, "it ends", async { Ok(()) }).await.unwrap();
    }

    #[test]
    fn given_a_live_database_that_the_backup_does_not_have_then_it_is_named() {
        let spec = cutover_core::plan::VolumeSpec {
            runtime: cutover_core::release::RuntimeKind::Process,
            name: "data".to_owned(),
            external: false,
        };
        let file = |name: &str| DatabaseItem {
            name: name.parse().unwrap(),
            volume: "data".parse().unwrap(),
            spec: spec.clone(),
            file: format!("{name}.db"),
            services: BTreeSet::new(),
        };
        let items = Items { databases: vec![file("main"), file("late"), file("never")], ..Items::default() };
        let manifest = Manifest {
            version: 1,
            app: "shop/production".parse().unwrap(),
            release: "7f3c9e1".parse().unwrap(),
            databases: [("main".parse().unwrap(), "volumes/data/main.db".to_owned())].into(),
            volumes: BTreeMap::new(),
            dumps: BTreeMap::new(),
        };
        let present = (BTreeSet::new(), ["main", "late"].map(|name| name.parse().unwrap()).into());

        let (there, nowhere) = not_in(&manifest, &items, &present);

        assert_eq!(
            (there, nowhere),
            (vec!["database `late`".to_owned()], vec!["database `never`".to_owned()])
        );
    }

    #[test]
    fn the_name_of_a_scratch_database_is_short_enough() {
        assert_eq!(scratch_of("shop"), "shop_cutover_drilled");
        assert!(scratch_of(&"\u{e4}".repeat(80)).len() <= LONGEST);
    }
}
