use super::*;

/// A database with entries, as an application has it open.
struct Shop {
    folder: tempfile::TempDir,
    connection: Option<Connection>,
}

impl Shop {
    fn in_wal_mode() -> Self {
        Self::with("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;")
    }

    fn with(head: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("app.db")).unwrap();
        connection.execute_batch(head).unwrap();
        connection.execute_batch("CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT)").unwrap();
        Self { folder, connection: Some(connection) }
    }

    fn write(&self, entries: std::ops::Range<u32>) {
        for entry in entries {
            let text = format!("entry {entry} {}", "x".repeat(200));
            self.connection
                .as_ref()
                .unwrap()
                .execute("INSERT INTO entries (text) VALUES (?1)", [text])
                .unwrap();
        }
    }

    fn close(&mut self) {
        self.connection.take();
    }

    /// Ends as a killed process does: nothing is checkpointed, the log stays.
    fn kill(&mut self) {
        let names: Vec<_> = BESIDE.iter().map(|ending| self.path(&format!("app.db{ending}"))).collect();
        let kept: Vec<_> =
            [vec![self.file()], names].concat().into_iter().filter(|path| path.exists()).collect();
        let copies: Vec<_> = kept.iter().map(|path| (path, fs::read(path).unwrap())).collect();
        self.connection.take();
        for (path, bytes) in copies {
            fs::write(path, bytes).unwrap();
        }
    }

    fn file(&self) -> PathBuf {
        self.path("app.db")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn snapshot(&self) -> PathBuf {
        self.path("backups/shop/main.sqlite")
    }
}

fn count(file: &Path) -> u32 {
    let connection = Connection::open(file).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn given_a_copy_that_takes_long_then_what_there_is_of_it_is_told_until_it_ends() {
    let (folder, meter) = (tempfile::tempdir().unwrap(), Meter::default());
    let grows = folder.path().join("next");
    let of = Extent::About { bytes: 40 };
    let work = async {
        fs::write(&grows, [0; 12]).unwrap();
        tokio::time::sleep(meter::LOOK * 2).await;
        meter.now()
    };

    let told = counted(&meter, &grows, of, work).await.unwrap();

    assert_eq!((told.what.as_str(), told.bytes, told.of), ("copied", 12, of));
    assert_eq!(meter.now(), None);
}

#[tokio::test]
async fn a_snapshot_of_an_open_database_has_what_only_its_log_has() {
    let shop = Shop::in_wal_mode();
    shop.write(0..50);
    let in_the_file = fs::metadata(shop.file()).unwrap().len();
    assert!(in_the_file <= 4096, "the entries lie in the log");

    let bytes = Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();

    let found = fs::metadata(shop.snapshot()).unwrap();
    assert_eq!((found.len(), found.mode() & 0o777), (bytes, 0o600));
    assert_eq!(names(&shop.path("backups/shop")), ["main.sqlite"]);
    assert_eq!(count(&shop.snapshot()), 50);
    assert_eq!(
        Sqlite::content(&shop.snapshot()).await.unwrap(),
        Sqlite::content(&shop.file()).await.unwrap()
    );
}

#[tokio::test]
async fn content_follows_rows_not_bytes() {
    let mut shop = Shop::in_wal_mode();
    shop.write(0..20);
    let before = Sqlite::content(&shop.file()).await.unwrap();

    shop.connection.as_ref().unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE); VACUUM").unwrap();
    assert_eq!(Sqlite::content(&shop.file()).await.unwrap(), before);
    shop.write(20..21);
    assert_ne!(Sqlite::content(&shop.file()).await.unwrap(), before);
    shop.kill();
    assert_ne!(
        Sqlite::content(&shop.file()).await.unwrap(),
        before,
        "the row in a dead process's log counts"
    );
}

/// Copies in small pieces, and says after each whether a writer who cannot wait got through.
fn copy_in_pieces(shop: &Shop, mut may_write: impl FnMut() -> bool) -> (Vec<bool>, PathBuf) {
    let copy = shop.path("copy.db");
    let source = open(&shop.file()).unwrap();
    let mut target = Connection::open(&copy).unwrap();
    let mut written = Vec::new();
    let backup = Backup::new(&source, &mut target).unwrap();
    step_through(&backup, &shop.file(), 2, &mut || {
        if may_write() {
            let insert = "INSERT INTO entries (text) VALUES ('in between')";
            written.push(shop.connection.as_ref().unwrap().execute(insert, []).is_ok());
        }
    })
    .unwrap();
    drop(backup);
    target.close().unwrap();
    (written, copy)
}

