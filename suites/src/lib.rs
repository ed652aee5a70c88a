//! What the suites of the real thing share: the demonstration's story, and runs that are killed at a chosen step. Never shipped.

pub mod demo;
pub mod engine;
pub mod registry;
pub mod terminal;

/// The number of the journal's entry at which a run of `suite-host` ends itself with -9. Read there only.
pub const KILL_AT: &str = "CUTOVER_SUITE_KILL_AT";
/// The number of the journal's entry at which a run of `suite-host` stops itself, as a process that hangs. Read there only.
pub const STOP_AT: &str = "CUTOVER_SUITE_STOP_AT";
