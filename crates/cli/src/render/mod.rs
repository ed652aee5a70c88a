//! Everything a person or a program reads: the only place that prints. Data goes to standard output, talk to standard error.
//!
//! The renderers give text with colour codes in it; the streams take the codes out where nobody can see them (no terminal, `NO_COLOR`).
//! Colour never carries what the words do not say.

mod backup;
mod drift;
mod event;
mod failure;
mod harmless;
mod json;
mod paint;
mod plan;
mod problem;
mod progress;
mod rehearsal;
mod releases;
#[cfg(test)]
mod samples;
mod snapshot;
mod status;
mod time;

use std::io::{IsTerminal, Write};

pub(crate) use backup::backup;
pub(crate) use drift::{Compared, compared, drift, finding};
pub(crate) use event::size;
pub(crate) use failure::failure;
use harmless::{harmless, harmless_line};
pub(crate) use json::Line;
#[cfg(test)]
pub(crate) use paint::plain;
pub(crate) use plan::{nothing_to_do, plan};
pub(crate) use problem::{lines as problem_lines, problems};
pub(crate) use progress::{Cargo, Progress, verdict};
pub(crate) use releases::{history, lock, log_line, releases, variables};
pub(crate) use snapshot::{loss, snapshot, verified};
pub(crate) use status::{HostLine, Status, is_healthy, status};

/// How answers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// A JSON object on each line of standard output; the talk goes on beside it.
    Json,
}

/// The two streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    form: Form,
}

impl Output {
    /// The streams of this process.
    pub(crate) fn new(form: Form) -> Self {
        Self { form }
    }

    /// How answers are wanted.
    pub(crate) fn form(self) -> Form {
        self.form
    }

    /// Whether lines that move may be drawn: standard error is a terminal.
    pub(crate) fn is_live(self) -> bool {
        self.form == Form::Text && std::io::stderr().is_terminal()
    }

    /// Data, as text: what the verb was asked for. An error means that nobody reads it any more.
    pub(crate) fn data(self, text: &str) -> std::io::Result<()> {
        self.exactly(&harmless(text))
    }

    /// Data, letter by letter.
    #[expect(clippy::unused_self, reason = "callers hold the streams as a value")]
    fn exactly(self, text: &str) -> std::io::Result<()> {
        let mut stream = anstream::stdout().lock();
        stream.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            stream.write_all(b"\n")?;
        }
        stream.flush()
    }

    /// Data, as one JSON line.
    pub(crate) fn json(self, line: &Line<'_>) -> std::io::Result<()> {
        self.exactly(&line.to_string())
    }

    /// The answer in the form that was asked for.
    pub(crate) fn answer(self, line: &Line<'_>, text: impl FnOnce() -> String) -> std::io::Result<()> {
        match self.form {
            Form::Json => self.json(line),
            Form::Text => self.data(&text()),
        }
    }

    /// The answer of a verb that has nothing to say in words but what was said as talk.
    pub(crate) fn answer_json(self, line: &Line<'_>) -> std::io::Result<()> {
        if self.form == Form::Json { self.json(line) } else { Ok(()) }
    }

    /// Talk: what is going on.
    #[expect(clippy::unused_self, reason = "callers hold the streams as a value")]
    pub(crate) fn talk(self, text: &str) {
        let mut stream = anstream::stderr().lock();
        // Where nobody listens there is nobody to tell, either.
        writeln!(stream, "{}", harmless(text.trim_end_matches('\n'))).ok();
    }
}
