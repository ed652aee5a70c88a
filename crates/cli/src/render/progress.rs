//! A run as it goes on: moving lines on a terminal, plain lines without one, JSON lines when asked for. The same sentences in all.

use std::time::Duration;

use cutover_core::failure::Failure;
use cutover_core::journal::Entry;
use cutover_core::plan::{Stage, Verb};
use cutover_core::verdict::{Outcome, Verdict};
use indicatif::{ProgressBar, ProgressStyle};

use super::event::{Listener, Told, Tone};
use super::json::Line;
use super::paint::{self, Text};
use super::time::span;
use super::{Form, Output};

const TICK: Duration = Duration::from_millis(80);
const STAGE_WIDTH: usize = 10;

/// Draws a run.
pub(crate) struct Progress {
    output: Output,
    listener: Listener,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Nothing drawn yet.
    pub(crate) fn new(output: Output) -> Self {
        Self { output, listener: Listener::default(), bar: output.is_live().then(spinner) }
    }

    /// The next line of the run's journal.
    pub(crate) fn entry(&mut self, entry: &Entry) -> std::io::Result<()> {
        if self.output.form() == Form::Json {
            return self.output.json(&Line::Event { entry });
        }
        match (self.listener.hear(entry), self.bar.clone()) {
            (None, _) => {}
            (Some(told), None) => self.output.talk(&plain(&told)),
            (Some(told), Some(bar)) => self.draw(&bar, &told),
        }
        Ok(())
    }

    /// Something that goes on here, before the run: its words stand until the next ones.
    pub(crate) fn doing(&mut self, word: &str, what: &str) {
        match &self.bar {
            Some(bar) => begin(bar, word, what),
            None if self.output.form() == Form::Text => {
                self.output.talk(&format!("{} {what}", stage(word)));
            }
            None => {}
        }
    }

    /// Nothing moves any more; what was drawn of movement is taken away.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn draw(&self, bar: &ProgressBar, told: &Told) {
        match told {
            Told::Begins(entered) => begin(bar, entered.as_str(), ""),
            Told::Doing(_, what) => bar.set_message(what.clone()),
            Told::Ends(left, took) => {
                self.above(&ended(*left, *took));
                bar.set_message("");
            }
            Told::Said(..) => self.above(&plain(told)),
        }
    }

    fn above(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.talk(text)),
            None => self.output.talk(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // The template is a constant that is known to be good; the default one would do as well.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:10} {wide_msg} {elapsed}") {
        bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
    bar
}

fn begin(bar: &ProgressBar, word: &str, what: &str) {
    bar.reset_elapsed();
    bar.set_prefix(word.to_owned());
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(TICK);
}

fn stage(word: &str) -> String {
    format!("  {}", paint::column(word, STAGE_WIDTH, |word| paint::name(word)))
}

fn ended(left: Stage, took: Duration) -> String {
    format!("{} {}", paint::good("✓"), format_args!("{} {}", stage(left.as_str()).trim_start(), span(took)))
}

fn plain(told: &Told) -> String {
    match told {
        Told::Begins(entered) => format!("{} …", stage(entered.as_str())),
        Told::Doing(within, what) => format!("{} {what}", stage(within.as_str())),
        Told::Ends(left, took) => format!("{} done in {}", stage(left.as_str()), span(*took)),
        Told::Said(Tone::Note, text) => format!("  {} {text}", paint::strong("note:")),
        Told::Said(Tone::Warning, text) => format!("  {} {text}", paint::warn("warning:")),
        Told::Said(Tone::Bad, text) => format!("  {} {text}", paint::bad("failed:")),
        Told::Said(Tone::Output, text) => format!("  {} {text}", paint::quiet("|")),
    }
}

/// The last words of a run that did what was asked; `Err` with the four answers of one that did not.
pub(crate) fn verdict(verdict: &Verdict) -> Result<String, Failure> {
    let mut text = Text::default();
    match &verdict.outcome {
        Outcome::Failed { failure } => return Err(failure.clone()),
        Outcome::Done => text.line(format!("{} {}", paint::good("done:"), done(verdict))),
    }
    for warning in &verdict.warnings {
        text.line(format!("  {} {warning}", paint::warn("warning:")));
    }
    Ok(text.finish())
}

fn done(verdict: &Verdict) -> String {
    let release =
        verdict.serving.as_ref().map_or_else(|| "no release".to_owned(), |id| format!("release {id}"));
    let app = &verdict.app;
    let what = match verdict.verb {
        Verb::Deploy => format!("{release} of {app} is live"),
        Verb::Rollback => format!("{release} of {app} is live again"),
        Verb::Environment => format!("{release} of {app} is live with the new variables"),
        Verb::Restart => format!("restart of {app}; {release} is live"),
        Verb::Start => format!("start of {app}; {release} is live"),
        Verb::Stop => format!("stop of {app}; what was stopped stays so until `cutover start`"),
        Verb::Remove => format!("{app} was taken off the host"),
        Verb::BackingApply => format!("the backing service of {app} runs as {release} wants it"),
        Verb::BackingRestart => format!("the backing service of {app} was restarted"),
    };
    let took = span(verdict.took());
    match verdict.switched_ms {
        Some(millis) => {
            format!("{what} ({took} in all, switched after {})", span(Duration::from_millis(millis)))
        }
        None => format!("{what} ({took})"),
    }
}

#[cfg(test)]
mod tests {
    use cutover_core::exit::Exit;

    use super::*;

    fn sample(verb: Verb, outcome: Outcome) -> Verdict {
        Verdict {
            run: "018f3c9e-0000-7000-8000-000000000001".parse().unwrap(),
            app: "guestbook/local".parse().unwrap(),
            verb,
            release: Some("7f3c9e1".parse().unwrap()),
            serving: Some("7f3c9e1".parse().unwrap()),
            outcome,
            allowed: Vec::new(),
            by: "ada@laptop".to_owned(),
            started: "2026-11-21T14:00:00Z".parse().unwrap(),
            finished: "2026-11-21T14:00:01.5Z".parse().unwrap(),
            switched_ms: Some(420),
            warnings: vec!["old image could not be removed".to_owned()],
        }
    }

    #[test]
    fn the_last_words_say_what_is_live_and_how_long_it_took() {
        let text = verdict(&sample(Verb::Deploy, Outcome::Done)).unwrap();
        insta::assert_snapshot!(paint::plain(&text), @r"
        done: release 7f3c9e1 of guestbook/local is live (1.5 s in all, switched after 420 ms)
          warning: old image could not be removed
        ");
    }

    #[test]
    fn a_verdict_that_failed_gives_its_four_answers() {
        let failure = Failure::new(Exit::NotHealthy, "release 7f3c9e1 was not put live");
        let outcome = Outcome::Failed { failure: failure.clone() };
        assert_eq!(verdict(&sample(Verb::Deploy, outcome)).unwrap_err(), failure);
    }

    #[test]
    fn plain_lines_say_stage_and_act() {
        let lines: Vec<String> = [
            Told::Begins(Stage::Start),
            Told::Doing(Stage::Start, "start web-green-1-3fa2".to_owned()),
            Told::Said(Tone::Warning, "the clock jumped".to_owned()),
            Told::Ends(Stage::Start, Duration::from_millis(61)),
        ]
        .iter()
        .map(|told| paint::plain(&plain(told)))
        .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
          start      …
          start      start web-green-1-3fa2
          warning: the clock jumped
          start      done in 61 ms
        ");
    }
}
