//! What is in a SQLite database, whatever its file looks like: a hash a table, the schema among them (S16). Two files with the same rows
//! have the same content, with or without a log beside them, vacuumed or not.

use std::collections::BTreeMap;

use cutover_core::hash::ContentHash;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Rows};
use sha2::{Digest, Sha256};

use crate::ports::Content;

/// What stands for the version numbers that applications keep in the file's head.
const HEAD: &str = "(head)";
const SCHEMA: &str = "sqlite_schema";
/// Statistics for the query planner: what the database knows of itself is not its content.
const STATISTICS: &str = "sqlite_stat";

/// All content, of one moment. A database without anything has none, as an absent file.
pub(super) fn of(connection: &Connection) -> rusqlite::Result<Content> {
    let moment = connection.unchecked_transaction()?;
    let mut hashes = BTreeMap::new();
    let head: Vec<i64> = ["user_version", "application_id"]
        .iter()
        .map(|name| moment.pragma_query_value(None, name, |row| row.get(0)))
        .collect::<Result<_, _>>()?;
    if head.iter().any(|number| *number != 0) {
        hashes.insert(HEAD.to_owned(), ContentHash::of_value(&head));
    }
    // Without the root page: VACUUM moves tables, and changes nothing.
    let mut schema = moment.prepare(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\' \
         ORDER BY type, name, tbl_name",
    )?;
    let (count, hash) = hash_rows(schema.query([])?, 4)?;
    if count > 0 {
        hashes.insert(SCHEMA.to_owned(), hash);
    }
    for table in tables(&moment, "main")? {
        let hash = hash_table(&moment, &table)?;
        hashes.insert(table.name, hash);
    }
    Ok(Content(hashes))
}

/// Rows that are not as they are in the database that is attached as `earlier`: inserted, changed or deleted since, in columns that came before. All
/// of a table that only the later one has count, or that has lost a column; of one that is gone none do, for nobody has written them since. Rows of
/// virtual tables are left out: behind one of them lie several.
pub(super) fn differing(connection: &Connection, earlier: &str) -> rusqlite::Result<u64> {
    let moment = connection.unchecked_transaction()?;
    let of_earlier = tables(&moment, earlier)?;
    let mut rows = 0;
    for table in tables(&moment, "main")?.iter().filter(|table| table.is_plain()) {
        let name = quoted(&table.name);
        let counted = |query: &str| moment.query_row(query, [], |row| row.get::<_, u64>(0));
        let now = columns(&moment, &table.name, "main")?;
        let before = columns(&moment, &table.name, earlier)?;
        let has = |columns: &[Column], name: &str| columns.iter().any(|column| column.name == name);
        let is_same = of_earlier.iter().any(|other| other == table)
            && keys(&now).eq(keys(&before))
            && before.iter().all(|column| has(&now, &column.name));
        if !is_same {
            rows += counted(&format!("SELECT count(*) FROM main.{name}"))?;
            continue;
        }
        let key: Vec<_> = keys(&now).map(quoted).collect();
        if key.is_empty() {
            // Its rows have no name that VACUUM leaves alone: what is changed is one row less and one more.
            let columns = before.iter().map(|column| format!("{} COLLATE BINARY", quoted(&column.name)));
            let columns = columns.collect::<Vec<_>>().join(", ");
            let only_in = |one: &str, other: &str| {
                format!(
                    "SELECT count(*) FROM (SELECT {columns} FROM {one}.{name} EXCEPT SELECT {columns} FROM {other}.{name})"
                )
            };
            rows += counted(&only_in("main", earlier))?.max(counted(&only_in(earlier, "main"))?);
            continue;
        }
        let is_key: Vec<_> = key.iter().map(|key| format!("now.{key} IS was.{key}")).collect();
        // By the key first, in its own collation, for which there is an index.
        let is_row = is_key.iter().cloned().chain(before.iter().map(|column| {
            let name = quoted(&column.name);
            format!("now.{name} IS was.{name} COLLATE BINARY")
        }));
        let (is_row, is_key) = (is_row.collect::<Vec<_>>().join(" AND "), is_key.join(" AND "));
        rows += counted(&format!(
            "SELECT count(*) FROM main.{name} AS now WHERE NOT EXISTS (SELECT 1 FROM {earlier}.{name} AS was WHERE {is_row})"
        ))?;
        rows += counted(&format!(
            "SELECT count(*) FROM {earlier}.{name} AS was WHERE NOT EXISTS (SELECT 1 FROM main.{name} AS now WHERE {is_key})"
        ))?;
    }
    Ok(rows)
}

/// The columns of the primary key, by name.
fn keys(columns: &[Column]) -> impl Iterator<Item = &str> {
    columns.iter().filter(|column| column.key > 0).map(|column| column.name.as_str())
}

#[derive(PartialEq, Eq)]
struct Table {
    name: String,
    without_rowid: bool,
    /// It lies behind a virtual one.
    shadow: bool,
}

