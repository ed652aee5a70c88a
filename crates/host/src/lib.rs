//! Effects on a server: carries out plans behind narrow ports.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod assignment;
mod blocking;
pub mod database;
pub mod deploy;
pub mod events;
pub mod file_system;
pub mod files;
pub mod host;
pub mod host_file;
mod images;
pub mod installation;
pub mod journal;
mod layers;
mod lease;
mod leftovers;
mod listening;
pub mod lock;
pub mod observe;
mod parcels;
pub mod ports;
pub mod probe;
pub mod program;
mod readiness;
mod redact;
pub mod router;
pub mod run;
pub mod runtime;
pub mod session;
pub mod settle;
pub mod setup;
pub mod stages;
pub mod store;
mod tail;
pub mod up;
pub mod watch;
pub mod within;
