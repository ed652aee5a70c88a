//! The lines of `--json`: one object each, told apart by `kind`. A new field or kind may come; none changes its meaning within a
//! version.

use std::collections::BTreeMap;
use std::fmt;

use cutover_core::drift::Drift;
use cutover_core::failure::Failure;
use cutover_core::journal::{Entry, LockHolder};
use cutover_core::names::{InstanceName, RunId, VariableName};
use cutover_core::plan::Plan;
use cutover_core::retention::KnownSnapshot;
use cutover_core::setup::Change;
use cutover_core::verdict::Verdict;
use cutover_core::wire::{BackupTold, DeployKey, Progress};
use jiff::Timestamp;
use serde::Serialize;

use super::drift::Compared;
use super::releases::ReleaseLine;
use super::status::Status;
use crate::verbs::Finding;

/// The version of these lines.
const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    /// What will be done, or would be.
    Plan { plan: &'a Plan },
    /// All is as asked for already.
    NothingToDo { plan: &'a Plan },
    /// A line of the run's journal.
    Event { entry: &'a Entry },
    /// How far what takes long is; `rate` in bytes a second.
    Progress { progress: &'a Progress, rate: u64 },
    /// The run goes on without us.
    Detached { run: RunId },
    /// The end of a run.
    Verdict { exit: u8, verdict: &'a Verdict },
    /// The verb failed outside of a run, or its run did.
    Failure { exit: u8, failure: &'a Failure },
    /// What is live, and how it is.
    Status { healthy: bool, status: &'a Status },
    /// One run of the past.
    Run { verdict: &'a Verdict },
    /// A release on record.
    Release { release: &'a ReleaseLine },
    /// A line of an instance's output.
    Log { instance: &'a InstanceName, at: Option<Timestamp>, error: bool, text: &'a str },
    /// The names in the host's env file, values masked.
    Variables { masked: &'a BTreeMap<VariableName, String> },
    /// Who holds the lock.
    Lock { holder: Option<&'a LockHolder> },
    /// The configuration is good.
    Checked { file: &'a str, environments: &'a [String], notes: &'a [String] },
    /// One problem of the configuration.
    Problem {
        file: &'a str,
        line: usize,
        column: usize,
        path: &'a str,
        what: &'a str,
        allowed: &'a [String],
        nearest: Option<&'a str>,
        remedy: Option<&'a str>,
    },
    /// A change of a server.
    Setup { change: &'a Change, done: bool },
    /// A line for people.
    Told { text: &'a str },
    /// What became of work on backups.
    Backup { told: &'a BackupTold },
    /// A snapshot that lies on the host.
    Snapshot { snapshot: &'a KnownSnapshot },
    /// A key that may deploy.
    Key { key: &'a DeployKey },
    /// A host has an image that it lacked: so many of its layers crossed, in so many bytes as they were sent.
    Shipped { image: &'a str, layers: usize, bytes: u64, millis: u64 },
    /// A host has files that it lacked: so many of their chunks crossed, in so many bytes as they were sent.
    ShippedFiles { files: &'a str, chunks: usize, bytes: u64, millis: u64 },
    /// One thing that doctor looked at.
    Finding { finding: &'a Finding },
    /// A tunnel is there.
    Tunnel { listening: std::net::SocketAddr, leads_to: std::net::SocketAddr },
    /// One thing that is otherwise than recorded.
    Drift { drift: &'a Drift },
    /// A variable of the local env file beside the host's.
    Variable { name: &'a VariableName, compared: Compared },
    /// What was asked for was done.
    Done,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[derive(Serialize)]
        struct Versioned<'a, T> {
            version: u32,
            #[serde(flatten)]
            line: &'a T,
        }
        let text = serde_json::to_string(&Versioned { version: VERSION, line: self });
        formatter.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_version_and_its_kind_in_front() {
        assert_eq!(Line::Done.to_string(), r#"{"version":1,"kind":"done"}"#);
        let names = BTreeMap::from([("TOKEN".parse().unwrap(), "••••".to_owned())]);
        assert_eq!(
            Line::Variables { masked: &names }.to_string(),
            r#"{"version":1,"kind":"variables","masked":{"TOKEN":"••••"}}"#
        );
    }
}
