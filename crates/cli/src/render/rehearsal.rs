//! What a rehearsal found, as people read it.

use std::time::Duration;

use cutover_core::names::DatabaseName;
use cutover_core::rehearsal::{Difference, Findings, TableLock, keeps_out};
use cutover_core::state::{SchemaChange, SchemaVersion};

use super::event::size;
use super::harmless_line;
use super::paint::{self, Text};
use super::time::span;

const WIDTH: usize = 10;

/// All of it, a database's.
pub(super) fn findings(database: &DatabaseName, found: &Findings) -> String {
    let mut text = Text::default();
    text.line(format!(
        "{}: rehearsed on {} ({})",
        paint::strong(database),
        paint::name(&found.snapshot),
        size(found.bytes)
    ));
    let mut all = |word: &str, lines: Vec<String>| {
        for (number, line) in lines.iter().enumerate() {
            let word = if number == 0 { word } else { "" };
            // What the database calls its things is nobody's word here.
            let line = harmless_line(line);
            text.line(format!("  {} {line}", paint::column(word, WIDTH, |word| paint::strong(word))));
        }
    };
    all("restore", vec![span(Duration::from_millis(found.restored_ms))]);
    let Some(migrated_ms) = found.migrated_ms else {
        all("migration", vec!["nothing is pending: `pending:` says so, and nothing was run".to_owned()]);
        all("version", version(&found.schema));
        return text.finish();
    };
    all("migration", vec![span(Duration::from_millis(migrated_ms))]);
    all("version", version(&found.schema));
    all("locks", locks(found.locks.as_deref()));
    all("schema", schema(&found.differences));
    text.finish()
}

fn version(schema: &SchemaChange) -> Vec<String> {
    let told =
        |versions: &[SchemaVersion]| versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (before, after) = (told(&schema.before), told(&schema.after));
    let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    if before.is_empty() && after.is_empty() {
        return Vec::new();
    }
    if before == after {
        return vec![format!("{after}, as before")];
    }
    vec![format!("{} -> {}", none(before), none(after))]
}

fn locks(locks: Option<&[TableLock]>) -> Vec<String> {
    let Some(locks) = locks else { return vec!["they could not be seen".to_owned()] };
    if locks.is_empty() {
        let none = "none was seen: they were looked at about every 20 ms, and one that was held for less may be missing";
        return vec![none.to_owned()];
    }
    let took = |ms: u64| span(Duration::from_millis(ms));
    // Of one whose mode is not told it is known only that it was waited for.
    let held = locks.iter().filter(|lock| !lock.mode.is_empty());
    let mut lines: Vec<String> = held
        .map(|lock| {
            let out = keeps_out(&lock.mode).map(|out| format!(": {out}")).unwrap_or_default();
            format!("{}: {} for about {}{out}", lock.table, lock.mode, took(lock.held_ms))
        })
        .collect();
    let waited = locks.iter().filter(|lock| lock.waited_ms > 0);
    let waited: Vec<String> = waited
        .map(|lock| format!("it waited for {} for about {}", lock.table, took(lock.waited_ms)))
        .collect();
    if waited.is_empty() {
        lines.push("it waited for none: nobody else is in a scratch database".to_owned());
    }
    lines.extend(waited);
    lines
}

