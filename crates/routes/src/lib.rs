//! What a proxy serves: table, targets, hash, control messages, figures. Pure, and without a word of deploys.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod control;
pub mod figures;
mod hash;
mod table;

pub use hash::TableHash;
pub use table::{Address, Entry, Hold, Route, RouteState, RouteTable, TABLE_VERSION, TableError, Target};
