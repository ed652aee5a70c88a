//! What differs: between a host and its records, between two env files, and from what is needed.

use cutover_core::drift::Drift;
use cutover_core::names::VariableName;
use serde::Serialize;

use super::paint::{self, Text};
use crate::verbs::{Finding, Level};

/// How a variable of the local env file stands to the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compared {
    /// Only here.
    Added,
    /// Only on the host.
    Missing,
    /// Another value.
    Differs,
    /// The same.
    Same,
}

/// What is otherwise, and what mends it.
pub(crate) fn drift(drift: &Drift) -> String {
    let mut text = Text::default();
    text.line(format!("{} {}", paint::warn("!"), drift.what));
    text.line(format!("  {} {}", paint::strong("mend:"), drift.mend));
    text.finish()
}

/// A variable, without its value.
pub(crate) fn compared(name: &VariableName, how: Compared) -> String {
    let (word, rest) = match how {
        Compared::Added => (paint::warn("added  "), " (only here)"),
        Compared::Missing => (paint::warn("missing"), " (only on the host)"),
        Compared::Differs => (paint::warn("differs"), ""),
        Compared::Same => (paint::quiet("same   "), ""),
    };
    format!("{word}  {}{rest}", paint::name(name))
}

/// One thing that doctor looked at.
pub(crate) fn finding(finding: &Finding) -> String {
    let word = match finding.level {
        Level::Ok => paint::good("ok     "),
        Level::Warning => paint::warn("warning"),
        Level::Problem => paint::bad("problem"),
    };
    let mut text = Text::default();
    text.line(format!("{word}  {}: {}", finding.place, finding.what));
    if let Some(remedy) = &finding.remedy {
        text.line(format!("           {} {remedy}", paint::strong("next:")));
    }
    text.finish()
}
