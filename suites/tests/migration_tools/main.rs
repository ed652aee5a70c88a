//! The tools that people migrate with, each as the page of migrations configures it, on a real server and under traffic that writes numbered rows: a migration that does well, ones that fail in a transaction, outside of one, and by hanging, and one that is taken back. What is told of the
//! schema is compared with what the tool itself says, and every row whose answer was good is there in the end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

mod ledger;

use cutover_core::state::SchemaChange;
use cutover_suites::engine::{ToolsImage, on_engine};
use cutover_suites::rows::HOST;
use cutover_testkit::site::Binaries;
use ledger::{Ledger, MARIADB, POSTGRES, Release, Server};

/// The page that says how each is configured.
const PAGE: &str = include_str!("../../../docs/migrations.md");

/// One of them, and what it says in its own words.
struct Tool {
    /// Its heading on the page.
    name: &'static str,
    /// Its folder below `ledgers`.
    folder: &'static str,
    image: ToolsImage,
    server: &'static Server,
    /// What cutover reads of its table after one, two and three migrations.
    versions: [&'static str; 3],
    /// A shell's words, in an instance, that ask it where it is.
    asks: &'static str,
    /// What it answers after two and three migrations.
    answers: [&'static str; 2],
    unfinished: Option<Unfinished>,
}

/// A tool that goes on from a failure only when it is told where it is.
struct Unfinished {
    version: &'static str,
    answer: &'static str,
    /// What it wants to be told, as it is said at once, and later.
    ways_out: [&'static str; 2],
    /// A shell's words that tell it that the failed migration is undone.
    undone: &'static str,
}

impl Tool {
    /// What the page has for it.
    fn databases(&self) -> String {
        let section = PAGE.split(&format!("### {}\n", self.name)).nth(1).unwrap();
        let databases = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        databases.replace(": postgres\n", &format!(": {}\n", self.server.name))
    }
}

const ALEMBIC: Tool = Tool {
    name: "alembic",
    folder: "alembic",
    image: ToolsImage::Python,
    server: &POSTGRES,
    versions: ["0001 (alembic)", "0002 (alembic)", "0003 (alembic)"],
    asks: "alembic current 2>/dev/null",
    answers: ["0002 (head)", "0003 (head)"],
    unfinished: None,
};

const DJANGO: Tool = Tool {
    name: "Django",
    folder: "django",
    image: ToolsImage::Python,
    server: &POSTGRES,
    versions: [
        "ledger.0001_entries, 1 in all (django)",
        "ledger.0002_mark, 2 in all (django)",
        "ledger.0003_line, 3 in all (django)",
    ],
    asks: "python3 manage.py showmigrations --plan | grep -F '[X]' | tail -n 1",
    answers: ["[X]  ledger.0002_mark", "[X]  ledger.0003_line"],
    unfinished: None,
};

const GOLANG_MIGRATE: Tool = Tool {
    name: "golang-migrate",
    folder: "golang-migrate",
    image: ToolsImage::GolangMigrate,
    server: &POSTGRES,
    versions: ["1 (golang-migrate)", "2 (golang-migrate)", "3 (golang-migrate)"],
    asks: "migrate -path migrations -database $DATABASE_URL version 2>&1",
    answers: ["2", "3"],
    unfinished: Some(Unfinished {
        version: "3 (golang-migrate, not finished)",
        answer: "3 (dirty)",
        ways_out: [
            "`migrate force 3` where it is done, `migrate force 2` where it is not",
            "`migrate force 3` where it is done, `migrate force` with the version before where it is not",
        ],
        undone: "migrate -path migrations -database $DATABASE_URL force 2",
    }),
};

const SQLX: Tool = Tool {
    name: "sqlx",
    folder: "sqlx",
    image: ToolsImage::Sqlx,
    server: &POSTGRES,
    versions: ["1 (sqlx)", "2 (sqlx)", "3 (sqlx)"],
    asks: "psql $DATABASE_URL -qAtc 'select max(version) from _sqlx_migrations where success'",
    answers: ["2", "3"],
    unfinished: None,
};

const SQLX_ON_MARIADB: Tool = Tool {
    folder: "sqlx-mariadb",
    server: &MARIADB,
    asks: "mariadb -h mariadb -u ledger -N ledger -e 'select max(version), min(success) from _sqlx_migrations'",
    answers: ["2\t1", "3\t1"],
    unfinished: Some(Unfinished {
        version: "3 (sqlx, not finished)",
        answer: "3\t0",
        ways_out: ["`delete from _sqlx_migrations where version = 3` where it is not"; 2],
        undone: "mariadb -h mariadb -u ledger ledger -e 'delete from _sqlx_migrations where version = 3'",
    }),
    ..SQLX
};

const FIRST: Release<'static> =
    Release { name: "first", folders: &["first"], compatible: "expand", timeout: "60s", column: "text" };
const WIDER: Release<'static> = Release { name: "wider", folders: &["first", "wider"], ..FIRST };
const FAILS: Release<'static> = Release { name: "fails", folders: &["first", "wider", "fails"], ..FIRST };
const HALF: Release<'static> = Release { name: "half", folders: &["first", "wider", "half"], ..FIRST };
const HANGS: Release<'static> =
    Release { name: "hangs", folders: &["first", "wider", "hangs"], timeout: "3s", ..FIRST };
/// It cannot live with what was before, nor the other way round.
const RENAMED: Release<'static> = Release {
    name: "renamed",
    folders: &["first", "wider", "renamed"],
    compatible: "breaking",
    column: "line",
    ..FIRST
};

const HALVES: &str = "select count(*) from information_schema.columns where column_name = 'half'";

/// What the tool says in an instance of the live release.
async fn answer(ledger: &Ledger<'_>, asks: &str) -> String {
    let told = ledger.app.cutover(&["exec", "web", "--", "sh", "-c", asks]).await.unwrap();
    told.expect(0).unwrap().output.trim().to_owned()
}

/// What the newest release's record has of its last migration.
fn recorded(ledger: &Ledger<'_>) -> [String; 2] {
    let store = cutover_host::store::Store::open(&ledger.app.site().layout()).unwrap();
    let releases = store.releases(ledger.app.id()).unwrap();
    let newest = releases.iter().flat_map(|record| &record.migrations).max_by_key(|one| one.at).unwrap();
    let SchemaChange { before, after } = newest.done.schema.clone().unwrap();
    [before, after].map(|versions| versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

/// A migration that does well: told, on record, and not carried out again.
async fn does_well(ledger: &mut Ledger<'_>) {
    let [one, two, _] = ledger.tool.versions;
    ledger
        .under_traffic("good", "text", async |ledger| {
            let told = ledger.deploy(&WIDER, 0).await;
            assert!(told.contains(&format!("the schema is at {two}")), "{told}");
            assert_eq!(recorded(ledger), [one, two]);
            assert_eq!(answer(ledger, ledger.tool.asks).await, ledger.tool.answers[0]);
            ledger.serves("wider").await;
            let told = ledger.deploy(&Release { name: "again", ..WIDER }, 0).await;
            if ledger.tool.databases().contains("pending:") {
                assert!(told.contains("no migration is pending"), "{told}");
            } else {
                assert_eq!(recorded(ledger), [two, two]);
            }
        })
        .await;
    // Rows from before it have what it gave them.
    assert_ne!(ledger.query("select count(*) from entries where mark = 'wider'").await, "0");
}

/// A migration that fails: what is told of the schema is what the tool says itself, and what is there.
async fn fails(ledger: &mut Ledger<'_>, release: &Release<'_>, what: &str, [tables, halves]: [&str; 2]) {
    ledger
        .under_traffic(release.name, "text", async |ledger| {
            let told = ledger.deploy(release, 5).await;
            assert!(told.contains(what) && told.contains(tables), "{told}");
            let two = ledger.tool.versions[1];
            let (place, says) = match &ledger.tool.unfinished {
                None => (format!("the schema is at version {two}, as before"), ledger.tool.answers[0]),
                Some(unfinished) => {
                    let place = format!("the schema was at version {two}, and is at {}", unfinished.version);
                    assert!(told.contains(unfinished.ways_out[0]), "{told}");
                    (place, unfinished.answer)
                }
            };
            assert!(told.contains(&place), "{told}");
            let state = match (&ledger.tool.unfinished, halves) {
                (_, "1") => "the schema of `main` was changed by the migration that failed".to_owned(),
                (None, _) => "the schema of `main` is as it was before".to_owned(),
                (Some(unfinished), _) => format!(
                    "the tables of `main` are as they were before, and its version is now {}",
                    unfinished.version
                ),
            };
            assert!(told.contains(&state), "{told}");
            assert_eq!(answer(ledger, ledger.tool.asks).await, says);
            assert_eq!(ledger.query(HALVES).await, halves);
            assert_eq!(ledger.query(ledger.tool.server.sleeping).await, "0");
            ledger.serves("again").await;
            if halves == "1" {
                ledger.query("alter table entries drop column half").await;
            }
            if let Some(unfinished) = &ledger.tool.unfinished {
                goes_on_when_told(ledger, unfinished).await;
            }
        })
        .await;
}

/// The next deploy is refused, whatever it brings, until the tool was told.
async fn goes_on_when_told(ledger: &Ledger<'_>, unfinished: &Unfinished) {
    let told = ledger.deploy(&Release { name: "refused", ..WIDER }, 5).await;
    assert!(told.contains("an earlier migration of it did not come to its end"), "{told}");
    assert!(told.contains(unfinished.ways_out[1]), "{told}");
    assert!(told.contains("`cutover snapshot restore main_") && told.contains(".dump.zst"), "{told}");
    ledger.serves("again").await;
    answer(ledger, unfinished.undone).await;
    ledger.deploy(&Release { name: "again", ..WIDER }, 0).await;
}

/// A breaking migration is taken back by the tool's own command; what was written since stays; and it can be done again.
async fn is_taken_back(ledger: &mut Ledger<'_>) {
    let [_, two, three] = ledger.tool.versions;
    ledger
        .under_traffic("held", "line", async |ledger| {
            ledger.deploy(&RENAMED, 0).await;
            assert_eq!(recorded(ledger), [two, three]);
            assert_eq!(answer(ledger, ledger.tool.asks).await, ledger.tool.answers[1]);
            ledger.serves("renamed").await;
        })
        .await;
    ledger
        .under_traffic("down", "text", async |ledger| {
            let refused = ledger.told(&["rollback", "--yes"], 7).await;
            assert!(refused.contains("--migrate-down"), "{refused}");
            ledger.told(&["rollback", "--migrate-down", "--yes"], 0).await;
            assert_eq!(answer(ledger, ledger.tool.asks).await, ledger.tool.answers[0]);
            ledger.serves("again").await;
        })
        .await;
    ledger
        .under_traffic("after", "line", async |ledger| {
            ledger.deploy(&Release { name: "renamed once more", ..RENAMED }, 0).await;
            ledger.serves("renamed once more").await;
        })
        .await;
}

async fn with_tool(name: &str, tool: &Tool) {
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        for image in [tool.server.image, tool.image] {
            if let Err(why) = image.made(site.docker().unwrap().engine()) {
                return println!("not run: {name}: {why}");
            }
        }
        let app = site.app("ledger", HOST).unwrap();
        let mut ledger = Ledger::new(&app, tool);
        ledger.deploy(&FIRST, 0).await;
        does_well(&mut ledger).await;
        fails(&mut ledger, &FAILS, "exited with code 1", tool.server.failed).await;
        if tool.server.name == POSTGRES.name {
            let stays = ["were changed, and no transaction took that back", "1"];
            fails(&mut ledger, &HALF, "exited with code 1", stays).await;
        }
        fails(&mut ledger, &HANGS, "did not end within 3 s", tool.server.failed).await;
        is_taken_back(&mut ledger).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn alembic_migrates_fails_and_is_taken_back() {
    with_tool("alembic_migrates_fails_and_is_taken_back", &ALEMBIC).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn django_migrates_fails_and_is_taken_back() {
    with_tool("django_migrates_fails_and_is_taken_back", &DJANGO).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn golang_migrate_migrates_fails_and_is_taken_back() {
    with_tool("golang_migrate_migrates_fails_and_is_taken_back", &GOLANG_MIGRATE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn sqlx_migrates_fails_and_is_taken_back() {
    with_tool("sqlx_migrates_fails_and_is_taken_back", &SQLX).await;
}

/// Where no transaction takes back what a statement did to a table, sqlx writes its row before it begins, and that stays.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn sqlx_on_mariadb_migrates_fails_and_is_taken_back() {
    with_tool("sqlx_on_mariadb_migrates_fails_and_is_taken_back", &SQLX_ON_MARIADB).await;
}