impl Table {
    /// Whether its rows are an application's own.
    fn is_plain(&self) -> bool {
        !self.shadow && !self.name.starts_with("sqlite_")
    }
}

/// Tables that hold rows themselves; those behind a virtual table are among them, under their own names.
fn tables(connection: &Connection, schema: &str) -> rusqlite::Result<Vec<Table>> {
    let mut statement = connection.prepare(
        "SELECT name, wr, type = 'shadow' FROM pragma_table_list WHERE schema = ?1 AND type IN ('table', 'shadow') ORDER BY name",
    )?;
    let rows = statement.query_map([schema], |row| {
        Ok(Table { name: row.get(0)?, without_rowid: row.get(1)?, shadow: row.get(2)? })
    })?;
    rows.filter(|row| {
        row.as_ref().map_or(true, |table| table.name != SCHEMA && !table.name.starts_with(STATISTICS))
    })
    .collect()
}

fn hash_table(connection: &Connection, table: &Table) -> rusqlite::Result<ContentHash> {
    let columns = columns(connection, &table.name, "main")?;
    let names: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
    let query = format!(
        "SELECT {} FROM {} ORDER BY {}",
        names.join(", "),
        quoted(&table.name),
        order(table, &columns)
    );
    let mut statement = connection.prepare(&query)?;
    Ok(hash_rows(statement.query([])?, names.len())?.1)
}

struct Column {
    name: String,
    /// Its place in the primary key, from 1; 0: not in it.
    key: u32,
}

/// Columns that are stored; what is generated from others, and what a virtual table hides, is not content.
fn columns(connection: &Connection, table: &str, schema: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection
        .prepare("SELECT name, pk FROM pragma_table_xinfo(?1, ?2) WHERE hidden = 0 ORDER BY cid")?;
    let rows =
        statement.query_map([table, schema], |row| Ok(Column { name: row.get(0)?, key: row.get(1)? }))?;
    rows.collect()
}

/// An order that follows from the rows alone: by row number where there is one, else by key, byte by byte whatever the collation.
fn order(table: &Table, columns: &[Column]) -> String {
    let taken = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name));
    if let (false, Some(rowid)) = (table.without_rowid, rowid) {
        return rowid.to_owned();
    }
    let mut by: Vec<_> = columns.iter().filter(|column| !table.without_rowid || column.key > 0).collect();
    by.sort_by_key(|column| column.key);
    by.iter().map(|column| format!("{} COLLATE BINARY", quoted(&column.name))).collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Each value with its kind and length, so that `1` is not `'1'` and no two rows give the same bytes.
fn hash_rows(mut rows: Rows<'_>, columns: usize) -> rusqlite::Result<(u64, ContentHash)> {
    let mut hasher = Sha256::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        for index in 0..columns {
            match row.get_ref(index)? {
                ValueRef::Null => hasher.update(b"N"),
                ValueRef::Integer(number) => {
                    hasher.update(b"I");
                    hasher.update(number.to_be_bytes());
                }
                ValueRef::Real(number) => {
                    hasher.update(b"R");
                    hasher.update(number.to_bits().to_be_bytes());
                }
                ValueRef::Text(bytes) => sized(&mut hasher, *b"T", bytes),
                ValueRef::Blob(bytes) => sized(&mut hasher, *b"B", bytes),
            }
        }
    }
    Ok((count, ContentHash::of(&hasher.finalize())))
}

