//! `guestbook migrate`: the files `migrations/NNN_name.sql`, in order, each in a transaction of its own. One that fails
//! leaves those before it applied and itself undone. With nothing pending the database's content is not touched.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use crate::settings::{self, SettingsError};
use crate::{say, store};

#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: a migration is named NNN_name.sql, with numbers that do not repeat", .0.display())]
    Name(PathBuf),
    #[error("database {}: {source}", file.display())]
    Open { file: PathBuf, source: rusqlite::Error },
    #[error("the record of migrations cannot be read: {0}")]
    Record(#[source] rusqlite::Error),
    #[error("migration {label} failed, and is undone: {source}")]
    Failed { label: String, source: rusqlite::Error },
    #[error("migration {0} ends its transaction itself; take BEGIN, COMMIT and ROLLBACK out of it")]
    EndsTransaction(String),
    #[error("migration {label} leaves rows in `{table}` that point at nothing; it is undone")]
    Dangling { label: String, table: String },
}

#[derive(Debug)]
struct Migration {
    version: i64,
    name: String,
    sql: String,
}

impl Migration {
    fn label(&self) -> String {
        format!("{:03}_{}", self.version, self.name)
    }
}

/// Migrates the database named on the command line, else by `DATABASE_FILE`, with the working folder's migrations.
pub(crate) fn run(database: Option<PathBuf>) -> Result<ExitCode, MigrateError> {
    let file = database.map_or_else(settings::database_file, Ok)?;
    let version = migrate_file(&file, Path::new("migrations"))?;
    say(&format!("the database is at schema version {version}"));
    Ok(ExitCode::SUCCESS)
}

/// Opens or makes the file, and applies what is pending; gives the schema's version.
pub(crate) fn migrate_file(file: &Path, migrations: &Path) -> Result<i64, MigrateError> {
    let open = |source| MigrateError::Open { file: file.to_owned(), source };
    let mut connection = Connection::open(file).map_err(open)?;
    store::configure(&connection).map_err(open)?;
    apply(&mut connection, migrations)?;
    schema_version(&connection).map_err(MigrateError::Record)
}

pub(crate) fn apply(connection: &mut Connection, migrations: &Path) -> Result<(), MigrateError> {
    // A table can only be rebuilt with the checks off; each migration is checked before its commit instead.
    connection.pragma_update(None, "foreign_keys", false).map_err(MigrateError::Record)?;
    let migrations = load(migrations)?;
    let reached = schema_version(connection).map_err(MigrateError::Record)?;
    for migration in migrations.iter().filter(|migration| migration.version > reached) {
        apply_one(connection, migration)?;
        say(&format!("applied {}", migration.label()));
    }
    Ok(())
}

/// 0 when no migration has ever run.
pub(crate) fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    let recorded = connection
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    match recorded {
        Some(()) => {
            connection
                .query_row("SELECT coalesce(max(version), 0) FROM schema_migrations", [], |row| row.get(0))
        }
        None => Ok(0),
    }
}

fn apply_one(connection: &mut Connection, migration: &Migration) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Failed { label: migration.label(), source };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction.execute_batch(&migration.sql).map_err(failed)?;
    if transaction.is_autocommit() {
        return Err(MigrateError::EndsTransaction(migration.label()));
    }
    if let Some(table) = dangling(&transaction).map_err(failed)? {
        return Err(MigrateError::Dangling { label: migration.label(), table });
    }
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations
             (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL)",
        )
        .map_err(failed)?;
    transaction
        .execute(
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES (?1, ?2, unixepoch())",
            (migration.version, &migration.name),
        )
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// The first table with a foreign key that points at nothing.
fn dangling(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("PRAGMA foreign_key_check", [], |row| row.get(0)).optional()
}

fn load(folder: &Path) -> Result<Vec<Migration>, MigrateError> {
    let read = |source| MigrateError::Read { path: folder.to_owned(), source };
    let mut migrations = Vec::new();
    for item in std::fs::read_dir(folder).map_err(read)? {
        let path = item.map_err(read)?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            migrations.push(load_one(path)?);
        }
    }
    migrations.sort_by_key(|migration| migration.version);
    match migrations.windows(2).find(|pair| pair[0].version == pair[1].version) {
        Some(pair) => Err(MigrateError::Name(folder.join(format!("{}.sql", pair[1].label())))),
        None => Ok(migrations),
    }
}

