//! What a migration did to a scratch database: how long it took, which locks it held, what it made of the schema. From samples to findings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::state::SchemaChange;

/// What a rehearsal on a scratch database found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Findings {
    /// The snapshot's file name that the scratch database was made of.
    pub snapshot: String,
    /// Bytes of the scratch database before the migration.
    pub bytes: u64,
    /// How long the snapshot took to come back, in milliseconds.
    pub restored_ms: u64,
    /// How long the migration took, in milliseconds; `None`: nothing was pending, and nothing was run.
    pub migrated_ms: Option<u64>,
    /// The locks of tables that it held or waited for, as far as they were seen; `None`: the server does not tell.
    pub locks: Option<Vec<TableLock>>,
    /// What the migration's tool says of its version.
    pub schema: SchemaChange,
    /// What of the schema is otherwise than before, by object.
    pub differences: Vec<Difference>,
}

impl Findings {
    /// The same, with what the database itself says of its things put through `told`: names, definitions, defaults.
    #[must_use]
    pub fn map_text(mut self, told: impl Fn(&str) -> String) -> Self {
        for lock in self.locks.iter_mut().flatten() {
            lock.table = told(&lock.table);
        }
        for Difference { object, before, after } in &mut self.differences {
            *object = told(object);
            for text in [before, after].into_iter().flatten() {
                *text = told(text);
            }
        }
        self
    }
}

/// The strongest lock of one table that a migration held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableLock {
    /// Which table.
    pub table: String,
    /// In the server's own word: `AccessExclusiveLock`, `SHARED_NO_WRITE` …; empty: the server tells only that it was waited for.
    pub mode: String,
    /// How long one holder had a lock of that strength at most, in milliseconds, as seen.
    pub held_ms: u64,
    /// How long it waited for one of any strength at most, in milliseconds, as seen.
    pub waited_ms: u64,
}

/// One thing of a schema that is otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which: `column entries.mark`.
    pub object: String,
    /// What it was; `None`: it was not there. Empty, where the server does not say.
    pub before: Option<String>,
    /// What it is; `None`: it is gone.
    pub after: Option<String>,
}

/// What is otherwise between two looks at a schema, by name of the object.
pub fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differs
        .map(|name| Difference {
            object: name.clone(),
            before: before.get(name).cloned(),
            after: after.get(name).cloned(),
        })
        .collect()
}

/// One look at the locks of a database's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LockSample {
    /// The server's clock, in milliseconds.
    pub at_ms: u64,
    /// All of them at that moment.
    pub locks: Vec<SeenLock>,
}

/// A lock at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SeenLock {
    /// Which transaction of `PostgreSQL`, or session of `MariaDB` or `MySQL`.
    pub holder: String,
    /// Of which table.
    pub table: String,
    /// Its mode, in the server's own word.
    pub mode: String,
    /// It has it; else it waits.
    pub granted: bool,
}

/// The modes of `PostgreSQL`, the weakest first.
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// Those of metadata locks in `MariaDB` and `MySQL`, the weakest first.
const METADATA_MODES: [&str; 11] = [
    "INTENTION_EXCLUSIVE",
    "SHARED",
    "SHARED_HIGH_PRIO",
    "SHARED_READ",
    "SHARED_WRITE_LOW_PRIO",
    "SHARED_WRITE",
    "SHARED_UPGRADABLE",
    "SHARED_READ_ONLY",
    "SHARED_NO_WRITE",
    "SHARED_NO_READ_WRITE",
    "EXCLUSIVE",
];

/// What a lock keeps others from; `None`: neither from reading nor from writing.
pub fn keeps_out(mode: &str) -> Option<&'static str> {
    match mode {
        "AccessExclusiveLock" | "SHARED_NO_READ_WRITE" | "EXCLUSIVE" => {
            Some("nobody reads or writes it meanwhile")
        }
        "ShareLock" | "ShareRowExclusiveLock" | "ExclusiveLock" | "SHARED_READ_ONLY" | "SHARED_NO_WRITE" => {
            Some("nobody writes it meanwhile")
        }
        _ => None,
    }
}

/// A mode that is not known counts as the strongest.
fn strength(mode: &str) -> usize {
    let among = |modes: &[&str]| modes.iter().position(|known| *known == mode);
    among(&MODES).or_else(|| among(&METADATA_MODES)).unwrap_or(usize::MAX)
}

/// Adds samples up.
#[derive(Debug, Clone, Default)]
pub struct LockTally {
    /// Since when each lock is there without a break, by transaction, table, mode and whether it waits.
    open: BTreeMap<(String, String, String, bool), u64>,
    /// The longest of each, by table, mode and whether it waits.
    longest: BTreeMap<(String, String, bool), u64>,
}

impl LockTally {
    /// One more look. What was there at two looks is taken for having been there in between, and what was not at this one for having been until it.
    pub fn add(&mut self, sample: &LockSample) {
        let key =
            |lock: &SeenLock| (lock.holder.clone(), lock.table.clone(), lock.mode.clone(), lock.granted);
        let now: BTreeMap<_, u64> = sample
            .locks
            .iter()
            .map(key)
            .map(|key| {
                let since = self.open.get(&key).copied().unwrap_or(sample.at_ms);
                (key, since)
            })
            .collect();
        let before = std::mem::replace(&mut self.open, now);
        for (key, since) in before.into_iter().chain(self.open.clone()) {
            let (_, table, mode, granted) = key;
            let longest = self.longest.entry((table, mode, granted)).or_default();
            *longest = (*longest).max(sample.at_ms.saturating_sub(since));
        }
    }

