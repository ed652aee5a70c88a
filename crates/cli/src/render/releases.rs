//! What was: runs with their verdicts, releases that can be reached, who holds the lock, what the host's env file has.

use std::collections::BTreeMap;

use cutover_core::journal::LockHolder;
use cutover_core::names::{AppId, InstanceName, ReleaseId, VariableName};
use cutover_core::state::HostState;
use cutover_core::verdict::{Outcome, Verdict};
use jiff::Timestamp;
use serde::Serialize;

use super::time::{ago, moment, span};
use super::{harmless_line, paint};

/// A release on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ReleaseLine {
    release: ReleaseId,
    /// It is live now.
    live: bool,
    created: Timestamp,
    commit: Option<String>,
    subject: Option<String>,
    version: Option<String>,
    /// Databases that a breaking migration of this release changed.
    breaking: Vec<String>,
}

/// The releases that were live, newest first: those that rollback reaches, and the one that is live.
pub(crate) fn releases(state: &HostState) -> Vec<ReleaseLine> {
    use cutover_core::config::settings::Compatible;
    let live = state.live.as_ref().map(|live| &live.release);
    let lived = state.releases.iter().rev().filter(|record| record.lived);
    lived
        .map(|record| ReleaseLine {
            release: record.release.id.clone(),
            live: live == Some(&record.release.id),
            created: record.release.created,
            commit: record.release.source.commit.clone(),
            subject: record.release.source.subject.clone(),
            version: record.release.source.version.clone(),
            breaking: record
                .migrations
                .iter()
                .filter(|migration| {
                    migration.undone.is_none() && migration.done.compatible == Compatible::Breaking
                })
                .map(|migration| migration.done.database.to_string())
                .collect(),
        })
        .collect()
}

impl ReleaseLine {
    /// As people read it.
    pub(crate) fn text(&self) -> String {
        let mark = if self.live { paint::good("live") } else { "    ".to_owned() };
        let commit = self.commit.as_deref().map(|commit| commit[..commit.len().min(7)].to_owned());
        let breaking = (!self.breaking.is_empty())
            .then(|| format!("(broke with the schema before it: {})", self.breaking.join(", ")));
        let facts: Vec<String> =
            [self.version.clone(), commit, self.subject.clone(), breaking].into_iter().flatten().collect();
        let id = paint::column(self.release.as_str(), 16, |id| paint::name(id));
        format!("{mark} {id} {} {}", moment(self.created), facts.join(" ")).trim_end().to_owned()
    }
}

/// One run of the past.
pub(crate) fn history(verdict: &Verdict) -> String {
    let outcome = match &verdict.outcome {
        Outcome::Done => paint::good("done"),
        Outcome::Failed { failure } => {
            format!("{} {}", paint::bad(format!("exit {}:", failure.exit.code())), failure.what)
        }
    };
    let release = verdict.release.as_ref().map_or("-", ReleaseId::as_str);
    let allowed: Vec<&str> = verdict.allowed.iter().map(|rule| rule.as_str()).collect();
    let allowed =
        if allowed.is_empty() { String::new() } else { format!(" [allowed: {}]", allowed.join(", ")) };
    format!(
        "{} {} {} {} {outcome}{allowed}",
        moment(verdict.started),
        paint::column(verdict.verb.as_str(), 10, |verb| paint::strong(verb)),
        paint::column(release, 16, |id| paint::name(id)),
        paint::column(
            &format!("{} by {}", span(verdict.took()), harmless_line(&verdict.by)),
            24,
            str::to_owned
        ),
    )
}

/// Who holds the lock.
pub(crate) fn lock(app: &AppId, holder: Option<&LockHolder>, now: Timestamp) -> String {
    match holder {
        None => format!("nobody holds the lock of {app}"),
        Some(holder) => format!(
            "{} holds the lock of {app} since {} ({}): {}, run {}, process {}",
            paint::strong(harmless_line(&holder.by)),
            moment(holder.since),
            ago(holder.since, now),
            holder.verb.as_str(),
            holder.run,
            holder.pid
        ),
    }
}

/// The host's env file, values masked.
pub(crate) fn variables(masked: &BTreeMap<VariableName, String>) -> String {
    if masked.is_empty() {
        return "the host's env file has no variables".to_owned();
    }
    let width = masked.keys().map(|name| name.as_str().len()).max().unwrap_or_default();
    let lines: Vec<String> = masked
        .iter()
        .map(|(name, mask)| {
            format!("{} {mask}", paint::column(name.as_str(), width, |name| paint::name(name)))
        })
        .collect();
    lines.join("\n")
}

/// A line of an instance's output.
pub(crate) fn log_line(instance: &InstanceName, text: &str) -> String {
    format!("{} {}", paint::name(instance), harmless_line(text))
}
