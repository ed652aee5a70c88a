//! A dump put in a database's place: restored beside it first, then both are renamed at once. The server undoes a rename that is broken off, so
//! there is always one whole database of the name, and all of it can be repeated.

use std::path::Path;
use std::time::Duration;

use cutover_core::defaults;
use cutover_core::layout::is_for_a_drill;
use tokio::time::Instant;

use super::client::{Said, badly};
use super::dump::{self, Form, Source};
use super::port::{AGAIN, ANSWER, InServer as _, kept_among, kept_of};
use super::postgres::Postgres;
use super::postgres_tools as tools;
use crate::ports::{Certainty, DatabaseError, Server, ServerState};

/// Tries to rename, where somebody connects at the very moment.
const TRIES: u32 = 10;
/// What the name of a database ends with that a restore which somebody asked for has replaced.
const REPLACED: &str = "replaced";
/// An archive of `pg_dump`.
pub(super) const FORM: Form = Form { magic: &[b"PGDMP"], of: "pg_dump" };
/// Statements that hold values stay out of the log of a server that keeps its statements there.
const UNLOGGED: &str = "set log_statement to 'none'; set log_min_error_statement to 'panic'; set log_min_duration_statement to -1;";
/// Where databases are made and renamed from: nobody renames one while he has it open.
pub(super) fn elsewhere(name: &str) -> &'static str {
    if name == "postgres" { "template1" } else { "postgres" }
}

