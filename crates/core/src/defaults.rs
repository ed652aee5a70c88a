//! Every timeout, interval and limit, in one place. Durations are wall time.

use std::time::Duration;

/// The default budget of a hold.
pub const HOLD_BUDGET: Duration = Duration::from_secs(30);
/// Requests that may wait in a hold.
pub const HOLD_REQUESTS: u32 = 1_000;
/// Bytes of request bodies that may wait in a hold.
pub const HOLD_BYTES: u64 = 64 * 1024 * 1024;
/// For requests in flight on what was replaced.
pub const DRAIN: Duration = Duration::from_secs(30);
/// For a candidate to pass its gate.
pub const GATE: Duration = Duration::from_secs(60);
/// The longest a gate, or a pause between its tries, may be.
pub const GATE_MOST: Duration = Duration::from_hours(24);
/// Between two tries of a probe.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// For one try of a probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// From the start of an instance to the first try, and between the first tries. A small app answers after some 10 ms; a try that comes too
/// soon costs a refused connection.
pub const FIRST_PROBE: Duration = Duration::from_millis(2);
/// Failures in a row until a live instance counts as unhealthy.
pub const FALL: u32 = 3;
/// Up and not restarted for so long counts as healthy where nothing else is known.
pub const STEADY: Duration = Duration::from_secs(3);
/// From the stop signal to the kill.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// Watching after the switch.
pub const BAKE: Duration = Duration::from_secs(10);
/// The longest bake.
pub const BAKE_MOST: Duration = Duration::from_mins(10);
/// Requests from which a bake's error rate counts.
pub const BAKE_REQUESTS: u64 = 20;
/// Share of 5xx, in percent, above which a bake fails (when also twice the old release's).
pub const BAKE_PERCENT: u64 = 5;
/// Releases that rollback can reach.
pub const KEEP: u32 = 5;
/// From a backup that failed to the next try.
pub const BACKUP_AGAIN: Duration = Duration::from_mins(15);
/// From one backup to the next.
pub const BACKUP_EVERY: Duration = Duration::from_hours(24);
/// For an app to keep a volume as it is until that is copied, and again to go on.
pub const BACKUP_HOOK: Duration = Duration::from_mins(1);
/// For services that are paused while a volume is copied.
pub const BACKUP_PAUSE: Duration = HOLD_BUDGET;
/// The most that a service with a route may be paused: a proxy waits a minute for an answer.
pub const BACKUP_PAUSE_ROUTED: Duration = Duration::from_secs(45);
/// The most that either may be given.
pub const BACKUP_STILL_MOST: Duration = Duration::from_hours(1);
/// For a migration.
pub const MIGRATE: Duration = Duration::from_mins(10);
/// For a command that verifies.
pub const VERIFY_COMMAND: Duration = Duration::from_secs(60);
/// For the public route to answer with the new release after the switch.
pub const VERIFY: Duration = Duration::from_secs(10);
/// Free disk below which nothing is started, in bytes.
pub const DISK_FREE: u64 = 64 * 1024 * 1024;
/// For a stage besides what its plan says. Longer than any single call may take, so that a call's own failure is told first.
pub const STAGE: Duration = Duration::from_mins(2);
/// For one act of a stage, where nothing else says how long it may take.
pub const ACT: Duration = Duration::from_secs(20);
/// For copying a database, or putting one back.
pub const DATABASE: Duration = Duration::from_mins(10);
/// For a dump of a server's database, or putting one back.
pub const DUMP: Duration = Duration::from_hours(6);
/// A dump that writes nothing for so long hangs.
pub const DUMP_SILENCE: Duration = Duration::from_mins(5);
/// Bytes of a server's database that are dumped in a second, where nothing better is known: few, since a hold waits for it.
pub const DUMP_RATE: u64 = 25 * 1024 * 1024;
/// For the records of a run, and what retention takes away.
pub const RECORD: Duration = Duration::from_mins(1);
/// For a look at the host.
pub const LOOK: Duration = Duration::from_mins(2);
/// For an engine that carries something of an app to come up, after a boot.
pub const ENGINE_UP: Duration = Duration::from_mins(2);
/// For everything an engine does in one call.
pub const ENGINE_CALL: Duration = Duration::from_secs(60);
/// For the proxy's answer on its control socket, drains apart.
pub const CONTROL_CALL: Duration = Duration::from_secs(5);
/// How often watch looks again by itself.
pub const WATCH: Duration = Duration::from_secs(5);
/// How often watch looks for runs that died.
pub const SETTLE: Duration = Duration::from_millis(500);
/// First pause before a crashed instance is started again; doubles up to [`RESTART_MOST`].
pub const RESTART_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a crashed instance is started again.
pub const RESTART_MOST: Duration = Duration::from_secs(30);
/// An instance that ran so long begins anew with the shortest pause.
pub const RESTART_STEADY: Duration = Duration::from_secs(10);
/// Restarts within [`CRASH_LOOP_WINDOW`] that make a crash loop.
pub const CRASH_LOOP: u32 = 5;
/// See [`CRASH_LOOP`].
pub const CRASH_LOOP_WINDOW: Duration = Duration::from_mins(1);
/// A log file is rotated at this size, in bytes.
pub const LOG_BYTES: u64 = 10 * 1024 * 1024;
/// Rotated files kept.
pub const LOG_FILES: u32 = 3;
/// Log lines read for a diagnosis.
pub const LOG_READ: usize = 500;
/// Log lines shown with a failure.
pub const LOG_TAIL: usize = 20;
/// How long a host that cannot be looked at is waited for until a person is told: an engine that restarts takes 5–20 s.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Tries of a recovery until a person is asked: a fault on the way back, and one of the run that lands late, each cost one or two.
pub const RECOVERIES: u32 = 4;
/// Loopback ports of plain processes, unless the host's `host.yml` says otherwise: below the usual ephemeral range (32768–60999).
pub const PORTS: &str = "20000-31999";
/// Where networks of apps are cut from, unless the host's `host.yml` says otherwise.
pub const SUBNETS: &str = "10.213.0.0/16";
/// Tries of a run to find a subnet that nobody else takes in the same moment.
pub const SUBNET_TRIES: u32 = 5;
/// Ports the proxy listens on.
pub const HTTP: u16 = 80;
/// Where an unprivileged user's proxy listens.
pub const HTTP_UNPRIVILEGED: &str = "127.0.0.1:8080";
/// For a database to tell how much was changed in it since a snapshot: who wants to go back does not wait for it.
pub const ROWS_CHANGED: Duration = Duration::from_secs(5);
/// The largest file of SQLite that is compared with a snapshot for that, in bytes: it is copied into memory.
pub const COMPARED: u64 = 64 * 1024 * 1024;
/// The shortest time for which snapshots can be kept: a rollback that comes at once finds the one before.
pub const SNAPSHOT_KEEP_LEAST: Duration = Duration::from_hours(1);
/// The longest.
pub const SNAPSHOT_KEEP_MOST: Duration = Duration::from_hours(365 * 24);
/// Snapshots kept for each database besides those that rollback needs, where no time is given for which they stay.
pub const SNAPSHOTS: u32 = 10;
/// Runs whose journals and events are kept, for each app.
pub const RUNS: u32 = 100;
/// Those that `prune` leaves.
pub const RUNS_PRUNED: u32 = 20;
/// What was on its way and has not changed for so long has no writer any more.
pub const STAGED: Duration = Duration::from_hours(24);
/// The largest cutover.yml, in bytes.
pub const CONFIGURATION_BYTES: u64 = 1024 * 1024;
/// For a session to answer the first message.
pub const GREETING: Duration = Duration::from_secs(10);
/// For one on a server, where ssh has to get there first and has nobody to ask.
pub const GREETING_OF_SERVER: Duration = Duration::from_secs(40);
/// For one on a server, where a person may have to type a passphrase or touch a key.
pub const GREETING_OF_SERVER_WITH_PERSON: Duration = Duration::from_secs(150);
/// How often a client at the other end of a network gives a sign of life.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(4);
/// A client that was silent for so long has left.
pub const SILENCE: Duration = Duration::from_secs(15);
/// Bytes of one direction of a tunnelled connection that may be on their way.
pub const TUNNEL_WINDOW: u64 = 256 * 1024;
/// How long `--wait` waits for the lock.
pub const LOCK_WAIT: Duration = Duration::from_mins(30);
