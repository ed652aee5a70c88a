use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Entry, Step, StepResult, What};
use cutover_core::names::{AppId, ReleaseId, RunId};
use cutover_core::plan::{Planned, Stage, Verb};
use cutover_core::release::{Provenance, Release};
use cutover_core::secret::Secret;
use cutover_core::state::{Migrated, Restored, Undone};
use cutover_core::verdict::{Outcome, Verdict};
use cutover_core::wire::Ask;
use jiff::Timestamp;

use super::*;

fn app(name: &str) -> AppId {
    format!("{name}/local").parse().unwrap()
}

fn run(number: u8) -> RunId {
    RunId::new(uuid::Uuid::from_bytes([number; 16]))
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + second, 123_456_789).unwrap()
}

fn note(text: &str) -> What {
    What::Note { stage: Stage::Start, text: text.to_owned() }
}

fn release(name: &str, subject: &str) -> Release {
    Release {
        one_offs: [].into(),
        id: name.parse().unwrap(),
        app: app("shop"),
        source: Provenance { subject: Some(subject.to_owned()), ..Provenance::default() },
        services: [].into(),
        backing: [].into(),
        databases: [].into(),
        volumes: [].into(),
        backup: None,
        registry: None,
        variables: [].into(),
        bake: Duration::from_secs(10),
        keep_warm: Duration::ZERO,
        keep: 5,
        created: at(0),
    }
}

fn id(name: &str) -> ReleaseId {
    name.parse().unwrap()
}

fn verdict(number: u8, outcome: Outcome) -> Verdict {
    Verdict {
        run: run(number),
        app: app("shop"),
        verb: Verb::Deploy,
        release: Some(id("v1")),
        serving: Some(id("v1")),
        outcome,
        allowed: vec![],
        by: "ann@laptop".to_owned(),
        started: at(1),
        finished: at(2),
        switched_ms: Some(7),
        freed: None,
        warnings: vec![],
    }
}

fn begun(store: &Store, numbers: impl IntoIterator<Item = u8>) {
    for number in numbers {
        store.begin_run(run(number), &app("shop"), Verb::Deploy, "ann@laptop", at(0)).unwrap();
    }
}

