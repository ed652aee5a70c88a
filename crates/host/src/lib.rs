//! Effects on a server: carries out plans behind narrow ports.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ports;
