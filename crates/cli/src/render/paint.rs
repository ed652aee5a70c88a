//! The few colours there are, by meaning.

use std::fmt::Display;

use clap::builder::styling::{AnsiColor, Style};

const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const NAME: Style = AnsiColor::Cyan.on_default();
const STRONG: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();

/// Something failed.
pub(super) fn bad(text: impl Display) -> String {
    styled(BAD, text)
}

/// Something went as it should.
pub(super) fn good(text: impl Display) -> String {
    styled(GOOD, text)
}

/// Something wants a look.
pub(super) fn warn(text: impl Display) -> String {
    styled(WARN, text)
}

/// The name of a thing.
pub(super) fn name(text: impl Display) -> String {
    styled(NAME, text)
}

/// A word that leads a part.
pub(super) fn strong(text: impl Display) -> String {
    styled(STRONG, text)
}

/// What is of less weight.
pub(super) fn quiet(text: impl Display) -> String {
    styled(QUIET, text)
}

fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Lines, one after the other.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// A line, or several.
    pub(super) fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// All of them.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// A table's column: the text, and blanks up to `width`. Codes of colour do not count, since the blanks stand outside.
pub(super) fn column(text: &str, width: usize, paint: impl Fn(&str) -> String) -> String {
    let blanks = width.saturating_sub(text.chars().count());
    format!("{}{}", paint(text), " ".repeat(blanks))
}

/// What people without colours read.
#[cfg(test)]
pub(crate) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}
