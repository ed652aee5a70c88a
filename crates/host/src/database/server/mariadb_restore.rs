//! A dump put in a database's place. A database cannot be given another name there; tables can be moved. They are filled in a database beside it first; then
//! all tables are exchanged in one statement, which the server does wholly or not at all. Triggers, views, routines and events cannot move: they are taken
//! away before, and made from the dump again after. Beside they could not be tried: who defined them need not have any rights there. A kill in between is
//! repaired by doing it all again: nothing that is needed for that is in the database.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::mariadb::Maria;
use super::mariadb_catalogue::{Found, unescaped};
use super::mariadb_dump::{self, DEFINITIONS, EVENTS, ROWS};
use super::mariadb_users as users;
use super::port::{AGAIN, InServer as _, kept_among, kept_of};
use crate::ports::{Certainty, DatabaseError, Server};

/// Tries to exchange the tables, where somebody connects at the very moment.
const TRIES: u32 = 10;
/// Names have at most so many characters.
const LONGEST: usize = 64;

impl Maria<'_> {
    /// See [`super::port::InServer::restore`].
    pub(super) async fn put_back(&self, snapshot: &Path) -> Result<(), DatabaseError> {
        let found = self.fitting_dump(snapshot).await?;
        let before = beside(&found.database, "replaced");
        // What is left there of an earlier one would be taken for what this one replaced.
        self.dropped(&before).await?;
        self.replace(&found, snapshot, &before, Whose::Asked).await?;
        self.discard(&[&before]).await;
        Ok(())
    }

    /// See [`super::port::InServer::restore_keeping`]. The name of what is kept is the snapshot's, so that an earlier try is known. Of what was replaced
    /// the tables are kept.
    pub(super) async fn put_back_keeping(&self, snapshot: &Path) -> Result<String, DatabaseError> {
        let found = self.fitting_dump(snapshot).await?;
        let kept = beside(&found.database, &kept_of(snapshot));
        self.replace(&found, snapshot, &kept, Whose::OfTheWayBack).await?;
        Ok(kept)
    }

    /// See [`super::port::InServer::restore_beside`]. Tables and their rows: who defined the rest need not have any rights there, and events would begin to run.
    pub(super) async fn put_beside(&self, snapshot: &Path, to: &str) -> Result<(), DatabaseError> {
        let found = self.fitting_dump(snapshot).await?;
        // Whatever has the name already makes this fail.
        self.ask_server(&made(&found, to)).await?;
        let filled = self.fill(to, snapshot, ROWS).await;
        if filled.is_err() {
            self.discard(&[to]).await;
        }
        filled
    }

    /// See [`super::port::InServer::fill`].
    pub(super) async fn filled_like(
        &self,
        snapshot: &Path,
        like: &Maria<'_>,
    ) -> Result<Duration, DatabaseError> {
        let found = like.fitting_dump(snapshot).await?;
        let name = &found.database;
        let grantees = users::with_loopback(like.grantees().await?);
        let own = self.ask_server("select current_user();").await?;
        self.make_fit_for_a_rehearsal(&found).await?;
        self.tell_of_users(&users::made(&grantees, &unescaped(&own))).await?;
        // Its users have the other server's passwords from here on.
        let server = Server { password: like.client.server.password.clone(), ..self.client.server.clone() };
        let fresh = Maria::of(&server, self.client.meter);
        fresh.ask_server(&format!("{}{}", dropped(name), made(&found, name))).await?;
        let begun = Instant::now();
        for frame in [ROWS, DEFINITIONS, EVENTS] {
            fresh.fill(name, snapshot, frame).await?;
        }
        let took = begun.elapsed();
        fresh.tell_of_users(&users::granted_on_objects(&grantees, name)).await?;
        Ok(took)
    }

    /// A row that the live server takes a scratch one takes, and its users as it keeps them. Events do not begin to run there: what is found afterwards
    /// is to be the migration's.
    async fn make_fit_for_a_rehearsal(&self, like: &Found) -> Result<(), DatabaseError> {
        let mut settings = format!("set global max_allowed_packet = {};\n", like.packet);
        if self.is_mariadb() {
            // A plugin that wants to see new passwords takes none as it is kept.
            settings.push_str("set global strict_password_validation = off;\n");
        }
        // Where it was disabled when the server was started there is nothing to set.
        if self.ask_server("select @@global.event_scheduler;").await? == "ON" {
            settings.push_str("set global event_scheduler = off;\n");
        }
        self.ask_server(&settings).await?;
        if let Err(error) = self.see_locks().await {
            tracing::warn!(%error, "the scratch server does not tell of locks");
        }
        Ok(())
    }

    /// See [`super::port::InServer::drop_kept`].
    pub(super) async fn dropped(&self, kept: &str) -> Result<(), DatabaseError> {
        // A statement there keeps it from being dropped for as long as it goes on.
        self.end_all(&[kept]).await?;
        self.ask_server(&dropped(kept)).await.map(drop)
    }

    /// A dump of this database, of a server that is not newer, read whole.
    async fn fitting_dump(&self, snapshot: &Path) -> Result<Found, DatabaseError> {
        let found = self.found().await?;
        mariadb_dump::proven(snapshot, &found, self.client.meter).await?;
        Ok(found)
    }

    /// Puts a dump in the database's place, whose tables go to `before`. Where those are there already on the way back, an earlier try did that.
    async fn replace(
        &self,
        found: &Found,
        snapshot: &Path,
        before: &str,
        whose: Whose,
    ) -> Result<(), DatabaseError> {
        let next = beside(&found.database, "restored");
        // Somebody may still fill it: an earlier try, whose run was killed.
        self.end_all(&[&next]).await?;
        let is_again = whose == Whose::OfTheWayBack
            && found.others.iter().any(|other| other == before)
            && !self.holds(before).await?.is_empty();
        if !is_again {
            self.can_be_exchanged(found).await?;
            let made =
                format!("{}{}{}{}", dropped(&next), made(found, &next), dropped(before), made(found, before));
            self.ask_server(&made).await?;
            let filled = async {
                self.fill(&next, snapshot, ROWS).await?;
                // Whoever came meanwhile has what he writes in no snapshot.
                if whose == Whose::Asked { self.closed().await } else { Ok(()) }
            };
            if let Err(error) = filled.await {
                self.discard(&[&next, before]).await;
                return Err(error);
            }
        }
        self.exchanged(found, snapshot, (&next, before), is_again).await.map_err(halfway)?;
        self.discard(&[&next]).await;
        Ok(())
    }

    /// From here on the database is neither as it was nor as it will be, until the end.
    async fn exchanged(
        &self,
        found: &Found,
        snapshot: &Path,
        (next, before): (&str, &str),
        is_again: bool,
    ) -> Result<(), DatabaseError> {
        let name = &found.database;
        if is_again {
            self.end_all(&[name]).await?;
            self.ask_server(&immovable_dropped(name, &self.holds(name).await?)).await?;
        } else {
            self.swap(name, next, before).await?;
        }
        self.fill(name, snapshot, DEFINITIONS).await?;
        self.fill(name, snapshot, EVENTS).await
    }

    /// Whoever takes a snapshot must be able to put it back: he may make a database beside.
    pub(super) async fn can_be_put_back(&self, found: &Found) -> Result<(), DatabaseError> {
        let (name, next) = (&found.database, beside(&found.database, "restored"));
        let tried =
            self.ask_server(&format!("{}{}{}", dropped(&next), made(found, &next), dropped(&next))).await;
        tried.map(drop).map_err(|error| {
            let pattern = beside(&name.replace('_', "\\_"), "%").replace("_cutover_", "\\_cutover\\_");
            DatabaseError::plain(format!(
                "a snapshot could not be put back, for that is done in a database beside `{name}`: {}; as an administrator: ``GRANT ALL ON `{pattern}`.* TO`` the user",
                error.message
            ))
        })
    }

    /// Whether what is put back could take the database's place: nothing outside would be led elsewhere by that, and what cannot move could be made
    /// again as whoever defined it. One of each kind and definer is made beside for a moment.
    pub(super) async fn can_be_exchanged(&self, found: &Found) -> Result<(), DatabaseError> {
        let name = &found.database;
        if !found.children.is_empty() {
            return Err(DatabaseError::plain(format!(
                "tables of other databases refer to those of `{name}`, and would refer to the replaced ones afterwards: {}; drop these foreign keys before, and add them again after",
                found.children.join(", ")
            )));
        }
        if found.definers.is_empty() {
            return Ok(());
        }
        let tried = beside(name, "tried");
        let all: String =
            found.definers.iter().enumerate().map(|(number, of)| trial(&tried, number, of)).collect();
        let table = format!("create table {} (x int);\n", within(&tried, "tried"));
        let done = self.ask_server(&format!("{}{}{table}{all}", dropped(&tried), made(found, &tried))).await;
        self.discard(&[&tried]).await;
        done.map(drop).map_err(|error| {
            DatabaseError::plain(format!(
                "views, triggers, routines and events of `{name}` could not be made again as those who defined them: {}",
                error.message
            ))
        })
    }

    /// Throws databases beside away.
    async fn discard(&self, databases: &[&str]) {
        let all: String = databases.iter().map(|database| dropped(database)).collect();
        if let Err(error) = self.ask_server(&all).await {
            tracing::warn!(%error, "what was beside the database stays there");
        }
    }

    async fn end_all(&self, databases: &[&str]) -> Result<(), DatabaseError> {
        let databases: Vec<String> = databases.iter().map(|database| literal(database)).collect();
        let asked = format!(
            "select id from information_schema.processlist where db in ({}) and id <> connection_id();",
            databases.join(", ")
        );
        for session in self.ask_server(&asked).await?.lines() {
            // It may have ended by itself.
            if let Err(error) = self.ask_server(&format!("kill {session};")).await {
                tracing::warn!(%error, "a session was not ended");
            }
        }
        Ok(())
    }

    async fn swap(&self, name: &str, next: &str, before: &str) -> Result<(), DatabaseError> {
        let mut tries = TRIES;
        loop {
            // Whose sessions we may not end may leave by themselves.
            let swapped = async {
                self.end_all(&[name]).await?;
                let statements = self.exchange(name, next, before).await?;
                self.ask_server(&statements).await
            };
            match swapped.await {
                Ok(_) => return Ok(()),
                Err(_) if tries > 0 => tries -= 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The statements that take away what cannot move, and exchange the tables.
    async fn exchange(&self, name: &str, next: &str, before: &str) -> Result<String, DatabaseError> {
        let (now, coming) = (self.holds(name).await?, self.holds(next).await?);
        let tables = |of: &[(String, String)], from: &str, to: &str| -> Vec<String> {
            let tables = of.iter().filter(|(kind, _)| kind == "table");
            tables.map(|(_, table)| format!("{} to {}", within(from, table), within(to, table))).collect()
        };
        let moves = [tables(&now, name, before), tables(&coming, next, name)].concat();
        let rename =
            if moves.is_empty() { String::new() } else { format!("rename table {};\n", moves.join(", ")) };
        Ok(format!("set session lock_wait_timeout = 5;\n{}{rename}", immovable_dropped(name, &now)))
    }

    /// What a database holds: a kind and a name each, in the order in which it can be taken away.
    async fn holds(&self, database: &str) -> Result<Vec<(String, String)>, DatabaseError> {
        let database = literal(database);
        let asked = format!(
            "select 'event', event_name from information_schema.events where event_schema = {database};
select 'trigger', trigger_name from information_schema.triggers where trigger_schema = {database};
select 'view', table_name from information_schema.views where table_schema = {database};
select lower(routine_type), routine_name from information_schema.routines where routine_schema = {database};
select 'table', table_name from information_schema.tables where table_schema = {database} and table_type <> 'VIEW';"
        );
        let told = self.ask_server(&asked).await?;
        let rows = told.lines().filter_map(|line| line.split_once('\t'));
        Ok(rows.map(|(kind, name)| (kind.to_owned(), unescaped(name))).collect())
    }
}

/// Who wants a dump in the database's place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// A person, of a database as it is.
    Asked,
    /// A run that goes back, perhaps once more.
    OfTheWayBack,
}

/// What fails half-way may have happened in part: whoever goes back must put all of it right.
fn halfway(error: DatabaseError) -> DatabaseError {
    DatabaseError { certainty: Certainty::Unknown, ..error }
}

fn dropped(database: &str) -> String {
    format!("drop database if exists {};\n", quoted(database))
}

/// The statements that take away what cannot move.
fn immovable_dropped(database: &str, holds: &[(String, String)]) -> String {
    let immovable = holds.iter().filter(|(kind, _)| kind != "table");
    immovable.map(|(kind, object)| format!("drop {kind} if exists {};\n", within(database, object))).collect()
}

/// The statement that makes one of a kind as whoever defined some of it.
fn trial(database: &str, number: usize, (kind, definer): &(String, String)) -> String {
    let object = within(database, &format!("{kind}{number}"));
    let table = within(database, "tried");
    let definer = match definer.rsplit_once('@') {
        Some((user, host)) if !host.is_empty() => format!("{}@{}", quoted(user), quoted(host)),
        // A role.
        _ => quoted(definer.trim_end_matches('@')),
    };
    let what = match kind.as_str() {
        "view" => format!("as select x from {table}"),
        "trigger" => format!("before insert on {table} for each row set @x = 1"),
        "function" => "() returns int deterministic return 1".to_owned(),
        "procedure" => "() select 1".to_owned(),
        "event" => "on schedule every 1 year disable do select 1".to_owned(),
        // Whatever else there is, is not tried.
        _ => return String::new(),
    };
    format!("create definer = {definer} {kind} {object} {what};\n")
}

/// The statement that makes an empty one, with the usual letters of the database.
fn made(found: &Found, next: &str) -> String {
    let (letters, order) = &found.letters;
    format!("create database {} character set {letters} collate {order};\n", quoted(next))
}

/// Those beside a database that stay since restores which nobody asked for.
pub(super) fn kept(found: &Found) -> Vec<String> {
    kept_among(&found.others, |what| beside(&found.database, what))
}

/// A name beside a database's.
fn beside(name: &str, what: &str) -> String {
    let most = LONGEST - what.chars().count() - "_cutover_".len();
    format!("{}_cutover_{what}", name.chars().take(most).collect::<String>())
}

pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn within(database: &str, name: &str) -> String {
    format!("{}.{}", quoted(database), quoted(name))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_kind_is_tried_as_whoever_defined_it() {
        let of = |kind: &str, who: &str| trial("a", 1, &(kind.to_owned(), who.to_owned()));
        assert_eq!(
            of("view", "o@x@%"),
            "create definer = `o@x`@`%` view `a`.`view1` as select x from `a`.`tried`;\n"
        );
        assert!(
            of("function", "auditor").starts_with("create definer = `auditor` function `a`.`function1` ()")
        );
    }

    #[test]
    fn names_beside_are_short_enough_and_quoted() {
        assert_eq!(beside("shop", "restored"), "shop_cutover_restored");
        assert_eq!(beside(&"ä".repeat(80), "replaced").chars().count(), 64);
        assert_eq!(within("we`ird", "a"), "`we``ird`.`a`");
        assert_eq!(literal("it's \\"), "'it''s \\\\'");
    }
}
