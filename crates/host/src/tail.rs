//! The lines of one instance as they come: looked for again and again, each given once.

use cutover_core::names::{AppId, InstanceName};
use jiff::Timestamp;

use crate::ports::{LogLine, LogQuery, Runtime, RuntimeError, RuntimeErrorKind, Scope};

/// What was read of one instance's lines.
pub(crate) struct Tail {
    since: Option<Timestamp>,
    /// At most so many of the past.
    past: Option<usize>,
    scope: Scope,
    /// Lines of the moment `since` that were given already.
    given: usize,
}

impl Tail {
    /// From a moment on, and of the past at most so many.
    pub(crate) fn new(since: Option<Timestamp>, past: Option<usize>, scope: Scope) -> Self {
        Self { since, past, scope, given: 0 }
    }

    /// The lines that came since the last look.
    pub(crate) async fn read(
        &mut self,
        runtime: &dyn Runtime,
        app: &AppId,
        name: &InstanceName,
    ) -> Result<Vec<LogLine>, RuntimeError> {
        let query = LogQuery { since: self.since, tail: self.past, scope: self.scope };
        match runtime.logs(app, name, &query).await {
            Ok(lines) => Ok(self.take(lines)),
            // Removed since the look.
            Err(error) if error.kind == RuntimeErrorKind::Gone => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// A look from a moment on shows again what was given of that very moment.
    fn take(&mut self, lines: Vec<LogLine>) -> Vec<LogLine> {
        let again = if self.given > 0 {
            lines.iter().take_while(|line| line.at == self.since).count().min(self.given)
        } else {
            0
        };
        let new: Vec<LogLine> = lines.into_iter().skip(again).collect();
        if let Some(last) = new.iter().rev().find_map(|line| line.at) {
            let of_last = new.iter().filter(|line| line.at == Some(last)).count();
            let before = if self.since == Some(last) { self.given } else { 0 };
            (self.since, self.given) = (Some(last), before + of_last);
        }
        // From now on all that comes is wanted, however much.
        self.past = None;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, text: &str) -> LogLine {
        LogLine { at: Some(Timestamp::from_second(second).unwrap()), error: false, text: text.to_owned() }
    }

    fn texts(lines: Vec<LogLine>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    /// As a runtime answers: what is not older.
    fn from(all: &[LogLine], since: Option<Timestamp>) -> Vec<LogLine> {
        all.iter().filter(|line| line.at >= since).cloned().collect()
    }

    #[test]
    fn each_line_is_given_once_even_when_many_have_the_same_time() {
        let mut all = vec![line(1, "a"), line(2, "b"), line(2, "c")];
        let mut tail = Tail::new(None, None, Scope::All);

        assert_eq!(texts(tail.take(from(&all, tail.since))), ["a", "b", "c"]);
        assert!(tail.take(from(&all, tail.since)).is_empty());
        all.push(line(2, "d"));
        assert_eq!(texts(tail.take(from(&all, tail.since))), ["d"]);
        assert!(tail.take(from(&all, tail.since)).is_empty());
        all.push(line(3, "e"));
        assert_eq!(texts(tail.take(from(&all, tail.since))), ["e"]);
        assert!(tail.take(from(&all, tail.since)).is_empty());
    }

    #[test]
    fn a_start_that_was_asked_for_counts_its_own_moment_in() {
        let all = [line(1, "a"), line(2, "b")];
        let mut tail = Tail::new(Some(Timestamp::from_second(2).unwrap()), None, Scope::All);

        assert_eq!(texts(tail.take(from(&all, tail.since))), ["b"]);
        assert!(tail.take(from(&all, tail.since)).is_empty());
    }
}