#[test]
fn a_journal_is_read_back_in_order_and_from_any_line() {
    let store = Store::in_memory().unwrap();
    begun(&store, [1, 2]);

    let written: Vec<_> =
        (0..3).map(|n| store.append(run(1), at(n), &note(&format!("line {n}"))).unwrap()).collect();
    store.append(run(2), at(0), &note("of another run")).unwrap();

    assert_eq!(written.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(store.entries(run(1), 0).unwrap(), written);
    assert_eq!(store.entries(run(1), 3).unwrap(), written[2..]);
    assert_eq!(store.entries(run(9), 0).unwrap(), []);
}

#[test]
fn a_run_begins_once_and_is_found_again() {
    let store = Store::in_memory().unwrap();
    assert!(store.begin_run(run(1), &app("shop"), Verb::Deploy, "ann@laptop", at(0)).unwrap());
    assert!(!store.begin_run(run(1), &app("other"), Verb::Remove, "ben", at(9)).unwrap());

    let row = store.run(run(1)).unwrap().unwrap();

    assert_eq!((row.app, row.verb, row.by.as_str()), (app("shop"), Verb::Deploy, "ann@laptop"));
    assert_eq!((row.started, row.finished), (at(0), None));
    assert_eq!(store.run(run(2)).unwrap(), None);
}

#[test]
fn unfinished_is_what_has_a_journal_and_no_verdict() {
    let store = Store::in_memory().unwrap();
    begun(&store, [3, 1, 2]);
    assert_eq!(store.unfinished(&app("shop")).unwrap(), None, "they all wait for the lock");
    store.append(run(1), at(0), &note("")).unwrap();

    assert_eq!(store.unfinished(&app("shop")).unwrap(), Some(run(1)));
    assert_eq!(store.newest_run(&app("shop")).unwrap(), Some(run(2)), "by order, not by id or clock");
    let all: Vec<_> = store.all_unfinished().unwrap().into_iter().map(|(_, run)| run).collect();
    assert_eq!(all, [run(3), run(1), run(2)]);

    store.finish_run(&verdict(1, Outcome::Done)).unwrap();
    assert_eq!(store.unfinished(&app("shop")).unwrap(), None);
    assert_eq!(store.run(run(1)).unwrap().unwrap().finished, Some(at(2)));
}

#[test]
fn a_run_has_one_verdict_the_first() {
    let store = Store::in_memory().unwrap();
    let failed = Outcome::Failed { failure: Failure::new(Exit::NotHealthy, "it broke").because("a fact") };
    begun(&store, [1]);
    store.finish_run(&verdict(1, failed.clone())).unwrap();
    store.finish_run(&verdict(1, Outcome::Done)).unwrap();
    store.finish_run(&verdict(2, Outcome::Done)).unwrap();

    assert_eq!(store.verdict(run(1)).unwrap(), Some(verdict(1, failed)));
    assert_eq!(store.verdict(run(3)).unwrap(), None);
    let runs = |limit| {
        let found = store.verdicts(&app("shop"), limit).unwrap();
        found.into_iter().map(|verdict| verdict.run).collect::<Vec<_>>()
    };
    assert_eq!(runs(10), [run(2), run(1)], "a verdict of a run that never began is kept, too");
    assert_eq!(runs(1), [run(2)]);
}

#[test]
fn the_first_wish_to_cancel_stays() {
    let store = Store::in_memory().unwrap();
    begun(&store, [1]);
    assert_eq!(store.cancel_asked(run(1)).unwrap(), None);

    store.ask_cancel(run(1), "ann").unwrap();
    store.ask_cancel(run(1), "ben").unwrap();

    assert_eq!(store.cancel_asked(run(1)).unwrap().as_deref(), Some("ann"));
    assert_eq!(store.cancel_asked(run(2)).unwrap(), None);
}

#[test]
fn releases_are_in_the_order_in_which_they_went_live() {
    let store = Store::in_memory().unwrap();
    for name in ["v1", "v2", "v3"] {
        store.put_release(&release(name, "x")).unwrap();
        store.mark_live(&app("shop"), &id(name), &[], &[]).unwrap();
    }
    store.mark_live(&app("shop"), &id("v1"), &[], &[]).unwrap();
    store.set_warm(&app("shop"), &id("v3"), Some(at(60))).unwrap();
    store.put_release(&release("v4", "never lived")).unwrap();

    let records = store.releases(&app("shop")).unwrap();

    let seen: Vec<_> =
        records.iter().map(|record| (record.release.id.as_str(), record.lived, record.warm_until)).collect();
    assert_eq!(
        seen,
        [("v2", true, None), ("v3", true, Some(at(60))), ("v1", true, None), ("v4", false, None)]
    );
    assert!(records.is_sorted_by(|a, b| a.sequence < b.sequence));
    assert!(store.mark_live(&app("shop"), &id("v9"), &[], &[]).is_err());
}

#[test]
fn a_release_that_lived_keeps_its_content() {
    let store = Store::in_memory().unwrap();
    let first = store.put_release(&release("v1", "before")).unwrap();
    let mut other = release("v1", "after");
    other.variables.insert("A".parse().unwrap(), cutover_core::hash::ContentHash::of(b"x"));
    let second = store.put_release(&other).unwrap();
    assert!(second > first, "one that never lived may become another");
    store.mark_live(&app("shop"), &id("v1"), &[], &[]).unwrap();

    let error = store.put_release(&release("v1", "again")).unwrap_err();
    assert_eq!(error.to_string(), "release v1 of shop/local was live with other content");
    other.bake = Duration::ZERO;
    let third = store.put_release(&other).unwrap();

    let records = store.releases(&app("shop")).unwrap();
    assert_eq!((records.len(), records[0].sequence, records[0].lived), (1, third, true));
    assert_eq!(records[0].release.bake, Duration::ZERO);
}

#[test]
fn a_restart_does_not_forget_a_breaking_migration() {
    use cutover_core::config::settings::Compatible;
    let store = Store::in_memory().unwrap();
    let migration = |database: &str, snapshot: &str| Migrated {
        database: database.parse().unwrap(),
        compatible: Compatible::Breaking,
        snapshot: Some(snapshot.to_owned()),
        schema: None,
        changed: None,
    };
    store.put_release(&release("v1", "x")).unwrap();
    let both = [migration("main", "one"), migration("jobs", "two")];
    store.mark_live(&app("shop"), &id("v1"), &both, &[]).unwrap();

    store.mark_live(&app("shop"), &id("v1"), &[], &[]).unwrap();

    let records = store.releases(&app("shop")).unwrap();
    let found: Vec<_> = records[0].migrations.iter().map(|one| (one.done.clone(), one.undone)).collect();
    assert_eq!(found, both.map(|one| (one, None)));
    assert!(records[0].migrations[0].at < records[0].sequence, "it was not carried out again");
}

#[test]
fn a_restore_undoes_what_was_migrated_since_its_snapshot() {
    use cutover_core::config::settings::Compatible;
    let store = Store::in_memory().unwrap();
    let migration = |database: &str, snapshot: &str| Migrated {
        database: database.parse().unwrap(),
        compatible: Compatible::Breaking,
        snapshot: Some(snapshot.to_owned()),
        schema: None,
        changed: None,
    };
    for (name, changes) in [
        ("v0", vec![migration("main", "zero")]),
        ("v1", vec![migration("main", "one"), migration("jobs", "two")]),
        ("v2", vec![migration("main", "three")]),
    ] {
        store.put_release(&release(name, "x")).unwrap();
        store.mark_live(&app("shop"), &id(name), &changes, &[]).unwrap();
    }

    let back = Restored { database: "main".parse().unwrap(), snapshot: "one".to_owned() };
    store.mark_live(&app("shop"), &id("v0"), &[], &[back]).unwrap();

    let records = store.releases(&app("shop")).unwrap();
    let now = records.last().unwrap().sequence;
    let mut undone: Vec<_> = records
        .iter()
        .flat_map(|record| &record.migrations)
        .map(|one| (one.done.snapshot.as_deref().unwrap(), one.undone))
        .collect();
    undone.sort_unstable();
    assert_eq!(undone, [("one", Some(now)), ("three", Some(now)), ("two", None), ("zero", None)]);
    assert!(!records.iter().flat_map(|record| &record.migrations).any(|one| one.again), "v0 does without");
}

#[test]
fn a_migration_that_is_taken_back_is_undone_and_no_other_and_saying_it_again_changes_nothing() {
    let store = Store::in_memory().unwrap();
    let migration = |database: &str| Migrated {
        database: database.parse().unwrap(),
        compatible: cutover_core::config::settings::Compatible::Breaking,
        snapshot: None,
        schema: None,
        changed: None,
    };
    for (name, changes) in [("v1", vec![]), ("v2", vec![migration("main"), migration("jobs")])] {
        store.put_release(&release(name, "x")).unwrap();
        store.mark_live(&app("shop"), &id(name), &changes, &[]).unwrap();
    }
    let of = |name: &str| {
        let records = store.releases(&app("shop")).unwrap();
        records.into_iter().find(|record| record.release.id == id(name)).unwrap()
    };
    let at = of("v2").migrations[0].at;
    let back = [Undone { release: id("v2"), database: "main".parse().unwrap(), at }];

    store.undo_migrations(&app("shop"), &back).unwrap();
    store.mark_live(&app("shop"), &id("v1"), &[], &[]).unwrap();
    store.undo_migrations(&app("shop"), &back).unwrap();

    let undone: Vec<_> = of("v2").migrations.iter().map(|one| one.undone).collect();
    assert_eq!(undone, [Some(of("v1").sequence), None]);
}

#[test]
fn a_snapshot_of_the_present_brings_back_what_a_restore_had_undone() {
    let store = Store::in_memory().unwrap();
    let hash = cutover_core::hash::ContentHash::of(b"present");
    store.put_release(&release("v1", "x")).unwrap();
    let migration = Migrated {
        database: "main".parse().unwrap(),
        compatible: cutover_core::config::settings::Compatible::Expand,
        snapshot: Some("before".to_owned()),
        schema: None,
        changed: None,
    };
    store.mark_live(&app("shop"), &id("v1"), &[migration], &[]).unwrap();
    let restored = |file: &str| Restored { database: "main".parse().unwrap(), snapshot: file.to_owned() };
    let has = || store.releases(&app("shop")).unwrap()[0].migrations.iter().any(|one| one.undone.is_none());

    store.put_snapshot(&app("shop"), "present", Some(&hash)).unwrap();
    store.mark_live(&app("shop"), &id("v1"), &[], &[restored("before")]).unwrap();
    assert!(!has(), "it is from before the migration");
    assert!(
        store.releases(&app("shop")).unwrap()[0].migrations[0].again,
        "and v1, which stays live, needs that"
    );
    store.mark_live(&app("shop"), &id("v1"), &[], &[restored("present")]).unwrap();
    assert!(has(), "and this one from after it");
    store.mark_live(&app("shop"), &id("v1"), &[], &[restored("nobody knows")]).unwrap();
    assert!(has());
    assert_eq!(store.snapshot_hashes(&app("shop")).unwrap(), [("present".to_owned(), hash)].into());
}

#[test]
fn what_a_server_had_counted_is_kept_with_its_snapshot() {
    let store = Store::in_memory().unwrap();
    store.put_snapshot(&app("shop"), "main_2031", None).unwrap();
    assert_eq!(store.row_counts("main_2031").unwrap(), None);
    let tables = [("entries".to_owned(), 42)].into();
    let counts = crate::ports::RowCounts { from: "16384".to_owned(), tables };

    store.put_row_counts("main_2031", &counts).unwrap();
    // It is put on record again where its run was killed and goes on.
    store.put_snapshot(&app("shop"), "main_2031", None).unwrap();

    assert_eq!(store.row_counts("main_2031").unwrap(), Some(counts));
    assert_eq!(store.row_counts("main_2032").unwrap(), None);
}

#[test]
fn a_snapshot_out_of_a_backup_has_the_migrations_of_the_release_that_it_is_of() {
    let store = Store::in_memory().unwrap();
    let hash = cutover_core::hash::ContentHash::of(b"of v1");
    for name in ["v1", "v2"] {
        store.put_release(&release(name, "x")).unwrap();
        store.mark_live(&app("shop"), &id(name), &[], &[]).unwrap();
    }
    let v1 =
        store.releases(&app("shop")).unwrap().iter().find(|one| one.release.id == id("v1")).unwrap().sequence;

    for (file, of) in [("main_v1", "v1"), ("main_v9", "v9")] {
        store.put_recalled(&app("shop"), file, &hash, &id(of)).unwrap();
    }

    let known = store.snapshot_moments(&app("shop")).unwrap();
    assert_eq!(known, [("main_v1".to_owned(), v1)].into(), "v9 is on no record");
}

#[test]
fn what_is_forgotten_is_gone_and_the_history_stays() {
    let store = Store::in_memory().unwrap();
    for name in ["v1", "v2"] {
        store.put_release(&release(name, "x")).unwrap();
    }
    begun(&store, [1]);
    assert_eq!(store.apps().unwrap(), [app("shop")]);
    store.finish_run(&verdict(1, Outcome::Done)).unwrap();

    store.forget_release(&app("shop"), &id("v1")).unwrap();
    assert_eq!(store.releases(&app("shop")).unwrap().len(), 1);
    store.forget_app(&app("shop")).unwrap();

    assert_eq!(store.apps().unwrap(), []);
    assert_eq!(store.verdicts(&app("shop"), 9).unwrap().len(), 1);
}

#[test]
fn journals_of_runs_long_over_go_and_their_verdicts_stay() {
    let store = Store::in_memory().unwrap();
    begun(&store, 1..=5);
    for number in 1..=5 {
        store.append(run(number), at(0), &note("")).unwrap();
    }
    for number in [1, 2, 4] {
        store.finish_run(&verdict(number, Outcome::Done)).unwrap();
    }

    assert_eq!(store.forget_runs(&app("shop"), 3).unwrap(), [run(1), run(2)]);
    assert_eq!(store.forget_runs(&app("shop"), 0).unwrap(), [run(4)], "one that is not over stays");
    assert_eq!(store.forget_runs(&app("shop"), 0).unwrap(), []);

    assert_eq!(store.entries(run(1), 0).unwrap(), []);
    assert_eq!(store.entries(run(3), 0).unwrap().len(), 1);
    assert_eq!(store.verdicts(&app("shop"), 9).unwrap().len(), 3);
}

mod on_disk {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn root() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        (folder, layout)
    }

    #[test]
    fn what_was_recorded_is_there_for_the_next_process_and_nobody_else_may_read_it() {
        let (_folder, layout) = root();
        let store = Store::open(&layout).unwrap();
        begun(&store, [1]);
        store.append(run(1), at(0), &note("kept")).unwrap();

        let other = Store::open(&layout).unwrap();
        assert_eq!(other.entries(run(1), 0).unwrap().len(), 1);
        for file in fs::read_dir(layout.state()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", file.path());
        }
    }

    #[test]
    fn only_lines_after_which_nothing_is_done_wait_for_the_disk_with_the_next() {
        const NORMAL: u32 = 1;
        const FULL: u32 = 2;
        let (_folder, layout) = root();
        let store = Store::open(&layout).unwrap();
        let level = || -> (String, u32) {
            let level = store.read(|connection| {
                Ok((
                    connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?,
                    connection.pragma_query_value(None, "synchronous", |row| row.get(0))?,
                ))
            });
            level.unwrap()
        };
        let with = |what: &What| {
            store.append(run(1), at(0), what).unwrap();
            level()
        };

        assert_eq!(level(), ("wal".to_owned(), FULL));
        begun(&store, [1]);
        assert_eq!(level().1, NORMAL);
        assert_eq!(with(&What::Intent { stage: Stage::Switch, step: Step::Switch }).1, FULL);
        assert_eq!(with(&What::Outcome { intent: 1, result: StepResult::Done }).1, NORMAL);
        assert_eq!(with(&What::Intent { stage: Stage::Switch, step: Step::Switch }).1, FULL);
        assert_eq!(with(&note("read by nobody but people")).1, NORMAL);
        assert_eq!(
            with(&What::Intent { stage: Stage::Record, step: Step::Discard { what: "x".to_owned() } }).1,
            NORMAL
        );
        assert_eq!(with(&What::Resumed { attempt: 1, why: String::new() }).1, FULL);
    }

    #[test]
    fn many_processes_open_and_write_at_once() {
        let (_folder, layout) = root();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let layout = &layout;
                scope.spawn(move || {
                    let store = Store::open(layout).unwrap();
                    for second in 0..10 {
                        store.append(run(1), at(second), &note(&format!("{number} {second}"))).unwrap();
                    }
                });
            }
        });

        let entries = Store::open(&layout).unwrap().entries(run(1), 0).unwrap();

        assert!(entries.iter().map(|entry| entry.seq).eq(1..=80));
    }

    #[test]
    fn a_newer_store_is_refused_and_stays_as_it_is() {
        let (_folder, layout) = root();
        drop(Store::open(&layout).unwrap());
        let connection = Connection::open(layout.store()).unwrap();
        connection.pragma_update(None, "user_version", 7).unwrap();
        drop(connection);
        let before = fs::read(layout.store()).unwrap();

        let error = Store::open(&layout).unwrap_err();

        assert_eq!(error.newer, Some((7, 6)));
        assert_eq!(error.to_string(), "the state database is of version 7, this cutover-host knows 6");
        assert_eq!(fs::read(layout.store()).unwrap(), before);
    }

    #[test]
    fn the_store_of_version_one_is_read() {
        let (_folder, layout) = root();
        files::ensure_folder(layout.state(), 0o700).unwrap();
        let connection = Connection::open(layout.store()).unwrap();
        connection.execute_batch(include_str!("../../fixtures/store_v1.sql")).unwrap();
        drop(connection);

        let store = Store::open(&layout).unwrap();

        let shop: AppId = "shop/production".parse().unwrap();
        let runs: Vec<_> = store.all_unfinished().unwrap().into_iter().map(|(_, run)| run).collect();
        assert_eq!(store.unfinished(&shop).unwrap(), Some(runs[0]));
        let entries = store.entries(runs[0], 0).unwrap();
        assert!(matches!(entries[0].what, What::Entered { stage: Stage::Start }), "{entries:?}");
        let records = store.releases(&shop).unwrap();
        assert_eq!((records[0].release.id.as_str(), records[0].lived), ("7f3c9e1", true));
        let migration = &records[0].migrations[0];
        assert_eq!(
            (migration.at, migration.undone),
            (records[0].sequence, None),
            "carried out when it went live"
        );
        assert_eq!(store.verdicts(&shop, 9).unwrap()[0].exit(), Exit::NotHealthy);
        assert_eq!(store.cancel_asked(runs[0]).unwrap().as_deref(), Some("ann@laptop"));
    }

    #[test]
    fn a_record_of_a_newer_format_is_told_as_such() {
        let (_folder, layout) = root();
        let store = Store::open(&layout).unwrap();
        store.append(run(1), at(0), &note("")).unwrap();
        store.write(|transaction| Ok(transaction.execute("UPDATE entries SET format = 2", [])?)).unwrap();

        assert_eq!(store.entries(run(1), 0).unwrap_err().newer, Some((2, 1)));
    }

    #[test]
    fn snapshots_have_the_order_in_which_they_were_taken() {
        let (_folder, layout) = root();
        let store = Store::open(&layout).unwrap();
        for file in ["main_2031", "main_2024", "main_2031"] {
            store.put_snapshot(&app("shop"), file, None).unwrap();
        }
        store.put_snapshot(&app("other"), "main_2025", None).unwrap();

        let known = store.snapshots(&app("shop")).unwrap();
        assert!(known["main_2031"] < known["main_2024"] && known.len() == 2, "{known:?}");
        store.forget_snapshot("main_2031").unwrap();
        assert_eq!(store.snapshots(&app("shop")).unwrap().len(), 1);
    }

    #[test]
    fn a_store_of_before_learns_the_order_of_snapshots_from_its_journals() {
        let (_folder, layout) = root();
        let store = Store::open(&layout).unwrap();
        store.begin_run(run(1), &app("shop"), Verb::Deploy, "ann", at(0)).unwrap();
        let step = Step::Snapshot { database: "main".parse().unwrap(), file: "main_2031".to_owned() };
        store.append(run(1), at(0), &What::Intent { stage: Stage::Handover, step }).unwrap();
        store
            .write(|transaction| {
                Ok(transaction
                    .execute_batch("DROP TABLE snapshots; DROP TABLE backups; PRAGMA user_version = 2")?)
            })
            .unwrap();
        drop(store);

        let store = Store::open(&layout).unwrap();

        assert_eq!(store.snapshots(&app("shop")).unwrap().into_keys().collect::<Vec<_>>(), ["main_2031"]);
    }

    /// What a run has told, as its event file has it.
    fn told(layout: &Layout, store: &Store, run: RunId, app: &AppId) {
        store.begin_run(run, app, Verb::Deploy, "ann", at(0)).unwrap();
        let events = crate::events::EventFile::open(layout, run);
        for what in [note("begins"), What::Entered { stage: Stage::Start }] {
            events.append(&store.append(run, at(0), &what).unwrap());
        }
    }

    fn aside(layout: &Layout) -> Vec<String> {
        let names = fs::read_dir(layout.state()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.contains("damaged"));
        names.sort();
        names
    }

    #[test]
    fn a_store_that_is_none_is_set_aside_and_made_anew_and_what_is_lost_is_told_once() {
        type Way = (&'static str, fn(&Path));
        let ways: [Way; 4] = [
            ("garbage", |store| fs::write(store, b"no database at all, but long enough to be one").unwrap()),
            ("cut", |store| {
                fs::OpenOptions::new().write(true).open(store).unwrap().set_len(5_000).unwrap();
            }),
            ("empty", |store| fs::write(store, b"").unwrap()),
            ("gone", |store| fs::remove_file(store).unwrap()),
        ];
        for (way, damage) in ways {
            let (_folder, layout) = root();
            files::ensure_folder(layout.run(), 0o700).unwrap();
            let store = Store::open(&layout).unwrap();
            told(&layout, &store, run(1), &app("shop"));
            drop(store);
            assert_eq!(super::super::untold(&layout), None);
            damage(&layout.store());

            let store = Store::open(&layout).unwrap_or_else(|error| panic!("{way}: {error}"));

            store.append(run(2), at(1), &note("goes on")).unwrap();
            assert_eq!(aside(&layout).len(), usize::from(way != "gone"), "{way}: {:?}", aside(&layout));
            let text = super::super::untold(&layout).unwrap();
            assert!(text.contains("made anew"), "{way}: {text}");
            drop(store);
            Store::open(&layout).unwrap();
            assert_eq!(aside(&layout).len(), usize::from(way != "gone"), "{way}: once");
            super::super::told(&layout).unwrap();
            assert_eq!(super::super::untold(&layout), None);
        }
    }

    /// A run that came to a good end, as its event file has it.
    fn went_well(layout: &Layout, number: u8, release: Release, generate: &[&str]) {
        let plan = include_str!("../../../core/fixtures/wire/asks.jsonl").lines().find_map(|line| {
            match serde_json::from_str(line).unwrap() {
                Ask::Run { plan, .. } => Some(plan),
                _ => None,
            }
        });
        let mut plan = *plan.unwrap();
        let Planned::Do(preflight) = &mut plan.preflight else { panic!("{plan:?}") };
        preflight.generate = generate.iter().map(|name| name.parse().unwrap()).collect();
        (plan.run, plan.app, plan.release) = (run(number), app("shop"), Some(release));
        let events = crate::events::EventFile::open(layout, run(number));
        let verdict = Box::new(verdict(number, Outcome::Done));
        let whats = [What::Planned { plan: Box::new(plan) }, What::Verdict { verdict }];
        for (seq, what) in (1..).zip(whats) {
            events.append(&Entry { run: run(number), seq, at: at(number.into()), what });
        }
    }

    #[test]
    fn a_release_that_lived_keeps_in_a_new_store_what_is_known_of_its_values_and_what_is_guessed_is_told() {
        let (_folder, layout) = root();
        files::ensure_folder(layout.run(), 0o700).unwrap();
        let installation = crate::installation::Installation::open(&layout).unwrap();
        let own = layout.release_env(&app("shop"), &id("v1"));
        files::ensure_folder(files::folder_of(&own), 0o700).unwrap();
        fs::write(&own, "TOKEN=\"of today\"\n").unwrap();
        let first = release("v1", "first");
        let again = Release {
            variables: [("TOKEN".parse().unwrap(), ContentHash::of(b"of another day"))].into(),
            ..first.clone()
        };
        went_well(&layout, 1, first, &["TOKEN"]);
        went_well(&layout, 2, again, &[]);

        let store = Store::open(&layout).unwrap();

        let records = store.releases(&app("shop")).unwrap();
        let today = Secret::new("of today").fingerprint(&installation.salt);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].release.variables, [("TOKEN".parse().unwrap(), today)].into());
        assert!(store.verdict(run(2)).unwrap().is_some(), "the second run is not lost for it");
        let text = super::super::untold(&layout).unwrap();
        assert!(text.contains("what was made as TOKEN of release v1 of shop/local is taken to be"), "{text}");
    }

    #[test]
    fn of_a_store_with_a_page_that_is_none_the_rest_is_read() {
        let (_folder, layout) = root();
        files::ensure_folder(layout.run(), 0o700).unwrap();
        let store = Store::open(&layout).unwrap();
        for number in 1..40 {
            store.append(run(number), at(1), &note(&"x".repeat(3_000))).unwrap();
        }
        store.put_release(&release("7f3c9e1", "first")).unwrap();
        store.mark_live(&app("shop"), &"7f3c9e1".parse().unwrap(), &[], &[]).unwrap();
        drop(store);
        let mut bytes = fs::read(layout.store()).unwrap();
        // The last pages are the entries' own.
        let from = bytes.len() - 3 * 4_096;
        bytes[from..from + 4_096].fill(0xA5);
        fs::write(layout.store(), bytes).unwrap();

        let store = Store::open(&layout).unwrap();

        let records = store.releases(&app("shop")).unwrap();
        assert_eq!((records.len(), records[0].lived), (1, true));
        assert!(store.has_begun(run(1)).unwrap(), "what can be read of the journals is there");
        assert!(super::super::untold(&layout).unwrap().contains("is damaged"));
    }

    #[test]
    fn damage_under_an_unchanged_date_is_noticed_by_who_reads_it_and_mended_by_who_comes_next() {
        let (_folder, layout) = root();
        files::ensure_folder(layout.run(), 0o700).unwrap();
        let store = Store::open(&layout).unwrap();
        for number in 1..40 {
            store.append(run(number), at(1), &note(&"x".repeat(3_000))).unwrap();
        }
        drop(store);
        // It is looked through, and noted as it is now.
        drop(Store::open(&layout).unwrap());
        let modified = fs::metadata(layout.store()).unwrap().modified().unwrap();
        let mut bytes = fs::read(layout.store()).unwrap();
        let from = bytes.len() - 3 * 4_096;
        bytes[from..from + 4_096].fill(0xA5);
        fs::write(layout.store(), bytes).unwrap();
        fs::File::open(layout.store()).unwrap().set_modified(modified).unwrap();

        let store = Store::open(&layout).unwrap();
        assert_eq!(super::super::untold(&layout), None, "it looks as it did");
        let found: Vec<_> = (1..40).filter_map(|number| store.entries(run(number), 0).err()).collect();
        assert!(!found.is_empty() && found.iter().all(|error| error.damaged), "{found:?}");
        drop(store);

        let store = Store::open(&layout).unwrap();

        assert!(super::super::untold(&layout).unwrap().contains("is damaged"));
        assert!((1..40).all(|number| store.entries(run(number), 0).is_ok()));
        drop(store);
        assert_eq!(aside(&layout).iter().filter(|name| name.ends_with("-1")).count(), 1);
        drop(Store::open(&layout).unwrap());
        assert!(!aside(&layout).iter().any(|name| name.contains("damaged-2")), "mended once");
    }

    /// A store with one release, and where a mend of it would lie.
    fn with_release(layout: &Layout) -> (std::path::PathBuf, std::path::PathBuf) {
        files::ensure_folder(layout.run(), 0o700).unwrap();
        let store = Store::open(layout).unwrap();
        told(layout, &store, run(1), &app("shop"));
        store.put_release(&release("7f3c9e1", "first")).unwrap();
        drop(store);
        let (aside, mark) = ("cutover.db.damaged-1", "store.mending");
        let aside = layout.state().join(aside);
        fs::write(layout.state().join(mark), aside.as_os_str().as_encoded_bytes()).unwrap();
        (aside, layout.state().join(mark))
    }

    #[test]
    fn a_mend_that_was_broken_off_is_taken_up_with_all_that_can_be_read() {
        // Killed before anything was set aside, and before another one was in its place.
        for is_aside in [false, true] {
            let (_folder, layout) = root();
            let (aside, mark) = with_release(&layout);
            if is_aside {
                fs::rename(layout.store(), &aside).unwrap();
            }

            let store = Store::open(&layout).unwrap();

            assert_eq!(store.releases(&app("shop")).unwrap().len(), 1, "set aside: {is_aside}");
            assert!(super::super::untold(&layout).unwrap().contains("made anew"));
            assert!(aside.exists() && !mark.exists());
        }
    }

    #[test]
    fn a_mend_that_lacked_its_last_step_only_is_not_made_again() {
        let (_folder, layout) = root();
        let (aside, mark) = with_release(&layout);
        fs::write(&aside, "what was damaged").unwrap();

        let store = Store::open(&layout).unwrap();

        assert_eq!(store.releases(&app("shop")).unwrap().len(), 1);
        assert_eq!(fs::read(&aside).unwrap(), b"what was damaged");
        assert!(!mark.exists());
    }

    #[test]
    fn on_a_full_disk_the_ballast_is_given_up_and_laid_again_when_there_is_room() {
        let (_folder, layout) = root();
        let store = Store::open(&layout).unwrap();
        assert!(layout.ballast().exists());
        let limit = |pages: u32| {
            store
                .read(|connection| {
                    Ok(connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?)
                })
                .unwrap();
        };
        limit(1);

        let error = store.append(run(1), at(0), &note(&"x".repeat(100_000))).unwrap_err();

        assert!(error.full, "{error}");
        assert!(!layout.ballast().exists());
        limit(1_000_000);
        store.append(run(1), at(0), &note(&"x".repeat(100_000))).unwrap();
        drop(Store::open(&layout).unwrap());
        assert!(layout.ballast().exists());
    }
}
