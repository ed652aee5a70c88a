//! Effects on a server: carries out plans behind narrow ports.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod file_system;
pub mod files;
pub mod lock;
pub mod ports;
pub mod store;
