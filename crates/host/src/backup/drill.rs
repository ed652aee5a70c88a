//! A trial of a backup: all of it comes back beside what is live, databases of servers into scratch databases of their servers; they are asked what
//! cutover.yml says, and all of it is taken away again. What a drill that was killed has left goes with the next one, or with the next backup.

use std::fs;
use std::path::Path;

use cutover_core::backup::{Drill, DrillRecord, DumpInBackup, Items, ServerItem};
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, DatabaseName};
use cutover_core::plan::Reached;

use super::dumps::{self, Fetched, reach};
use super::gather::{failed, refuse_without_room, trouble};
use super::manifest::{self, DATABASES, Found};
use super::restic::{Listed, Restic};
use super::restore;
use super::work::doing;
use crate::files;
use crate::host::Host;
use crate::ports::{DatabaseError, Located, Server};

/// What failed.
const WHAT: &str = "the backup did not pass its drill";
/// What a database's name gets that is there for a drill.
const DRILLED: &str = "_cutover_drilled";
/// Bytes that the name of a database has at most, in every engine.
const LONGEST: usize = 63;

/// One drill.
pub(super) struct Trial<'a> {
    pub(super) host: &'a Host,
    pub(super) app: &'a AppId,
    pub(super) restic: &'a Restic,
    pub(super) room: &'a Path,
    /// What is live has.
    pub(super) items: &'a Items,
    pub(super) drill: Option<&'a Drill>,
}

impl Trial<'_> {
    /// Puts the backup back for a moment; what was found good, a line each.
    pub(super) async fn of(&self, backup: &Listed) -> Result<Vec<String>, Failure> {
        let because = |error: super::restic::ResticError| error.failure(WHAT, self.restic.target());
        let found = manifest::read(self.restic, backup).await.map_err(because)?;
        let scratch = self.room.join("scratch");
        restore::refuse_without_room(self.restic, backup, &found, &scratch).await?;
        let mut lines: Vec<String> = restore::volumes(self.restic, backup, &found, &scratch).await?;
        lines = lines
            .iter()
            .filter_map(|line| Some(format!("{}: it came back", line.split_once(": ")?.0)))
            .collect();
        restore::files_of_databases(&found, &scratch)?;
        for name in found.manifest.databases.keys() {
            let file = Located::File(scratch.join(DATABASES).join(format!("{name}.sqlite")));
            let asked = self.asked(name, &file).await?;
            lines.push(format!("database {name}: it came back, integrity_check: ok{asked}"));
        }
        lines.extend(self.servers(&found).await?);
        self.refuse_unchecked(&found)?;
        lines.sort();
        Ok(lines)
    }

    async fn servers(&self, found: &Found) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        for (name, dump) in &found.manifest.dumps {
            let Some(item) = self.items.servers.iter().find(|item| item.name == *name) else {
                return Err(failed(WHAT)
                    .because(format!(
                        "what is live has no database `{name}`, so that there is no server to try it in"
                    ))
                    .next(
                        "`cutover backup verify` reads it; `cutover backup run` makes one of what is live",
                    ));
            };
            doing(format!("database {name} comes back beside the live one"));
            lines.push(self.server(item, dump).await?);
        }
        Ok(lines)
    }

    async fn server(&self, item: &ServerItem, dump: &DumpInBackup) -> Result<String, Failure> {
        let name = &item.name;
        let told = |error: DatabaseError| {
            failed(WHAT)
                .because(format!("database `{name}`: {}", error.message))
                .next("`cutover backup run` makes a new one; `cutover backup verify` tells whether its bytes are good")
        };
        let server = reach(self.host, self.app, item).await?;
        let database = &self.host.ports.database;
        let live = database.look(&server).await.map_err(told)?;
        // What a server elsewhere has room for is not seen from here.
        if let Reached::Backing { .. } = item.place.reached {
            refuse_without_room(self.room, live.bytes)?;
        }
        let folder = self.room.join("drilled");
        files::ensure_folder(&folder, 0o700).map_err(|error| trouble(&error))?;
        let file = folder.join(name.as_str());
        let packed = Fetched::Packed(dump.parts.clone());
        let fetched = dumps::fetch(self.restic, self.app, dump, packed, &file).await;
        fetched.map_err(|error| error.failure(WHAT, self.restic.target()))?;
        let scratch = scratch_of(&live.database);
        database.drop_kept(&server, &scratch).await.map_err(told)?;
        let tried = async {
            let whole = Located::Server(server.clone());
            database.restore_beside(&file, &whole, &scratch).await.map_err(told)?;
            let beside = Server { name: Some(scratch.clone()), ..server.clone() };
            let tables = database.look(&beside).await.map_err(told)?.tables;
            if let Some(were) = dump.tables.filter(|were| *were != tables) {
                return Err(told(DatabaseError::plain(format!(
                    "{were} tables were dumped, and {tables} came back"
                ))));
            }
            let asked = self.asked(name, &Located::Server(beside)).await?;
            Ok(format!("database {name}: it came back with {tables} tables{asked}"))
        };
        let tried = tried.await;
        files::discard(&file);
        let gone = database.drop_kept(&server, &scratch).await;
        let line = tried?;
        gone.map_err(|error| {
            failed("the backup passed its drill, and what was made for it stays")
                .because(format!("database `{scratch}` in the server of `{name}`: {}", error.message))
                .next("the next drill or backup takes it away")
        })?;
        Ok(line)
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
            let answer = self.host.ports.database.answer(of, query).await;
            let answer = answer.map_err(|error| wrong(error.message))?;
            if matches!(answer.trim(), "" | "0" | "f" | "false") {
                return Err(wrong(format!("the answer is `{}`", answer.trim())));
            }
            all.extend(["; `", query.as_str(), "`: ", answer.as_str()]);
        }
        Ok(all)
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

/// The name of a database that is there for a drill of this one.
pub(super) fn scratch_of(name: &str) -> String {
    let mut end = name.len().min(LONGEST - DRILLED.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{DRILLED}", &name[..end])
}

/// The newest that is on record. One that cannot be read is none: the next is due.
pub(crate) fn newest(layout: &Layout, app: &AppId) -> Option<DrillRecord> {
    serde_json::from_slice(&fs::read(layout.drill(app)).ok()?).ok()
}

/// Puts one on record.
pub(super) fn put(layout: &Layout, app: &AppId, record: &DrillRecord) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(record).unwrap_or_default();
    files::ensure_folder(&layout.app(app), 0o700)
        .and_then(|()| files::replace(&layout.drill(app), &text, 0o600))
        .map_err(|error| trouble(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_scratch_database_is_short_enough() {
        assert_eq!(scratch_of("shop"), "shop_cutover_drilled");
        assert!(scratch_of(&"\u{e4}".repeat(80)).len() <= LONGEST);
    }
}
