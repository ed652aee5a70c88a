//! cutover.yml: from text to a settled configuration, with all its problems at once.
//!
//! The way of a file: `tree` reads YAML with positions → `check` compares it with what the tables of `keys` and `compose_keys` know
//! → `environment` lays the chosen environment over it → `fill` fills public references → `check` again → the sections are read →
//! `cross` looks at what must fit together. No step stops at its first problem.

pub mod settings;

mod backing;
mod backup;
mod check;
mod compose;
mod compose_keys;
mod cross;
mod database;
mod demand;
mod environment;
mod fill;
mod gates;
mod host;
mod keys;
mod merge;
mod mounts;
mod problem;
mod read;
mod reference;
mod routes;
mod run;
mod schema;
mod service;
mod settle;
mod shape;
mod tree;
mod value;

pub use host::{HostFile, host_file};
pub use problem::{Problem, ProblemKind, Problems};
pub use reference::{ComposeKey, compose_table, reference_markdown};
pub use schema::schema;
pub use settle::{Selection, Sources, compose_files, env_files, environments, parse};
pub use shape::Treatment;
