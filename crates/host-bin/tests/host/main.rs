//! The real `cutover-host`, spoken with as its clients do.
#![allow(clippy::unwrap_used)]

mod processes;
mod session;
#[path = "../support/mod.rs"]
mod support;