fn sized(hasher: &mut Sha256, kind: [u8; 1], bytes: &[u8]) {
    hasher.update(kind);
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(statements: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(statements).unwrap();
        connection
    }

    fn content(statements: &str) -> Content {
        of(&database(statements)).unwrap()
    }

    const SHOP: &str =
        "CREATE TABLE entries (id INTEGER PRIMARY KEY, text); INSERT INTO entries VALUES (1, 'a'), (2, 'b');";

    fn after(statements: &str) -> Vec<String> {
        let (before, after) = (content(SHOP).0, content(&format!("{SHOP}{statements}")).0);
        after
            .into_iter()
            .filter(|(name, hash)| before.get(name) != Some(hash))
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn an_empty_database_has_no_content() {
        assert_eq!(content(""), Content::default());
    }

    #[test]
    fn a_row_a_table_and_a_version_are_seen_where_they_changed() {
        assert_eq!(after("UPDATE entries SET text = 'c' WHERE id = 2"), ["entries"]);
        assert_eq!(after("DELETE FROM entries WHERE id = 2"), ["entries"]);
        assert_eq!(after("CREATE TABLE more (x)"), ["more", "sqlite_schema"]);
        assert_eq!(after("CREATE INDEX i ON entries (text)"), ["sqlite_schema"]);
        assert_eq!(after("PRAGMA user_version = 3"), ["(head)"]);
        assert_eq!(after("ALTER TABLE entries ADD COLUMN y DEFAULT 1"), ["entries", "sqlite_schema"]);
    }

    fn rows_since(now: &str, earlier: &str) -> u64 {
        let connection = database("ATTACH ':memory:' AS earlier");
        connection.execute_batch(&format!("{now};{}", earlier.replace(" main.", " earlier."))).unwrap();
        differing(&connection, "earlier").unwrap()
    }

    #[test]
    fn rows_since_are_counted_by_their_key_in_what_both_have() {
        let table = |columns: &str, rows: &str| {
            format!("CREATE TABLE main.entries ({columns}); INSERT INTO main.entries VALUES {rows}")
        };
        for columns in
            ["id INTEGER PRIMARY KEY, text", "id TEXT PRIMARY KEY COLLATE NOCASE, text", "id, text"]
        {
            let earlier = table(columns, "('1', 'a'), ('2', 'b'), ('3', NULL)");
            let now = |rows: &str| rows_since(&table(columns, rows), &earlier);
            assert_eq!(now("('1', 'a'), ('2', 'b'), ('3', NULL)"), 0, "{columns}");
            assert_eq!(now("('1', 'a'), ('2', 'B'), ('3', NULL)"), 1, "{columns}");
            assert_eq!(now("('1', 'a'), ('2', 'b'), ('3', 'c'), ('4', NULL)"), 2, "{columns}");
            assert_eq!(now("('1', 'a'), ('2', 'b')"), 1, "{columns}");
        }
        let earlier = table("id INTEGER PRIMARY KEY, text", "(1, 'a'), (2, 'b')");
        let wider = table("id INTEGER PRIMARY KEY, text, mark", "(1, 'a', 'x'), (2, 'c', 'y')");
        assert_eq!(rows_since(&wider, &earlier), 1, "a column that came is in no snapshot");
        let renamed = table("id INTEGER PRIMARY KEY, line", "(1, 'a'), (2, 'z')");
        assert_eq!(rows_since(&renamed, &earlier), 2, "what was in it cannot be compared");
        let moved = table("id, text", "('2', 'b'), ('3', NULL)");
        let all = table("id, text", "('1', 'a'), ('2', 'b'), ('3', NULL)");
        assert_eq!(rows_since(&moved, &all), 1, "those after it have other numbers, as after VACUUM");
        let other_key = table("id INTEGER, text PRIMARY KEY", "(1, 'a'), (2, 'b')");
        assert_eq!(rows_since(&other_key, &earlier), 2, "the whole table is another one");
        assert_eq!(rows_since("CREATE TABLE main.more (x); INSERT INTO more VALUES (1), (1)", &earlier), 2);
        let counter = "CREATE TABLE main.entries (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO main.entries VALUES (7)";
        assert_eq!(
            rows_since(counter, "CREATE TABLE main.entries (id INTEGER PRIMARY KEY AUTOINCREMENT)"),
            1
        );
    }

    #[test]
    fn what_is_no_content_is_not_seen() {
        assert_eq!(after("VACUUM"), Vec::<String>::new());
        assert_eq!(after("CREATE INDEX i ON entries (text); ANALYZE; DROP INDEX i"), Vec::<String>::new());
        assert_eq!(
            after("DELETE FROM entries; INSERT INTO entries VALUES (2, 'b'), (1, 'a')"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_number_is_not_its_text_nor_a_blob() {
        let values = ["1", "'1'", "1.0", "x'31'", "NULL", "''", "x''"];
        let hashes: std::collections::BTreeSet<_> = values
            .iter()
            .map(|value| {
                content(&format!("CREATE TABLE t (x); INSERT INTO t VALUES ({value})")).0["t"].clone()
            })
            .collect();

        assert_eq!(hashes.len(), values.len());
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let table = "CREATE TABLE t (x, y); INSERT INTO t VALUES ";
        assert_ne!(content(&format!("{table}('ab', 'c')")), content(&format!("{table}('a', 'bc')")));
        assert_ne!(content(&format!("{table}('a', 'b')")), content(&format!("{table}('b', 'a')")));
    }

    #[test]
    fn tables_of_every_kind_can_be_read() {
        let content = content(
            "CREATE TABLE keyed (a TEXT COLLATE NOCASE, b, PRIMARY KEY (b, a)) WITHOUT ROWID;
             INSERT INTO keyed VALUES ('x', 1), ('Y', 1);
             CREATE TABLE hidden (rowid, _rowid_, oid, \"od\"\"d name\");
             INSERT INTO hidden VALUES (3, 2, 1, 0), (1, 2, 3, 4);
             CREATE TABLE made (a, b AS (a + 1), c AS (a + 2) STORED);
             INSERT INTO made (a) VALUES (1);
             CREATE VIRTUAL TABLE words USING fts5(text);
             INSERT INTO words VALUES ('hello');
             CREATE VIEW seen AS SELECT * FROM keyed;
             CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT);
             INSERT INTO counted DEFAULT VALUES;",
        );

        for table in ["keyed", "hidden", "made", "words_content", "sqlite_sequence", "counted"] {
            assert!(content.0.contains_key(table), "{table}: {content:?}");
        }
        assert!(!content.0.contains_key("seen") && !content.0.contains_key("words"));
    }
}