fn load_one(path: PathBuf) -> Result<Migration, MigrateError> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let named = stem
        .split_once('_')
        .and_then(|(number, name)| Some((number.parse::<i64>().ok().filter(|number| *number > 0)?, name)));
    let Some((version, name)) = named else {
        return Err(MigrateError::Name(path));
    };
    let sql = std::fs::read_to_string(&path).map_err(|source| MigrateError::Read { path, source })?;
    Ok(Migration { version, name: name.to_owned(), sql })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn with(migrations: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("migrations")).unwrap();
            let bench = Self { folder };
            for (name, sql) in migrations {
                bench.add(name, sql);
            }
            bench
        }

        fn add(&self, name: &str, sql: &str) {
            std::fs::write(self.folder.path().join("migrations").join(name), sql).unwrap();
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("test.db")
        }

        fn migrate(&self) -> Result<i64, MigrateError> {
            migrate_file(&self.file(), &self.folder.path().join("migrations"))
        }

        fn tables(&self) -> Vec<String> {
            let connection = Connection::open(self.file()).unwrap();
            let mut statement =
                connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        }
    }

    #[test]
    fn given_pending_migrations_then_they_run_by_number_and_only_once() {
        let bench = Bench::with(&[
            ("010_more.sql", "INSERT INTO one VALUES (2)"),
            ("9_rows.sql", "INSERT INTO one VALUES (1)"),
            ("001_one.sql", "CREATE TABLE one (x)"),
        ]);
        assert_eq!(bench.migrate().unwrap(), 10);
        assert_eq!(bench.migrate().unwrap(), 10);
        let rows: i64 = Connection::open(bench.file())
            .unwrap()
            .query_row("SELECT group_concat(x, '') FROM one", [], |row| row.get::<_, String>(0))
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(rows, 12);
    }

    #[test]
    fn given_one_that_fails_half_way_then_earlier_ones_stay_and_it_is_undone() {
        let bench = Bench::with(&[
            ("001_one.sql", "CREATE TABLE one (x)"),
            ("002_two.sql", "CREATE TABLE two (x); INSERT INTO absent VALUES (1);"),
            ("003_three.sql", "CREATE TABLE three (x)"),
        ]);
        let error = bench.migrate().unwrap_err();
        assert!(
            error.to_string().starts_with("migration 002_two failed, and is undone: no such table: absent")
        );
        assert_eq!(bench.tables(), ["one", "schema_migrations"]);

        bench.add("002_two.sql", "CREATE TABLE two (x)");
        assert_eq!(bench.migrate().unwrap(), 3);
    }

    #[test]
    fn given_one_that_leaves_rows_pointing_at_nothing_then_it_is_undone() {
        let bench = Bench::with(&[(
            "001_one.sql",
            "CREATE TABLE one (id INTEGER PRIMARY KEY);
             CREATE TABLE two (one REFERENCES one(id));
             INSERT INTO two VALUES (7);",
        )]);
        assert!(matches!(bench.migrate(), Err(MigrateError::Dangling { table, .. }) if table == "two"));
        assert!(bench.tables().is_empty());
    }

    #[test]
    fn given_one_that_commits_by_itself_then_it_is_not_recorded_as_applied() {
        let bench = Bench::with(&[("001_one.sql", "CREATE TABLE one (x); COMMIT;")]);
        assert!(matches!(bench.migrate(), Err(MigrateError::EndsTransaction(label)) if label == "001_one"));
        assert_eq!(bench.tables(), ["one"]);
    }

    #[test]
    fn given_an_older_release_on_a_newer_schema_then_nothing_happens() {
        let bench = Bench::with(&[("001_one.sql", "CREATE TABLE one (x)"), ("002_two.sql", "SELECT 1")]);
        assert_eq!(bench.migrate().unwrap(), 2);
        std::fs::remove_file(bench.folder.path().join("migrations/002_two.sql")).unwrap();
        assert_eq!(bench.migrate().unwrap(), 2);
    }

    #[test]
    fn given_a_wrong_name_or_a_number_twice_then_nothing_runs() {
        for (name, other) in [("first.sql", "001_one.sql"), ("1_again.sql", "001_one.sql")] {
            let bench = Bench::with(&[(name, "CREATE TABLE wrong (x)"), (other, "CREATE TABLE one (x)")]);
            assert!(matches!(bench.migrate(), Err(MigrateError::Name(_))));
            assert!(bench.tables().is_empty());
        }
    }
}
