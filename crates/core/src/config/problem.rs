//! A problem of a configuration, with all that is needed to point at it and to mend it. Rendered by the command line only.

use std::collections::BTreeMap;
use std::fmt;

use super::tree::Span;

/// All problems of a configuration at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The configuration file, as it is shown.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Texts of the Compose files it names, by path.
    pub others: BTreeMap<String, String>,
    /// In the order of the files.
    pub problems: Vec<Problem>,
    /// Things worth saying besides.
    pub notes: Vec<String>,
}

impl Problems {
    /// The text that a problem points into.
    pub fn text_of(&self, problem: &Problem) -> &str {
        self.others.get(&problem.file).unwrap_or(&self.text)
    }

    /// Whether the only fault is that no (known) environment was named: a matter of the command line, not of the file.
    pub fn only_environment(&self) -> bool {
        !self.problems.is_empty()
            && self.problems.iter().all(|problem| problem.kind == ProblemKind::Environment)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            problem.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In which file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In bytes of the file's text.
    pub span: std::ops::Range<usize>,
    /// Where in the configuration: `services.web.health.path`.
    pub path: String,
    /// Which sort of problem.
    pub kind: ProblemKind,
    /// What is wrong, one sentence without a full stop.
    pub what: String,
    /// What would be right here: keys or values.
    pub allowed: Vec<String>,
    /// The known key or value that is nearest to what was written.
    pub nearest: Option<String>,
    /// What to do.
    pub remedy: Option<String>,
    /// Another place that belongs to it (the first of two routes alike), line and column.
    pub also: Option<(usize, usize)>,
}

/// Which sort of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// Not YAML, or YAML that is not accepted (duplicate keys, too deep, too large).
    Syntax,
    /// A key that is not known.
    UnknownKey,
    /// Another type than expected.
    Type,
    /// The right type, but not a value of it.
    Value,
    /// Something needed is not there.
    Missing,
    /// A name that nothing has, or a `${…}` that nothing fills.
    Reference,
    /// Two things that do not go together.
    Conflict,
    /// Understood, and not done: with the reason.
    Refused,
    /// No environment named among several, or an unknown one: about the command, not the file.
    Environment,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.what)?;
        if let Some((line, column)) = self.also {
            write!(formatter, " (see {line}:{column})")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(formatter, "; did you mean `{nearest}`?")?;
        }
        if !self.allowed.is_empty() {
            write!(formatter, "\n  allowed: {}", self.allowed.join(", "))?;
        }
        if let Some(remedy) = &self.remedy {
            for (index, line) in remedy.lines().enumerate() {
                write!(formatter, "\n  {}{line}", if index == 0 { "remedy: " } else { "        " })?;
            }
        }
        Ok(())
    }
}

/// A problem on its way into [`Issues`].
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    span: Span,
    path: String,
    kind: ProblemKind,
    what: String,
    allowed: Vec<String>,
    nearest: Option<String>,
    remedy: Option<String>,
    also: Option<Span>,
}

impl Draft {
    pub(crate) fn new(kind: ProblemKind, span: Span, path: &str, what: impl Into<String>) -> Self {
        Self {
            span,
            path: path.to_owned(),
            kind,
            what: what.into(),
            allowed: Vec::new(),
            nearest: None,
            remedy: None,
            also: None,
        }
    }

    /// Says it in other words.
    pub(crate) fn says(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }

    /// What would be right, and the nearest of it to what was `found`.
    pub(crate) fn allowed<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.allowed = known.into_iter().map(str::to_owned).collect();
        self.nearest = nearest(found, self.allowed.iter().map(String::as_str)).map(str::to_owned);
        self
    }

    /// The nearest alone, of names that are too many to list.
    pub(crate) fn near<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = nearest(found, known).map(str::to_owned);
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn also(mut self, span: Span) -> Self {
        self.also = Some(span);
        self
    }
}

/// Collects problems and notes; the same problem of the same place counts once, however often the place is visited.
#[derive(Debug, Default)]
pub(crate) struct Issues {
    drafts: Vec<Draft>,
    notes: Vec<String>,
}

impl Issues {
    pub(crate) fn add(&mut self, draft: Draft) {
        if !self.drafts.iter().any(|known| known.span == draft.span && known.what == draft.what) {
            self.drafts.push(draft);
        }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Forgets the notes about places that begin so.
    pub(crate) fn forget_notes(&mut self, places: &[String]) {
        self.notes.retain(|note| !places.iter().any(|place| note.starts_with(&format!("`{place}."))));
    }

    /// Whether a problem was found directly at a key of this path: then what seems missing there may only be misspelt.
    pub(crate) fn has_at(&self, path: &str) -> bool {
        let below = |draft: &Draft| match path {
            "" => !draft.path.contains('.'),
            _ => draft.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')),
        };
        let told = |draft: &Draft| draft.kind != ProblemKind::Missing && !draft.path.is_empty();
        self.drafts.iter().any(|draft| told(draft) && below(draft))
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.drafts.is_empty()
    }

    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes
    }

    /// Gives the problems their files' names, in the order of files and positions.
    pub(crate) fn finish(mut self, files: &[(String, String)]) -> Problems {
        self.drafts.sort_by_key(|draft| (draft.span.file, draft.span.start, draft.kind));
        let (file, text) = files[0].clone();
        let problems = self.drafts.into_iter().map(|draft| draft.finish(files)).collect();
        Problems { file, text, others: files[1..].iter().cloned().collect(), problems, notes: self.notes }
    }
}

impl Draft {
    fn finish(self, files: &[(String, String)]) -> Problem {
        Problem {
            file: files.get(self.span.file).map(|(name, _)| name.clone()).unwrap_or_default(),
            line: self.span.line,
            column: self.span.column,
            span: self.span.start..self.span.end,
            path: self.path,
            kind: self.kind,
            what: self.what,
            allowed: self.allowed,
            nearest: self.nearest,
            remedy: self.remedy,
            also: self.also.map(|span| (span.line, span.column)),
        }
    }
}

/// The known word nearest to `found`, where one is near enough to be meant.
fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = match found.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    let lower = found.to_ascii_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::osa_distance(&lower, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= most && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named_only_when_it_is_near() {
        let known = ["health", "healthcheck", "port", "ports", "route"];
        assert_eq!(nearest("helth", known), Some("health"));
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("Route", known), Some("route"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
