//! The journal: a host's append-only record. Intent before each act, outcome after; and at once what people see of a run.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::hash::ContentHash;
use crate::names::{AppId, DatabaseName, InstanceName, RunId, ServiceName, VariableName};
use crate::plan::{HostPlan, Stage};
use crate::rehearsal::Findings;
use crate::state::{RestartPolicy, SchemaChange};
use crate::verdict::Verdict;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose run.
    pub run: RunId,
    /// Its place in the run, from 1, without gaps.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    pub what: What,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The plan that is being carried out; the first one is what was asked, later ones are recoveries or amendments.
    Planned {
        /// The plan.
        plan: Box<HostPlan>,
    },
    /// A stage begins.
    Entered {
        /// Which.
        stage: Stage,
    },
    /// A stage had nothing to do.
    Skipped {
        /// Which.
        stage: Stage,
        /// Why.
        why: String,
    },
    /// A stage is over.
    Left {
        /// Which.
        stage: Stage,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// About to act. Without an outcome behind it, the act may still be happening (S9).
    Intent {
        /// In which stage.
        stage: Stage,
        /// What.
        step: Step,
    },
    /// The act was done.
    Outcome {
        /// The `seq` of the intent.
        intent: u64,
        /// What came of it, where that matters later.
        result: StepResult,
    },
    /// The act failed.
    Broke {
        /// The `seq` of the intent.
        intent: u64,
        /// Why, redacted.
        error: String,
        /// Whether it may have happened all the same.
        unknown: bool,
    },
    /// A stage failed; recovery follows.
    Failed {
        /// Which.
        stage: Stage,
        /// The four answers so far; what is serving is filled in by the verdict.
        failure: Failure,
    },
    /// Somebody asked to cancel.
    CancelAsked {
        /// Who.
        by: String,
    },
    /// Something worth reading; changes nothing.
    Note {
        /// In which stage.
        stage: Stage,
        /// The sentence.
        text: String,
    },
    /// A best-effort step did not work.
    Warning {
        /// In which stage.
        stage: Stage,
        /// The sentence.
        text: String,
    },
    /// Output of a migration or a build, redacted.
    Output {
        /// Of what.
        of: String,
        /// The line.
        line: String,
    },
    /// A new process took the run over.
    Resumed {
        /// Which attempt this is, from 1.
        attempt: u32,
        /// Why.
        why: String,
    },
    /// The end.
    Verdict {
        /// The one outcome.
        verdict: Box<Verdict>,
    },
}

/// One act on the host. Each can be repeated: it looks first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Write the release's own env file and record.
    Admit,
    /// Fetch an image that the host has lost.
    Fetch {
        /// What it is called.
        image: String,
    },
    /// Make a network.
    Network {
        /// Which.
        name: String,
    },
    /// Make a volume.
    Volume {
        /// Which.
        name: String,
    },
    /// Make an instance; inert, without restart policy.
    Create {
        /// Which.
        instance: InstanceName,
    },
    /// Start it.
    Start {
        /// Which.
        instance: InstanceName,
    },
    /// Let it join the new slot's network.
    Join {
        /// Which.
        instance: InstanceName,
        /// Which network.
        network: String,
    },
    /// Let it leave the old slot's network.
    Leave {
        /// Which.
        instance: InstanceName,
        /// Which network.
        network: String,
    },
    /// Say whether it is started again by itself.
    Restart {
        /// Which.
        instance: InstanceName,
        /// Which policy.
        policy: RestartPolicy,
    },
    /// Stop it and see it gone.
    Stop {
        /// Which.
        instance: InstanceName,
    },
    /// Remove what is left of it.
    Remove {
        /// Which.
        instance: InstanceName,
    },
    /// Copy a database for its rehearsal, and migrate the copy.
    Rehearse {
        /// Which.
        database: DatabaseName,
    },
    /// Ask whether a migration of a database with a server is pending.
    Pending {
        /// Which.
        database: DatabaseName,
    },
    /// Hold the routes of these services.
    Hold {
        /// Which.
        services: Vec<ServiceName>,
    },
    /// Wait until nothing is in flight on these.
    Quiet {
        /// Which.
        instances: Vec<InstanceName>,
    },
    /// Take a snapshot.
    Snapshot {
        /// Which.
        database: DatabaseName,
        /// The file name of the snapshot.
        file: String,
    },
    /// Migrate the database itself.
    Migrate {
        /// Which.
        database: DatabaseName,
    },
    /// Look at what a migration that did not end well left in the database's server.
    Inspect {
        /// Which.
        database: DatabaseName,
    },
    /// Put a snapshot in the database's place.
    Restore {
        /// Which.
        database: DatabaseName,
        /// The file name of the snapshot.
        file: String,
    },
    /// Give a role of a backing service's server the password that a variable says.
    Password {
        /// Of which backing service.
        service: ServiceName,
        /// Which variable.
        variable: VariableName,
    },
    /// Replace the app's entry in the route table: the commit point.
    Switch,
    /// Replace the live file: the commit point of an app without routes.
    Live,
    /// Take the app's entry out of the table.
    Unroute,
    /// Remove a network, volume, release, artifact, image or file that nothing needs.
    Discard {
        /// In words.
        what: String,
    },
    /// Write the outcome of the release into the records.
    Record,
}

/// What came of an act, where that matters later.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum StepResult {
    /// It is as it should be.
    #[default]
    Done,
    /// It already was.
    Already,
    /// A rehearsal's findings.
    Rehearsed {
        /// The copy's content changed.
        pending: bool,
        /// Copying and migrating, in milliseconds.
        took_ms: u64,
    },
    /// A snapshot lies there.
    Snapshot {
        /// Its size.
        bytes: u64,
        /// Of its file; of a dump.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hash: Option<ContentHash>,
    },
    /// A database with a server was migrated.
    Migrated {
        /// What its migration tool says.
        schema: SchemaChange,
        /// Whether anything was changed; `None`: tables and the like are as they were, and nothing tells of rows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed: Option<bool>,
    },
    /// What a migration left that did not end well.
    Inspected {
        /// Tables, columns and the like differ from before it.
        changed: bool,
        /// What its migration tool says.
        schema: SchemaChange,
    },
    /// What a rehearsal on a scratch database found.
    Tried {
        /// All of it.
        findings: Box<Findings>,
    },
    /// A drain's end.
    Quiet {
        /// Requests cut at the deadline.
        left: u64,
        /// WebSockets and event streams closed.
        closed: u64,
    },
    /// Something that nothing needed is gone.
    Freed {
        /// Bytes that it took.
        bytes: u64,
    },
}

/// Who holds an app's lock: the content of the lock file, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Of what.
    pub app: AppId,
    /// The run.
    pub run: RunId,
    /// Who asked for it.
    pub by: String,
    /// What it does.
    pub verb: crate::plan::Verb,
    /// Since when.
    pub since: Timestamp,
    /// The process that holds it.
    pub pid: u32,
}
