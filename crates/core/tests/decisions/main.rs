//! Decisions as a whole: plans made from a host, carried out in part, and what recovery makes of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backing;
mod backups;
mod databases;
mod drift;
mod passwords;
mod recovery;
mod rehearsals;
mod rollback;
mod services;
mod snapshots;
mod verdicts;
mod world;
