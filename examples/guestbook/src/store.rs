//! The entries in `SQLite`, by the statements in `sql/*.sql`: the schema a release expects is in its files, not in the
//! binary. Durable (`synchronous=FULL`); several instances may have the file open at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Batch, Connection, OpenFlags, Statement, TransactionBehavior};

use crate::migrate;

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);

/// An entry as its release's SQL names the columns.
pub(crate) type Row = serde_json::Map<String, serde_json::Value>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("database {} is not there; `guestbook migrate` makes it", .0.display())]
    Absent(PathBuf),
    #[error("sql/{name}.sql cannot be read: {source}")]
    Unreadable { name: &'static str, source: std::io::Error },
    #[error("sql/{name}.sql does not fit the database (is it migrated?): {source}")]
    DoesNotFit { name: &'static str, source: rusqlite::Error },
    #[error("sql/{name}.sql asks for parameter {parameter}, which nobody gives it")]
    Parameter { name: &'static str, parameter: String },
    #[error("the work on the database was cut off")]
    CutOff,
    #[error("the database answered: {0}")]
    Database(#[from] rusqlite::Error),
    #[error(transparent)]
    Migrate(#[from] Box<migrate::MigrateError>),
}

/// One file under `sql/`.
#[derive(Debug)]
struct Query {
    name: &'static str,
    sql: String,
}

/// A reader beside the writer, so that a commit that waits for the disk does not keep pages waiting.
pub(crate) struct Store {
    reader: Arc<Mutex<Connection>>,
    writer: Arc<Mutex<Connection>>,
    insert: Query,
    latest: Query,
    after: Query,
}

impl Store {
    /// Opens what `guestbook migrate` made, and checks at once that this release's statements fit it.
    pub(crate) fn open(file: &Path, release: &Path) -> Result<Self, StoreError> {
        if !file.exists() {
            return Err(StoreError::Absent(file.to_owned()));
        }
        let writer = connect(file)?;
        let reader = connect(file)?;
        Self::over(Arc::new(Mutex::new(reader)), Arc::new(Mutex::new(writer)), release)
    }

    /// A private database that ends with the process.
    pub(crate) fn in_memory(release: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        migrate::apply(&mut connection, &release.join("migrations")).map_err(Box::new)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let only = Arc::new(Mutex::new(connection));
        Self::over(Arc::clone(&only), only, release)
    }

    fn over(
        reader: Arc<Mutex<Connection>>,
        writer: Arc<Mutex<Connection>>,
        release: &Path,
    ) -> Result<Self, StoreError> {
        let read = |name| Query::load(&release.join("sql"), name);
        let store = Self {
            reader,
            writer,
            insert: read("insert_entry")?,
            latest: read("latest_entries")?,
            after: read("entries_after")?,
        };
        for query in [&store.insert, &store.latest, &store.after] {
            query.check(&store.read())?;
        }
        Ok(store)
    }

    /// Adds an entry, durably; all statements of the file in one transaction, the last one inserts the entry.
    pub(crate) fn add(&self, name: &str, message: &str) -> Result<i64, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let given = [(":name", Value::from(name.to_owned())), (":message", Value::from(message.to_owned()))];
        let mut statements = Batch::new(&transaction, &self.insert.sql);
        while let Some(mut statement) = statements.next()? {
            self.insert.bind(&mut statement, &given)?;
            statement.raw_execute()?;
        }
        let id = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(id)
    }

    /// The newest entries, newest first.
    pub(crate) fn latest(&self, limit: i64) -> Result<Vec<Row>, StoreError> {
        self.latest.rows(&self.read(), &[(":limit", limit.into())])
    }

    /// Entries whose id is above `after`, oldest first.
    pub(crate) fn after(&self, after: i64, limit: i64) -> Result<Vec<Row>, StoreError> {
        self.after.rows(&self.read(), &[(":after", after.into()), (":limit", limit.into())])
    }

    /// Number of the last migration that this database has had.
    pub(crate) fn schema_version(&self) -> Result<i64, StoreError> {
        Ok(migrate::schema_version(&self.read())?)
    }

    /// A poisoned lock is no danger: every use is one transaction, and `SQLite` has rolled back what was open.
    fn read(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Query {
    fn load(folder: &Path, name: &'static str) -> Result<Self, StoreError> {
        let sql = std::fs::read_to_string(folder.join(format!("{name}.sql")))
            .map_err(|source| StoreError::Unreadable { name, source })?;
        Ok(Self { name, sql })
    }

    fn check(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut statements = Batch::new(connection, &self.sql);
        while statements
            .next()
            .map_err(|source| StoreError::DoesNotFit { name: self.name, source })?
            .is_some()
        {}
        Ok(())
    }

    fn rows(&self, connection: &Connection, given: &[(&str, Value)]) -> Result<Vec<Row>, StoreError> {
        let mut statement = connection.prepare_cached(&self.sql)?;
        self.bind(&mut statement, given)?;
        let columns: Vec<String> = statement.column_names().map(ToOwned::to_owned).collect();
        let mut found = statement.raw_query();
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let mut named = Row::new();
            for (index, column) in columns.iter().enumerate() {
                named.insert(column.clone(), to_json(row.get_ref(index)?));
            }
            rows.push(named);
        }
        Ok(rows)
    }

    /// Binds the parameters that this statement has; one file's statements need not use all of them.
    fn bind(&self, statement: &mut Statement<'_>, given: &[(&str, Value)]) -> Result<(), StoreError> {
        for index in 1..=statement.parameter_count() {
            let parameter = statement.parameter_name(index).unwrap_or("?").to_owned();
            let (_, value) = given
                .iter()
                .find(|(name, _)| *name == parameter)
                .ok_or(StoreError::Parameter { name: self.name, parameter })?;
            statement.raw_bind_parameter(index, value)?;
        }
        Ok(())
    }
}

fn connect(file: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    configure(&connection)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// What every connection to the file has, the migrating one too.
pub(crate) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // A container from scratch has no folder for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")
}

fn to_json(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        cutover_testkit::guestbook::lay_out_files(version, folder.path()).unwrap();
        folder
    }

    fn migrated(release: &Path, file: &Path) {
        migrate::migrate_file(file, &release.join("migrations")).unwrap();
    }

    #[test]
    fn given_entries_of_the_first_schema_then_the_third_release_reads_and_adds_to_them() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("guestbook.db");
        let (first, third) = (release("v1"), release("v3"));
        migrated(&first.path().join("web"), &file);
        let old = Store::open(&file, &first.path().join("web")).unwrap();
        assert_eq!(old.add("Ada", "hello").unwrap(), 1);
        drop(old);

        migrated(&third.path().join("web"), &file);
        let new = Store::open(&file, &third.path().join("web")).unwrap();
        assert_eq!(new.add("Ada", "again").unwrap(), 2);
        assert_eq!(new.add("Grace", "<hi>").unwrap(), 3);

        let rows = new.after(0, 10).unwrap();
        let said: Vec<_> = rows.iter().map(|row| (row["id"].clone(), row["name"].clone())).collect();
        assert_eq!(said, [(1.into(), "Ada".into()), (2.into(), "Ada".into()), (3.into(), "Grace".into())]);
        assert_eq!(new.latest(1).unwrap()[0]["message"], "<hi>");
        assert_eq!(new.schema_version().unwrap(), 2);
    }

    #[test]
    fn given_a_release_whose_migration_did_not_run_then_opening_names_the_statement() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("guestbook.db");
        let (first, third) = (release("v1"), release("v3"));
        migrated(&first.path().join("web"), &file);
        let error = Store::open(&file, &third.path().join("web")).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("sql/insert_entry.sql does not fit"), "{error}");
        assert!(error.to_string().contains("no such table: visitors"), "{error}");
    }

    #[test]
    fn given_no_database_then_opening_does_not_make_one() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("guestbook.db");
        let first = release("v1");
        let error = Store::open(&file, &first.path().join("web")).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Absent(_)), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn given_two_instances_on_one_file_then_both_write_and_see_all() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("guestbook.db");
        let first = release("v1");
        let web = first.path().join("web");
        migrated(&web, &file);
        let stores = [Store::open(&file, &web).unwrap(), Store::open(&file, &web).unwrap()];
        std::thread::scope(|scope| {
            for store in &stores {
                scope.spawn(|| {
                    for _ in 0..20 {
                        store.add("both", "at once").unwrap();
                    }
                });
            }
        });
        assert_eq!(stores[0].after(0, 100).unwrap().len(), 40);
    }
}