fn schema(differences: &[Difference]) -> Vec<String> {
    if differences.is_empty() {
        return vec!["as it was: tables, columns, indexes and the like (rows are not compared)".to_owned()];
    }
    let line = |one: &Difference| match (one.before.as_deref(), one.after.as_deref()) {
        (None, Some(is)) => format!("+ {}: {is}", one.object),
        (Some(was), None) => format!("- {}: {was}", one.object),
        (was, is) => format!("~ {}: {} -> {}", one.object, was.unwrap_or_default(), is.unwrap_or_default()),
    };
    differences.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Findings {
        let version = |version: &str| SchemaVersion {
            tool: "alembic".to_owned(),
            version: version.to_owned(),
            broken: false,
        };
        let lock = |table: &str, mode: &str, held_ms, waited_ms| TableLock {
            table: table.to_owned(),
            mode: mode.to_owned(),
            held_ms,
            waited_ms,
        };
        let differs = |object: &str, before: Option<&str>, after: Option<&str>| Difference {
            object: object.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        Findings {
            snapshot: "main_20261126T040506007Z_7f3c9e1.dump.zst".to_owned(),
            bytes: 12 << 20,
            restored_ms: 3_200,
            migrated_ms: Some(410),
            locks: Some(vec![
                lock("entries", "AccessExclusiveLock", 310, 0),
                lock("marks", "RowExclusiveLock", 20, 0),
            ]),
            schema: SchemaChange { before: vec![version("1a")], after: vec![version("2b")] },
            differences: vec![
                differs("column entries.mark", None, Some("text not null")),
                differs("column entries.number", Some("integer"), Some("bigint")),
                differs(
                    "index entries_text",
                    Some("CREATE INDEX entries_text ON public.entries USING btree (text)"),
                    None,
                ),
            ],
        }
    }

    fn shown(found: &Findings) -> String {
        paint::plain(&findings(&"main".parse().unwrap(), found))
    }

    #[test]
    fn time_locks_version_and_schema_are_told() {
        insta::assert_snapshot!(shown(&found()), @"
        main: rehearsed on main_20261126T040506007Z_7f3c9e1.dump.zst (12 MiB)
          restore    3.2 s
          migration  410 ms
          version    1a (alembic) -> 2b (alembic)
          locks      entries: AccessExclusiveLock for about 310 ms: nobody reads or writes it meanwhile
                     marks: RowExclusiveLock for about 20 ms
                     it waited for none: nobody else is in a scratch database
          schema     + column entries.mark: text not null
                     ~ column entries.number: integer -> bigint
                     - index entries_text: CREATE INDEX entries_text ON public.entries USING btree (text)
        ");
    }

    #[test]
    fn what_the_database_calls_its_things_is_shown_as_it_is_and_does_nothing() {
        let mut found = found();
        found.differences.truncate(1);
        found.differences[0].object = "table a\u{1b}[2Jb\n  schema     as it was".to_owned();
        let shown = shown(&found);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        assert!(shown.lines().last().unwrap().starts_with("  schema     + table a"), "{shown}");
    }

    #[test]
    fn what_was_not_run_was_not_seen_or_was_waited_for_is_told_so() {
        let mut pending = Findings { migrated_ms: None, locks: None, differences: Vec::new(), ..found() };
        pending.schema.before = pending.schema.after.clone();
        let unseen =
            Findings { locks: None, differences: Vec::new(), schema: SchemaChange::default(), ..found() };
        let mut waited = unseen.clone();
        waited.locks = Some(vec![TableLock {
            table: "entries".to_owned(),
            mode: "ShareLock".to_owned(),
            held_ms: 40,
            waited_ms: 1_500,
        }]);
        let mut unnamed = unseen.clone();
        unnamed.locks = Some(vec![TableLock {
            table: "a table that the server does not name".to_owned(),
            mode: String::new(),
            held_ms: 0,
            waited_ms: 1_500,
        }]);
        let none = Findings { locks: Some(Vec::new()), ..unseen.clone() };
        let all = [pending, unseen, waited, unnamed, none].each_ref().map(shown);
        insta::assert_snapshot!(all.join("\n"), @"
        main: rehearsed on main_20261126T040506007Z_7f3c9e1.dump.zst (12 MiB)
          restore    3.2 s
          migration  nothing is pending: `pending:` says so, and nothing was run
          version    2b (alembic), as before

        main: rehearsed on main_20261126T040506007Z_7f3c9e1.dump.zst (12 MiB)
          restore    3.2 s
          migration  410 ms
          locks      they could not be seen
          schema     as it was: tables, columns, indexes and the like (rows are not compared)

        main: rehearsed on main_20261126T040506007Z_7f3c9e1.dump.zst (12 MiB)
          restore    3.2 s
          migration  410 ms
          locks      entries: ShareLock for about 40 ms: nobody writes it meanwhile
                     it waited for entries for about 1.5 s
          schema     as it was: tables, columns, indexes and the like (rows are not compared)

        main: rehearsed on main_20261126T040506007Z_7f3c9e1.dump.zst (12 MiB)
          restore    3.2 s
          migration  410 ms
          locks      it waited for a table that the server does not name for about 1.5 s
          schema     as it was: tables, columns, indexes and the like (rows are not compared)

        main: rehearsed on main_20261126T040506007Z_7f3c9e1.dump.zst (12 MiB)
          restore    3.2 s
          migration  410 ms
          locks      none was seen: they were looked at about every 20 ms, and one that was held for less may be missing
          schema     as it was: tables, columns, indexes and the like (rows are not compared)
        ");
    }
}
