//! Databases that lie on this host as files.

mod content;
mod openers;
pub mod sqlite;