#[test]
fn without_a_log_writers_get_through_between_two_pieces() {
    let shop = Shop::with("PRAGMA journal_mode = DELETE");
    shop.connection.as_ref().unwrap().busy_timeout(Duration::ZERO).unwrap();
    shop.write(0..100);
    let mut pieces = 0;

    let (written, copy) = copy_in_pieces(&shop, || {
        pieces += 1;
        pieces <= 2
    });

    assert_eq!(written, [true, true]);
    assert!(pieces > 3, "it went on in pieces: {pieces}");
    assert_eq!(count(&copy), 102);
}

#[test]
fn a_writer_who_never_rests_does_not_keep_a_copy_from_its_end() {
    let shop = Shop::with("PRAGMA journal_mode = DELETE");
    shop.write(0..100);

    let (written, copy) = copy_in_pieces(&shop, || true);

    assert!(written.len() <= 2 * usize::try_from(STARTS).unwrap() + 2, "{}", written.len());
    assert!(count(&copy) >= 100);
}

#[tokio::test]
async fn a_copy_under_writers_is_whole() {
    let shop = Shop::in_wal_mode();
    shop.write(0..10);
    let file = shop.file();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::task::spawn_blocking({
        let done = done.clone();
        move || {
            let connection = Connection::open(file).unwrap();
            connection.busy_timeout(BUSY).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                connection.execute_batch("BEGIN; INSERT INTO entries (text) VALUES ('a'); INSERT INTO entries (text) VALUES ('b'); COMMIT").unwrap();
            }
        }
    });

    for _ in 0..10 {
        Sqlite::copy(&shop.file(), &shop.path("copy.db"), &Meter::default()).await.unwrap();
        assert_eq!(count(&shop.path("copy.db")) % 2, 0, "transactions are copied whole");
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
}

