//! What was asked: the command line as data, and what the client found in the repository. No clap type goes deeper than this.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::hash::ContentHash;
use crate::names::{DatabaseName, ReleaseId, RunId, ServiceName, VariableName};
use crate::plan::{Rule, Verb};
use crate::release::{Content, Provenance, Shipped};

/// What was asked, of whatever verb makes a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Which.
    pub verb: Verb,
    /// Who asks: user and machine.
    pub by: String,
    /// Restrict `stop`, `start`, `restart` to these; empty: all.
    pub services: BTreeSet<ServiceName>,
    /// `deploy`: where the release comes from.
    pub source: Provenance,
    /// `deploy`: what each service and backing service is made of, as far as the client knows; images not yet built are absent.
    pub contents: BTreeMap<ServiceName, Content>,
    /// `deploy`: the files of the repository that are mounted, by their path beside cutover.yml.
    pub shipped: BTreeMap<String, Shipped>,
    /// `deploy`: how the commit stands to the live one.
    pub ancestry: Ancestry,
    /// `deploy`: hashes of what the client sends along over the host's env file (local file, process environment, `-v`).
    pub overlay: BTreeMap<VariableName, ContentHash>,
    /// `env set|unset`: names that go.
    pub unset: BTreeSet<VariableName>,
    /// `rollback --to`.
    pub to: Option<ReleaseId>,
    /// `rollback --restore-db`: put the databases back to the snapshot before the migration.
    pub restore_databases: bool,
    /// `rollback --migrate-down`: take the migrations back by their own `down` commands.
    pub migrate_down: bool,
    /// `deploy --skip-migrations`.
    pub skip_migrations: bool,
    /// `--no-bake`.
    pub no_bake: bool,
    /// `deploy --all`: replace unchanged services, too.
    pub all: bool,
    /// `remove --volumes`.
    pub volumes: bool,
    /// `--allow RULE`.
    pub allow: BTreeSet<Rule>,
    /// `snapshot create|restore`, `migrate rehearse`.
    pub snapshot: SnapshotRequest,
}

/// What was asked of snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// `create`, `rehearse`: of which databases; empty: of all.
    pub databases: BTreeSet<DatabaseName>,
    /// `restore`: which, as `list` shows it.
    pub name: Option<String>,
    /// `restore --to`: beside the database, under this name.
    pub to: Option<String>,
}

/// How the commit to deploy stands to the live one (S27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ancestry {
    /// It comes after, or beside.
    NotOlder,
    /// It is a proper ancestor: older.
    Older,
    /// The history is not known here.
    Unknown,
}

/// Time and identity of a plan: inputs, since the core makes neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Now.
    pub now: Timestamp,
    /// The run's id.
    pub run: RunId,
}
