//! What a deploy is and what should happen: pure. No clock, chance, environment, file, process or network; what it needs of them comes
//! in as data.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(missing_docs)]

pub mod addresses;
pub mod artifact;
pub mod backup;
pub mod bake;
pub mod config;
pub mod defaults;
pub mod diagnosis;
pub mod drift;
pub mod env_file;
pub mod event;
pub mod exit;
pub mod failure;
pub mod gate;
pub mod hash;
pub mod journal;
pub mod layout;
mod millis;
pub mod named;
pub mod names;
mod one_or_more;
pub mod plan;
pub mod recover;
pub mod rehearsal;
pub mod release;
pub mod request;
pub mod retention;
pub mod rules;
pub mod secret;
pub mod setup;
pub mod state;
pub mod template;
pub mod variables;
pub mod verdict;
pub mod wire;
