//! A table of a million rows that a migration rewrites while others are written; and how much memory that takes, as do its snapshot, its restore and
//! its backup.

use std::collections::BTreeMap;
use std::time::Instant;

use cutover_suites::kept::{PASSWORD, has_restic, records};
use cutover_suites::memory::{MOST, peaks_while, told as told_of};

use super::*;

const ROWS: u32 = 1_000_000;

/// Those that are there before.
const SEED: &str =
    "insert into entries (text) select 'seed' || n || ' ' || md5(n::text) from generate_series(1, 1000000) n";

const NUMBERED: Version<'static> = Version {
    name: "numbered",
    migrate: "sql 'create table if not exists entries (text text primary key, number bigserial unique)'",
    ..FIRST
};

/// A column of which each row gets its value, so many at once.
const IN_BATCHES: &str = "sql 'alter table entries add column digest text'
number=0
while [ $number -lt 1000000 ]; do
    sql \"update entries set digest = md5(text) where number > $number and number <= $number + 50000\"
    number=$((number + 50000))
done";

const REWRITTEN: &str = "sql 'alter table entries alter column number type numeric using number + 0.5'";

/// What was seen of all that was done.
#[derive(Default)]
struct Seen {
    peaks: BTreeMap<String, u64>,
}

impl Seen {
    /// Carries it out, and tells the time and the memory of it.
    async fn of<T>(&mut self, app: &App<'_>, what: &str, acts: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let (peaks, given) = peaks_while(app.site(), Box::pin(acts)).await;
        println!("{what}: {} ms; at the peak {}", began.elapsed().as_millis(), told_of(&peaks));
        for (word, bytes) in peaks {
            let most = self.peaks.entry(word).or_default();
            *most = bytes.max(*most);
        }
        given
    }
}

/// Whether all of the first rows are there as they were.
async fn seeded(app: &App<'_>) {
    let whole = format!(
        "select count(*) = {ROWS} and bool_and(split_part(text, ' ', 2) = md5(substr(split_part(text, ' ', 1), 5))) from entries where text like 'seed%'"
    );
    assert_eq!(query(app, &whole).await, "t");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_table_of_a_million_rows_is_rewritten_under_traffic_in_little_memory() {
    let name = "a_table_of_a_million_rows_is_rewritten_under_traffic_in_little_memory";
    if !has_restic(name) {
        return;
    }
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = databases_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = &site.app("ledger", HOST).unwrap();
        app.add_to_env(&format!("BACKUP_PASSWORD={PASSWORD}")).unwrap();
        deploy(app, &NUMBERED, 0).await;
        query(app, SEED).await;
        let mut seen = Seen::default();

        under_traffic(app, "batches", "text", async {
            let batches = Version { name: "batches", migrate: IN_BATCHES, timeout: "5m", ..NUMBERED };
            seen.of(app, "a column that is filled in batches", deploy(app, &batches, 0)).await;
            serves(app, "batches").await;
        })
        .await;
        let filled = "select count(*) from entries where number <= 1000000 and digest = md5(text)";
        assert_eq!(query(app, filled).await, ROWS.to_string());
        under_traffic(app, "fails", "text", async {
            let fails = format!("{REWRITTEN}; sql 'select nonsense'");
            let breaking = Version { compatible: "breaking", ..NUMBERED };
            let fails = Version { name: "fails", migrate: &fails, ..breaking };
            let talk = seen.of(app, "a breaking one that is put back", deploy(app, &fails, 5)).await;
            assert!(talk.contains("the database was put back as it was"), "{talk}");
            serves(app, "batches").await;

            let rewritten = Version { name: "rewritten", migrate: REWRITTEN, ..breaking };
            seen.of(app, "a breaking one that rewrites the table", deploy(app, &rewritten, 0)).await;
            serves(app, "rewritten").await;
        })
        .await;
        seeded(app).await;
        assert_eq!(
            query(app, "select count(*) from entries where number % 1 = 0 and text like 'seed%'").await,
            "0"
        );

        kept_and_back(app, &mut seen).await;
        seeded(app).await;
        println!("at the peak of all: {}", told_of(&seen.peaks));
        assert!(["run", "watch", "proxy", "backup"].iter().all(|word| seen.peaks.contains_key(*word)));
        assert!(seen.peaks.values().all(|bytes| *bytes < MOST), "{}", told_of(&seen.peaks));
    })
    .await;
}

/// A backup of it, read back, tried, and put in place.
async fn kept_and_back(app: &App<'_>, seen: &mut Seen) {
    let config = app.repository().join("cutover.yml");
    let to = app.site().folder().join("backups");
    let backup =
        format!("backup: {{ to: {}, password: \"${{BACKUP_PASSWORD}}\", every: 31d }}\n", to.display());
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + &backup).unwrap();
    app.record("kept").unwrap();
    seen.of(app, "the first backup", async {
        told(app, &["deploy"], 0).await;
        assert!(records(app, 1).await[0].is_verified());
    })
    .await;
    for verb in ["run", "verify", "drill"] {
        let what = format!("backup {verb}");
        under_traffic(app, verb, "text", async {
            seen.of(app, &what, told(app, &["backup", verb], 0)).await;
        })
        .await;
    }
    let found = seen.of(app, "backup restore", told(app, &["backup", "restore"], 0)).await;
    let snapshot = found.split_once("cutover snapshot restore ").unwrap().1.split_once('`').unwrap().0;
    query(app, "delete from entries where text like 'seed%'").await;
    let restore = ["snapshot", "restore", snapshot, "--yes"];
    seen.of(app, "snapshot restore", told(app, &restore, 0)).await;
}
