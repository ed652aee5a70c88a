//! What a proxy serves: table, targets, hash, control messages, figures. Pure, and without a word of deploys.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(missing_docs)]

mod check;
pub mod control;
pub mod figures;
mod find;
mod hash;
mod json;
mod table;

pub use find::{host_name, path_matches};
pub use hash::TableHash;
pub use table::{Address, Entry, Hold, Route, RouteState, RouteTable, TABLE_VERSION, TableError, Target};