impl Postgres<'_> {
    /// See [`super::port::InServer::check`].
    pub(super) async fn checked(&self, snapshot: &Path) -> Result<Vec<String>, DatabaseError> {
        let (_, listed) = self.fitting(snapshot).await?;
        let entries = listed.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty()).count();
        Ok(vec![format!("its table of contents is readable: {entries} entries")])
    }

    /// A dump of this database, of a server that is not newer: what the server says, and the dump's table of contents.
    async fn fitting(&self, snapshot: &Path) -> Result<(ServerState, String), DatabaseError> {
        let state = self.look().await?;
        let program = tools::program(self.client.server, state.major, "pg_restore")?;
        let listed = self.contents(&[program], snapshot).await?;
        refuse_foreign(&listed, &state)?;
        Ok((state, listed))
    }

    /// See [`super::port::InServer::restore_beside`].
    pub(super) async fn put_beside(&self, snapshot: &Path, to: &str) -> Result<(), DatabaseError> {
        let (state, _) = self.fitting(snapshot).await?;
        let name = &state.database;
        if to == name || state.others.iter().any(|other| other == to) {
            return Err(DatabaseError::plain(format!("the server has a database `{to}` already")));
        }
        // A drill's name is nobody else's: it need not wait until the database is whole, and what a drill that was killed leaves has this name.
        if is_for_a_drill(to) {
            return self.made_as(&state, snapshot, to).await;
        }
        let next = self.made_of(&state, snapshot).await?;
        let rename = format!("alter database {} rename to {}", quoted(&next), quoted(to));
        let renamed = self.ask(Some(elsewhere(name)), &rename).await;
        // Where only its answer was lost there is nothing of this name any more.
        if renamed.is_err()
            && let Err(error) = self.discard(name, &next).await
        {
            tracing::warn!(%error, "a database that was restored stays beside");
        }
        renamed.map(std::mem::drop)
    }

    /// See [`super::port::InServer::restore`]. Whoever came and went since the snapshot of the present has what he wrote in what was replaced: it
    /// stays, until the next restore.
    pub(super) async fn put_back(&self, snapshot: &Path) -> Result<String, DatabaseError> {
        let (state, _) = self.fitting(snapshot).await?;
        let name = &state.database;
        let before = beside(name, REPLACED);
        self.discard(name, &before).await?;
        let next = self.made_of(&state, snapshot).await?;
        // Whoever came meanwhile has what he writes in no snapshot: it is not taken from him.
        if let Err(error) = self.closed().await {
            self.discard(name, &next).await?;
            return Err(error);
        }
        self.swap(name, &next, &before).await?;
        Ok(before)
    }

    /// See [`super::port::InServer::restore_keeping`]. The name of what is kept is the snapshot's, so that an earlier try is known.
    pub(super) async fn put_back_keeping(&self, snapshot: &Path) -> Result<String, DatabaseError> {
        let (state, _) = self.fitting(snapshot).await?;
        let name = &state.database;
        let kept = beside(name, &kept_of(snapshot));
        if !state.others.contains(&kept) {
            let next = self.made_of(&state, snapshot).await?;
            self.swap(name, &next, &kept).await?;
        }
        Ok(kept)
    }

    /// See [`super::port::InServer::drop_kept`].
    pub(super) async fn dropped(&self, kept: &str) -> Result<(), DatabaseError> {
        let state = self.look().await?;
        self.discard(&state.database, kept).await
    }

    /// See [`super::port::InServer::fill`]. What the other server's roles are goes from one to the other with their passwords, on no command line and
    /// into no log.
    pub(super) async fn filled_like(
        &self,
        snapshot: &Path,
        like: &Postgres<'_>,
    ) -> Result<Duration, DatabaseError> {
        let (state, _) = like.fitting(snapshot).await?;
        let name = &state.database;
        let program = tools::program(self.client.server, state.major, "pg_restore")?;
        let roles = format!("{UNLOGGED}\n{}", like.all_roles(state.major).await?);
        // Some are there already; whoever is missing in the end is named by what cannot be restored without.
        let words = ["psql", "-XAtq"].map(str::to_owned);
        let said = self.client.run(Some(elsewhere(name)), &words, &roles, ANSWER).await?;
        if said.exit.code != Some(0) {
            return Err(DatabaseError::plain(
                "the roles of the live server could not be made in the scratch server",
            ));
        }
        let made = like.ask(Some(elsewhere(name)), &made_like(name, name)).await?;
        // The roles have the other server's passwords from here on.
        let server = Server { password: like.client.server.password.clone(), ..self.client.server.clone() };
        let fresh = Postgres::of(&server, self.client.meter);
        fresh.discard(name, name).await?;
        fresh.ask(Some(elsewhere(name)), &format!("{UNLOGGED}\n{made}")).await?;
        let begun = Instant::now();
        fresh.fill(&program, name, snapshot).await?;
        Ok(begun.elapsed())
    }

    /// All roles of the server, as statements.
    async fn all_roles(&self, major: u32) -> Result<String, DatabaseError> {
        let program = tools::program(self.client.server, major, "pg_dumpall")?;
        let words = [&program, "--roles-only"].map(str::to_owned);
        let said = self.client.run(None, &words, "", ANSWER).await?;
        match said.exit.code {
            Some(0) if !said.cut => Ok(String::from_utf8_lossy(&said.output).into_owned()),
            Some(0) => Err(DatabaseError::plain("the live server has more roles than are taken over")),
            _ => Err(badly(&words, &said.exit, &said.errors)),
        }
    }

    /// A database made of a dump beside the one that it is of, only to see that it can be.
    pub(super) async fn made_and_dropped(
        &self,
        state: &ServerState,
        dump: &Path,
    ) -> Result<(), DatabaseError> {
        let next = self.made_of(state, dump).await?;
        self.discard(&state.database, &next).await
    }

    /// A database made of a dump, beside the one that it is of; its name.
    async fn made_of(&self, state: &ServerState, snapshot: &Path) -> Result<String, DatabaseError> {
        let next = beside(&state.database, "restored");
        self.made_as(state, snapshot, &next).await?;
        Ok(next)
    }

    /// The same, of this name.
    async fn made_as(&self, state: &ServerState, snapshot: &Path, next: &str) -> Result<(), DatabaseError> {
        let name = &state.database;
        let program = tools::program(self.client.server, state.major, "pg_restore")?;
        self.discard(name, next).await?;
        let made = self.ask(Some(elsewhere(name)), &made_like(name, next)).await?;
        self.ask(Some(elsewhere(name)), &made).await?;
        let restored = self.fill(&program, next, snapshot).await;
        if restored.is_err()
            && let Err(error) = self.discard(name, next).await
        {
            tracing::warn!(%error, "a database that was restored in part stays beside");
        }
        restored
    }

    /// The table of contents of a dump, as `pg_restore` reads it; the whole file is read, and its checksum compared.
    pub(super) async fn contents(&self, dump_words: &[String], dump: &Path) -> Result<String, DatabaseError> {
        let words = same_version(dump_words, "pg_restore", &["--list"]);
        let source = Source { dump, form: FORM, frame: None, what: "read back" };
        let listed = dump::feed(&self.client, None, &words, source, Some(defaults::DUMP_SILENCE)).await?;
        contents(&words, &listed)
    }

    async fn fill(&self, program: &str, next: &str, snapshot: &Path) -> Result<(), DatabaseError> {
        // Not in one transaction: it would hold a lock of everything that it makes, and the server has room for some thousand. What was restored
        // in part is thrown away.
        let words = [program, "--exit-on-error", "--dbname", next].map(str::to_owned);
        let source = Source { dump: snapshot, form: FORM, frame: None, what: "put back" };
        let said = dump::feed(&self.client, Some(next), &words, source, None).await?;
        if said.exit.code == Some(0) { Ok(()) } else { Err(badly(&words, &said.exit, &said.errors)) }
    }

    /// Throws away what is beside the database of this name.
    async fn discard(&self, name: &str, database: &str) -> Result<(), DatabaseError> {
        let drop = format!("drop database if exists {} with (force)", quoted(database));
        self.ask(Some(elsewhere(name)), &drop).await.map(std::mem::drop)
    }

    /// Both renames are one transaction.
    async fn swap(&self, name: &str, next: &str, before: &str) -> Result<(), DatabaseError> {
        let end = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = {} and pid <> pg_backend_pid() \
             and backend_type = 'client backend'",
            literal(name)
        );
        let rename = format!(
            "begin; alter database {name} rename to {before}; alter database {next} rename to {name}; commit",
            name = quoted(name),
            before = quoted(before),
            next = quoted(next)
        );
        let mut tries = TRIES;
        loop {
            // Whose sessions we may not end may leave by themselves.
            let ended = self.ask(Some(elsewhere(name)), &end).await;
            let renamed = match ended {
                Ok(_) => self.ask(Some(elsewhere(name)), &rename).await,
                Err(error) => Err(error),
            };
            match renamed {
                Ok(_) => return Ok(()),
                Err(_) if tries > 0 => tries -= 1,
                // Its answer may have been lost.
                Err(error) => return Err(DatabaseError { certainty: Certainty::Unknown, ..error }),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The table of contents, where that is what `pg_restore` found.
pub(super) fn contents(words: &[String], listed: &Said) -> Result<String, DatabaseError> {
    if listed.exit.code != Some(0) {
        return Err(badly(words, &listed.exit, &listed.errors));
    }
    let text = String::from_utf8_lossy(&listed.output).into_owned();
    if text.contains("Format: CUSTOM") {
        Ok(text)
    } else {
        Err(DatabaseError::plain("`pg_restore` finds no table of contents in the dump"))
    }
}

/// Another program of the same version.
pub(super) fn same_version(words: &[String], name: &str, more: &[&str]) -> Vec<String> {
    let first = words.first().map_or("", String::as_str);
    let program =
        first.rsplit_once('/').map_or_else(|| name.to_owned(), |(folder, _)| format!("{folder}/{name}"));
    std::iter::once(program).chain(more.iter().map(|word| (*word).to_owned())).collect()
}

/// Those beside a database that stay since restores.
pub(super) fn kept(state: &ServerState) -> Vec<String> {
    let mut kept = kept_among(&state.others, |what| beside(&state.database, what));
    let replaced = beside(&state.database, REPLACED);
    kept.extend(state.others.iter().find(|other| **other == replaced).cloned());
    kept
}

/// A name beside a database's; names have at most 63 bytes.
fn beside(name: &str, what: &str) -> String {
    let mut most = 63 - what.len() - 9;
    while !name.is_char_boundary(most.min(name.len())) {
        most -= 1;
    }
    format!("{}_cutover_{what}", &name[..most.min(name.len())])
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What gives the statements that make a database like another: owner, encoding, order of letters, limit, grants, settings, those by role among
/// them.
fn made_like(name: &str, next: &str) -> String {
    format!(
        "with d as (select to_jsonb(d) j, d.* from pg_database d where datname = {name})
select made || ';' from (
select format('create database %I template template0 owner %I encoding %L lc_collate %L lc_ctype %L', {next}, pg_get_userbyid(datdba),
    pg_encoding_to_char(encoding), datcollate, datctype)
    || case when j->>'datlocprovider' = 'i' then format(' locale_provider icu icu_locale %L', coalesce(j->>'datlocale', j->>'daticulocale'))
            || coalesce(format(' icu_rules %L', j->>'daticurules'), '')
        when j->>'datlocprovider' = 'b' then format(' locale_provider builtin builtin_locale %L', j->>'datlocale') else '' end as made
    from d
union all
select format('alter database %I connection limit %s', {next}, datconnlimit) from d where datconnlimit >= 0
union all
select format('revoke all on database %I from public', {next}) from d where datacl is not null
union all
select format('grant %s on database %I to %s%s', privilege_type, {next},
    case when grantee = 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end, case when is_grantable then ' with grant option' else '' end)
    from d, aclexplode(datacl) where datacl is not null
union all
select case when setrole = 0 then format('alter database %I', {next}) else format('alter role %I in database %I', pg_get_userbyid(setrole), {next}) end
    || format(' set %s to ', quote_ident(split_part(setting, '=', 1)))
    || case when split_part(setting, '=', 1) ~ '(search_path|_libraries)$' then substr(setting, strpos(setting, '=') + 1)
        else quote_literal(substr(setting, strpos(setting, '=') + 1)) end
    from pg_db_role_setting s join d on d.oid = s.setdatabase, unnest(setconfig) setting) all_of_it",
        name = literal(name),
        next = literal(next)
    )
}

/// A dump of another database, or of a newer server, is not put in this one's place.
fn refuse_foreign(listed: &str, state: &ServerState) -> Result<(), DatabaseError> {
    let said = |label: &str| {
        let mut lines = listed.lines().map(|line| line.trim_start_matches(';').trim());
        lines.find_map(|line| line.strip_prefix(label)).map(|value| value.trim().to_owned())
    };
    let of = said("dbname:").unwrap_or_default();
    if of != state.database {
        let what = format!("the dump is of database `{of}`, and this one is `{}`", state.database);
        return Err(DatabaseError::plain(what));
    }
    let from = said("Dumped from database version:").unwrap_or_default();
    let major = from.split('.').next().and_then(|major| major.trim().parse::<u32>().ok());
    match major {
        Some(major) if major <= state.major => Ok(()),
        Some(major) => Err(DatabaseError::plain(format!(
            "the dump is of a server of version {major}, and this one is of {}",
            state.major
        ))),
        None => Err(DatabaseError::plain("the dump does not say of which version its server was")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = ";\n; Archive created at 2026-11-26 07:00:00 UTC\n;     dbname: shop\n;     TOC Entries: 12\n\
        ;     Format: CUSTOM\n;     Dumped from database version: 15.14 (Debian 15.14-0+deb12u1)\n";

    #[test]
    fn a_dump_of_another_database_or_a_newer_server_is_refused() {
        let state = |database: &str, major| ServerState {
            database: database.to_owned(),
            major,
            ..ServerState::default()
        };
        let told = |state: &ServerState| refuse_foreign(LISTED, state).map_err(|error| error.message);
        assert_eq!(told(&state("shop", 15)), Ok(()));
        assert_eq!(told(&state("shop", 17)), Ok(()));
        assert!(told(&state("other", 15)).unwrap_err().contains("of database `shop`"));
        assert!(told(&state("shop", 14)).unwrap_err().contains("of version 15"));
    }

    #[test]
    fn what_was_kept_beside_is_known_by_its_name_and_nothing_else_is() {
        let snapshot = Path::new("/var/backups/cutover/main_20261126T040506007Z_7f3c9e1.dump.zst");
        for name in ["shop".to_owned(), "ä".repeat(40)] {
            let ours = beside(&name, &kept_of(snapshot));
            let asked = beside(&name, REPLACED);
            let others = vec![ours.clone(), asked.clone(), "shop2_cutover_replaced_1a2b3c4".to_owned()];
            let state = ServerState { database: name, others, ..ServerState::default() };
            assert_eq!(kept(&state), [ours, asked]);
        }
    }

    #[test]
    fn names_beside_are_short_enough_and_quoted() {
        assert_eq!(beside("shop", "restored"), "shop_cutover_restored");
        assert!(beside(&"ä".repeat(40), "replaced").len() <= 63);
        assert_eq!(quoted("we\"ird"), "\"we\"\"ird\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