    /// The strongest lock of each table that was held or waited for, the strongest first.
    pub fn into_locks(self) -> Vec<TableLock> {
        let mut tables: BTreeMap<String, TableLock> = BTreeMap::new();
        for ((table, mode, granted), ms) in self.longest {
            let lock = tables.entry(table.clone()).or_insert_with(|| TableLock {
                table,
                mode: mode.clone(),
                held_ms: 0,
                waited_ms: 0,
            });
            if strength(&mode) > strength(&lock.mode) {
                lock.mode = mode;
                lock.held_ms = 0;
            } else if strength(&mode) < strength(&lock.mode) {
                lock.waited_ms = lock.waited_ms.max(if granted { 0 } else { ms });
                continue;
            }
            if granted {
                lock.held_ms = lock.held_ms.max(ms);
            } else {
                lock.waited_ms = lock.waited_ms.max(ms);
            }
        }
        let mut locks: Vec<TableLock> = tables.into_values().collect();
        locks.sort_by(|one, other| {
            (strength(&other.mode), other.held_ms, &one.table).cmp(&(
                strength(&one.mode),
                one.held_ms,
                &other.table,
            ))
        });
        locks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, locks: &[(&str, &str, &str, bool)]) -> LockSample {
        let seen = |(holder, table, mode, granted): &(&str, &str, &str, bool)| SeenLock {
            holder: (*holder).to_owned(),
            table: (*table).to_owned(),
            mode: (*mode).to_owned(),
            granted: *granted,
        };
        LockSample { at_ms, locks: locks.iter().map(seen).collect() }
    }

    fn tallied(samples: &[LockSample]) -> Vec<TableLock> {
        let mut tally = LockTally::default();
        for sample in samples {
            tally.add(sample);
        }
        tally.into_locks()
    }

    #[test]
    fn given_samples_then_the_strongest_lock_of_each_table_is_told_with_its_longest_time() {
        let strong = ("3/7", "entries", "AccessExclusiveLock", true);
        let locks = tallied(&[
            sample(1_000, &[]),
            sample(1_020, &[("3/7", "entries", "AccessShareLock", true), strong]),
            sample(
                1_320,
                &[("3/7", "entries", "AccessShareLock", true), strong, ("3/7", "marks", "ShareLock", true)],
            ),
            sample(1_340, &[]),
            // Another transaction, for less long.
            sample(1_400, &[("3/8", "entries", "AccessExclusiveLock", true)]),
            sample(1_420, &[]),
        ]);

        let lock = |table: &str, mode: &str, held_ms| TableLock {
            table: table.to_owned(),
            mode: mode.to_owned(),
            held_ms,
            waited_ms: 0,
        };
        assert_eq!(locks, [lock("entries", "AccessExclusiveLock", 320), lock("marks", "ShareLock", 20)]);
    }

    #[test]
    fn given_metadata_locks_then_the_one_that_keeps_others_out_is_told() {
        let locks = tallied(&[
            sample(0, &[("7", "entries", "SHARED_UPGRADABLE", true), ("7", "marks", "SHARED_WRITE", true)]),
            sample(20, &[("7", "entries", "SHARED_NO_WRITE", true), ("7", "marks", "SHARED_READ", true)]),
            sample(320, &[("7", "entries", "SHARED_NO_WRITE", true)]),
            sample(340, &[]),
        ]);

        let told: Vec<_> =
            locks.iter().map(|lock| (lock.table.as_str(), lock.mode.as_str(), lock.held_ms)).collect();
        assert_eq!(told, [("entries", "SHARED_NO_WRITE", 320), ("marks", "SHARED_WRITE", 20)]);
        assert_eq!(keeps_out(&locks[0].mode), Some("nobody writes it meanwhile"));
        assert_eq!(keeps_out(&locks[1].mode), None);
    }

    #[test]
    fn given_a_lock_that_is_waited_for_then_that_is_told_apart_from_holding_it() {
        let locks = tallied(&[
            sample(
                0,
                &[
                    ("4/1", "entries", "AccessExclusiveLock", false),
                    ("4/1", "entries", "AccessShareLock", true),
                ],
            ),
            sample(500, &[("4/1", "entries", "AccessExclusiveLock", true)]),
            sample(700, &[]),
        ]);

        assert_eq!(locks.len(), 1);
        assert_eq!((locks[0].held_ms, locks[0].waited_ms), (200, 500));
    }

    #[test]
    fn given_a_value_among_what_the_database_says_then_all_of_it_goes_through_whoever_takes_it_out() {
        let lock = TableLock {
            table: "t_hunter2".to_owned(),
            mode: "ShareLock".to_owned(),
            held_ms: 1,
            waited_ms: 0,
        };
        let differs = Difference {
            object: "trigger t.hunter2".to_owned(),
            before: Some("default 'hunter2'".to_owned()),
            after: Some("EXECUTE FUNCTION tell('hunter2')".to_owned()),
        };
        let found = Findings { locks: Some(vec![lock]), differences: vec![differs], ..Findings::default() };

        let told = found.map_text(|text| text.replace("hunter2", "[redacted]"));

        let text = serde_json::to_string(&told).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.matches("[redacted]").count(), 4);
    }

    #[test]
    fn what_is_new_changed_or_gone_is_a_difference() {
        let of = |all: &[(&str, &str)]| {
            all.iter()
                .map(|(name, says)| ((*name).to_owned(), (*says).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let before = of(&[("column t.a", "text"), ("column t.b", "text"), ("index t_a", "on a")]);
        let after = of(&[("column t.a", "text"), ("column t.b", "integer"), ("column t.c", "text")]);

        let found = differences(&before, &after);

        let told: Vec<_> = found
            .iter()
            .map(|one| (one.object.as_str(), one.before.as_deref(), one.after.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("column t.b", Some("text"), Some("integer")),
                ("column t.c", None, Some("text")),
                ("index t_a", Some("on a"), None),
            ]
        );
    }
}