#[tokio::test]
async fn a_restore_puts_the_content_back_and_a_stale_log_does_not_come_with_it() {
    let mut shop = Shop::in_wal_mode();
    shop.write(0..5);
    Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
    let before = Sqlite::content(&shop.file()).await.unwrap();
    shop.write(5..300);
    shop.kill();
    fs::set_permissions(shop.file(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(fs::metadata(shop.path("app.db-wal")).unwrap().len() > 50_000);

    Sqlite::restore(&shop.snapshot(), &shop.file()).await.unwrap();

    assert_eq!(names(shop.folder.path()), ["app.db", "backups"]);
    assert_eq!(fs::metadata(shop.file()).unwrap().mode() & 0o777, 0o640);
    assert_eq!(Sqlite::content(&shop.file()).await.unwrap(), before);
    assert_eq!(count(&shop.file()), 5);
    Sqlite::restore(&shop.snapshot(), &shop.file()).await.unwrap();
    assert_eq!(count(&shop.file()), 5, "it can be repeated");
}

#[tokio::test]
async fn a_copy_beside_leaves_what_is_there_and_nothing_of_one_that_was_killed() {
    let shop = Shop::in_wal_mode();
    shop.write(0..5);
    Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
    let (to, mine) = (shop.path("scratch.db"), shop.path("mine.db"));
    fs::write(&mine, "mine").unwrap();
    // Somebody who may write there leads what is written to another file.
    std::os::unix::fs::symlink(&mine, super::part(&shop.snapshot(), &to)).unwrap();

    Sqlite::restore_beside(&shop.snapshot(), &to).await.unwrap();

    assert_eq!(count(&to), 5);
    let error = Sqlite::restore_beside(&shop.snapshot(), &mine).await.unwrap_err();
    assert!(error.message.contains("is there already"), "{error}");
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
    assert!(!names(shop.folder.path()).iter().any(|name| name.contains(".part")));
}

#[tokio::test]
async fn a_stale_log_beside_a_restored_file_would_corrupt_it() {
    // Why the log is removed before the rename: this is what a power cut in the other order leaves.
    let mut shop = Shop::in_wal_mode();
    shop.write(0..5);
    Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
    shop.write(5..300);
    shop.kill();

    fs::rename(shop.snapshot(), shop.file()).unwrap();

    let connection = Connection::open(shop.file()).unwrap();
    let count: rusqlite::Result<u32> =
        connection.query_row("SELECT count(*) FROM entries", [], |row| row.get(0));
    assert_ne!(count.ok(), Some(5));
}

#[tokio::test]
async fn a_hot_rollback_journal_does_not_outlive_a_restore() {
    let mut shop = Shop::with("PRAGMA journal_mode = DELETE;");
    shop.write(0..5);
    Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
    shop.close();
    fs::write(shop.path("app.db-journal"), b"left by a crash").unwrap();

    Sqlite::restore(&shop.snapshot(), &shop.file()).await.unwrap();

    assert_eq!(names(shop.folder.path()), ["app.db", "backups"]);
}

#[tokio::test]
async fn nothing_at_all_can_be_copied_snapshot_and_restored() {
    let mut shop = Shop::in_wal_mode();
    shop.write(0..5);
    shop.close();
    let (absent, empty) = (shop.path("absent.db"), shop.path("empty.db"));
    fs::write(&empty, b"").unwrap();

    assert_eq!(Sqlite::content(&absent).await.unwrap(), Content::default());
    assert_eq!(Sqlite::content(&empty).await.unwrap(), Content::default());
    Sqlite::copy(&absent, &shop.path("copy.db"), &Meter::default()).await.unwrap();
    assert!(shop.path("copy.db").exists() && !absent.exists());
    for nothing in [&absent, &empty] {
        Sqlite::snapshot(nothing, &shop.snapshot(), &Meter::default()).await.unwrap();
        Sqlite::restore(&shop.snapshot(), &shop.file()).await.unwrap();
        assert_eq!(Sqlite::content(&shop.file()).await.unwrap(), Content::default());
    }
    Sqlite::restore(&shop.snapshot(), &absent).await.unwrap();
    assert_eq!(fs::metadata(&absent).unwrap().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_corrupt_or_missing_snapshot_is_refused_and_the_database_stays() {
    let mut shop = Shop::in_wal_mode();
    shop.write(0..200);
    Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
    shop.close();
    let mut bytes = fs::read(shop.snapshot()).unwrap();
    let length = bytes.len();
    bytes[length - 8192..].fill(0xff);
    fs::write(shop.snapshot(), bytes).unwrap();

    for snapshot in [shop.snapshot(), shop.path("no such snapshot")] {
        let error = Sqlite::restore(&snapshot, &shop.file()).await.unwrap_err();
        assert_eq!(error.certainty, Certainty::NotDone, "{error}");
    }
    assert_eq!(count(&shop.file()), 200);
    assert_eq!(names(shop.folder.path()), ["app.db", "backups"]);
}

#[tokio::test]
async fn a_corrupt_database_gives_no_snapshot() {
    let mut shop = Shop::with("PRAGMA journal_mode = DELETE;");
    shop.write(0..200);
    shop.close();
    let mut bytes = fs::read(shop.file()).unwrap();
    bytes[8192..16384].fill(0xff);
    fs::write(shop.file(), bytes).unwrap();

    let error = Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap_err();

    assert!(error.message.contains("integrity_check") || error.message.contains("malformed"), "{error}");
    assert_eq!(names(&shop.path("backups/shop")), Vec::<String>::new());
}

#[tokio::test]
async fn a_restore_under_an_open_database_is_refused_and_names_who_has_it() {
    let shop = Shop::in_wal_mode();
    shop.write(0..5);
    Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
    shop.write(5..6);

    let error = Sqlite::restore(&shop.snapshot(), &shop.file()).await.unwrap_err();

    assert!(error.message.contains(&format!("(process {}) has it open", std::process::id())), "{error}");
    assert_eq!(count(&shop.file()), 6);
}

#[tokio::test]
async fn what_differs_from_a_snapshot_is_counted_while_somebody_writes() {
    for shop in [Shop::in_wal_mode(), Shop::with("")] {
        shop.write(0..10);
        Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
        shop.write(10..13);
        // One that has begun to write keeps nobody, and is kept from nothing; what it has not committed is not there.
        let writer = shop.connection.as_ref().unwrap();
        writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM entries").unwrap();

        assert_eq!(Sqlite::differing(&shop.snapshot(), &shop.file()).await.unwrap(), 3);

        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(Sqlite::differing(&shop.snapshot(), &shop.file()).await.unwrap(), 10);
        assert_eq!(
            fs::read_dir(files::folder_of(&shop.snapshot())).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }
}

#[tokio::test]
async fn what_is_too_large_or_not_there_is_not_compared() {
    let shop = Shop::in_wal_mode();
    Sqlite::snapshot(&shop.file(), &shop.snapshot(), &Meter::default()).await.unwrap();
    let gone = Sqlite::differing(&shop.snapshot(), &shop.path("gone.db")).await.unwrap_err();
    assert!(gone.message.contains("is not there"), "{gone}");

    File::options().write(true).open(shop.snapshot()).unwrap().set_len(COMPARED + 1).unwrap();
    let large = Sqlite::differing(&shop.snapshot(), &shop.file()).await.unwrap_err();
    assert!(large.message.contains("larger than 64.0 MiB"), "{large}");
}
