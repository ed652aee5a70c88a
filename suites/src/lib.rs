//! What the suites of the real thing share: the demonstration's story, and runs that are killed at a chosen step. Never shipped.

pub mod demo;
