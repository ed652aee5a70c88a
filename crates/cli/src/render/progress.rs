//! A run as it goes on: moving lines on a terminal, plain lines without one, JSON lines when asked for. The same sentences in all.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cutover_core::failure::Failure;
use cutover_core::journal::Entry;
use cutover_core::plan::{Stage, Verb};
use cutover_core::verdict::{Outcome, Verdict};
use cutover_core::wire::{self, Extent};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncRead, ReadBuf};

use super::event::{Listener, Told, Tone, size};
use super::json::Line;
use super::paint::{self, Text};
use super::time::span;
use super::{Form, Output, harmless_line};

const TICK: Duration = Duration::from_millis(80);
const STAGE_WIDTH: usize = 10;
const WORKING: &str = "{spinner} {prefix:10} {wide_msg} {elapsed}";
const PASSING: &str = "{spinner} {prefix:10} [{bar:24}] {wide_msg} {elapsed}";
const SENDING: &str = "{spinner} {prefix:10} {msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec}";

/// From one object about how far something is to the next.
const OBJECTS_APART: Duration = Duration::from_secs(1);
/// From one line about it to the next, and before the first: what ends sooner needs none.
const LINES_APART: Duration = Duration::from_secs(10);

/// Draws a run.
pub(crate) struct Progress {
    output: Output,
    listener: Listener,
    bar: Option<ProgressBar>,
    sending: Option<Sending>,
    now: Act,
    /// When it was last said how far it is.
    said: Option<Instant>,
}

/// What goes on.
#[derive(Debug, Default)]
struct Act {
    word: String,
    what: String,
    /// How far it is, is drawn on its line.
    is_measured: bool,
}

/// What is being sent.
struct Sending {
    cargo: Cargo,
    pieces: usize,
    bytes: u64,
    since: Instant,
}

/// What goes to a host in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cargo {
    /// An image, by its name: in layers.
    Image(String),
    /// Files, as people call them: in chunks.
    Files(String),
}

impl Cargo {
    fn shown(&self) -> String {
        match self {
            Self::Image(name) => format!("image {name}"),
            Self::Files(what) => what.clone(),
        }
    }

    fn pieces(&self, pieces: usize) -> String {
        let piece = match self {
            Self::Image(_) => "layer",
            Self::Files(_) => "chunk",
        };
        if pieces == 1 { format!("1 {piece}") } else { format!("{pieces} {piece}s") }
    }
}

/// Moves the bar by what is read of it.
pub(crate) struct Counted<R> {
    reader: R,
    bar: Option<ProgressBar>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.reader).poll_read(context, buffer);
        if let Some(bar) = &self.bar {
            bar.inc((buffer.filled().len() - before) as u64);
        }
        read
    }
}

impl Progress {
    /// Nothing drawn yet.
    pub(crate) fn new(output: Output) -> Self {
        let bar = output.is_live().then(spinner);
        Self { output, listener: Listener::default(), bar, sending: None, now: Act::default(), said: None }
    }

    /// The next line of the run's journal.
    pub(crate) fn entry(&mut self, entry: &Entry) -> std::io::Result<()> {
        if self.output.form() == Form::Json {
            return self.output.json(&Line::Event { entry });
        }
        let told = self.listener.hear(entry);
        self.measured_no_more();
        match &told {
            Some(Told::Begins(stage)) => self.begins(stage.as_str(), ""),
            Some(Told::Doing(stage, what)) => self.begins(stage.as_str(), what),
            Some(Told::Ends(..) | Told::Said(..) | Told::Found(_)) | None => {}
        }
        match (told, self.bar.clone()) {
            (None, _) => {}
            (Some(Told::Found(text)), bar) => {
                return bar
                    .map_or_else(|| self.output.data(&text), |bar| bar.suspend(|| self.output.data(&text)));
            }
            (Some(told), None) => self.output.talk(&plain(&told)),
            (Some(told), Some(bar)) => self.draw(&bar, &told),
        }
        Ok(())
    }

    /// How far that is which goes on now.
    pub(crate) fn passed(&mut self, now: &wire::Progress) -> std::io::Result<()> {
        let at = Instant::now();
        if self.output.form() == Form::Json {
            return if self.is_due(at, OBJECTS_APART) {
                self.output.json(&Line::Progress { progress: now, rate: now.rate() })
            } else {
                Ok(())
            };
        }
        match self.bar.clone() {
            Some(bar) => self.draw_passed(&bar, now),
            None => self.line(now, at).into_iter().for_each(|line| self.output.talk(&line)),
        }
        Ok(())
    }

    /// Once something was said, it is not due again before so much has passed.
    fn is_due(&mut self, at: Instant, apart: Duration) -> bool {
        let due = self.said.is_none_or(|said| at.saturating_duration_since(said) >= apart);
        if due {
            self.said = Some(at);
        }
        due
    }

    /// The line of whoever has no terminal, where one is due.
    fn line(&mut self, now: &wire::Progress, at: Instant) -> Option<String> {
        let is_long = Duration::from_millis(now.millis) >= LINES_APART;
        (is_long && self.is_due(at, LINES_APART))
            .then(|| format!("{} {}", stage(&self.now.word), with_passed(&self.now.what, now)))
    }

    fn draw_passed(&mut self, bar: &ProgressBar, now: &wire::Progress) {
        self.now.is_measured = true;
        let all = now.all();
        bar.set_style(style(if all.is_some() { PASSING } else { WORKING }));
        if let Some(all) = all {
            bar.set_length(all);
            bar.set_position(now.bytes);
        }
        bar.set_message(harmless_line(&with_passed(&self.now.what, now)));
    }

    fn begins(&mut self, word: &str, what: &str) {
        self.now = Act { word: word.to_owned(), what: what.to_owned(), is_measured: false };
    }

    /// Something else is heard: how far the last act was is not the next one's.
    fn measured_no_more(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|_| std::mem::take(&mut self.now.is_measured)) {
            bar.set_style(style(WORKING));
            bar.set_message(harmless_line(&self.now.what));
        }
    }

    /// Something that goes on here, before the run: its words stand until the next ones.
    pub(crate) fn doing(&mut self, word: &str, what: &str) {
        self.measured_no_more();
        self.begins(word, what);
        match &self.bar {
            Some(bar) => begin(bar, word, what),
            None if self.output.form() == Form::Text => {
                self.output.talk(&format!("{} {what}", stage(word)));
            }
            None => {}
        }
    }

    /// Pieces of something are going to be sent: a bar on a terminal, a line elsewhere.
    pub(crate) fn begin_sending(&mut self, cargo: Cargo, what: &str) {
        self.doing("ship", &format!("{}: {what}", cargo.shown()));
        self.sending = Some(Sending { cargo, pieces: 0, bytes: 0, since: Instant::now() });
        if let Some(bar) = &self.bar {
            bar.set_length(0);
            bar.set_position(0);
            bar.set_style(style(SENDING));
        }
    }

    /// One more layer, of so many bytes.
    pub(crate) fn will_send(&mut self, bytes: u64) {
        if let Some(sending) = &mut self.sending {
            sending.pieces += 1;
            sending.bytes += bytes;
        }
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
        }
    }

    /// So much is going to be sent in all, as it is before it is compressed.
    pub(crate) fn will_send_in_all(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
        }
    }

    /// So many pieces are on their way: what they were before, and what they are now.
    pub(crate) fn sent(&mut self, pieces: usize, bytes: u64, compressed: u64) {
        if let Some(sending) = &mut self.sending {
            sending.pieces += pieces;
            sending.bytes += compressed;
        }
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// A reader whose bytes count as sent.
    pub(crate) fn counted<R: AsyncRead + Unpin>(&self, reader: R) -> Counted<R> {
        Counted { reader, bar: self.bar.clone() }
    }

    /// The host has the image.
    pub(crate) fn end_sending(&mut self) -> std::io::Result<()> {
        if let Some(bar) = &self.bar {
            bar.set_style(style(WORKING));
        }
        let Some(sending) = self.sending.take() else { return Ok(()) };
        if self.output.form() == Form::Json {
            let Sending { cargo, pieces, bytes, since } = &sending;
            let (bytes, millis) = (*bytes, millis(since.elapsed()));
            return self.output.json(&match cargo {
                Cargo::Image(image) => Line::Shipped { image, layers: *pieces, bytes, millis },
                Cargo::Files(files) => Line::ShippedFiles { files, chunks: *pieces, bytes, millis },
            });
        }
        self.above(&format!("{} {}", stage("ship"), shipped(&sending, sending.since.elapsed())));
        Ok(())
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
            Told::Doing(_, what) => bar.set_message(harmless_line(what)),
            Told::Ends(left, took) => {
                self.above(&ended(*left, *took));
                bar.set_message("");
            }
            Told::Said(..) | Told::Found(_) => self.above(&plain(told)),
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
    bar.set_style(style(WORKING));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants that are known to be good; the default one would do as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

/// How much was sent, and how fast.
fn shipped(sending: &Sending, took: Duration) -> String {
    let Sending { cargo, pieces, bytes, .. } = sending;
    let (what, all) = match cargo {
        Cargo::Image(name) => (format!("image {name} is there"), "its layers"),
        Cargo::Files(what) => (what.clone(), "chunks"),
    };
    if *pieces == 0 {
        let were = if matches!(cargo, Cargo::Image(_)) { "were" } else { "were there" };
        return format!("{what}: all {all} {were} ({})", span(took));
    }
    let rate = bytes.saturating_mul(1_000) / millis(took).max(1);
    let pieces = cargo.pieces(*pieces);
    format!("{what}: {pieces}, {} in {} ({}/s)", size(*bytes), span(took), size(rate))
}

/// What goes on, with how far it is: `dumped 12 MiB of about 100 MiB, 6 MiB/s`.
fn with_passed(what: &str, now: &wire::Progress) -> String {
    let of = match (now.all(), now.of) {
        (Some(all), Extent::About { .. }) => format!(" of about {}", size(all)),
        (Some(all), Extent::Exactly { .. } | Extent::Not) => format!(" of {}", size(all)),
        (None, _) => String::new(),
    };
    let passed = format!("{} {}{of}, {}/s", now.what, size(now.bytes), size(now.rate()));
    if what.is_empty() { passed } else { format!("{what}: {passed}") }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn begin(bar: &ProgressBar, word: &str, what: &str) {
    bar.reset_elapsed();
    bar.set_prefix(word.to_owned());
    bar.set_message(harmless_line(what));
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
        Told::Found(text) => text.clone(),
        Told::Said(Tone::Note, text) => format!("  {} {text}", paint::strong("note:")),
        Told::Said(Tone::Warning, text) => format!("  {} {text}", paint::warn("warning:")),
        Told::Said(Tone::Bad, text) => format!("  {} {text}", paint::bad("failed:")),
        Told::Said(Tone::Output, text) => format!("  {} {}", paint::quiet("|"), harmless_line(text)),
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
        Verb::SecretsRotate => format!(
            "{release} of {app} is live with the new password, and its server refuses the one from before"
        ),
        Verb::Restart => format!("restart of {app}; {release} is live"),
        Verb::Start => format!("start of {app}; {release} is live"),
        Verb::Stop => {
            format!("stop of {app}; what was stopped stays so until `cutover start` or the next deploy")
        }
        Verb::Remove => format!("{app} was taken off the host"),
        Verb::BackingApply => format!("the backing service of {app} runs as {release} wants it"),
        Verb::BackingRestart => format!("the backing service of {app} was restarted"),
        Verb::SnapshotCreate => format!("snapshots of {app} were taken"),
        Verb::SnapshotRestore if verdict.switched_ms.is_none() => {
            format!("the snapshot of {app} was put back beside; {release} is live as before")
        }
        Verb::SnapshotRestore => {
            format!("the snapshot of {app} is in its database's place; {release} is live")
        }
        Verb::MigrateRehearse => {
            format!(
                "the migrations of {app} were rehearsed; {release} is live as before, and nothing live was touched"
            )
        }
        Verb::Prune | Verb::SnapshotPrune => format!("freed {}", size(verdict.freed.unwrap_or(0))),
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
    use cutover_core::journal::What;

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
            freed: None,
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
    fn what_was_sent_is_told_with_its_rate() {
        let mib = 1024 * 1024;
        let sending = Sending {
            cargo: Cargo::Image("shop:1".to_owned()),
            pieces: 1,
            bytes: 3 * mib,
            since: Instant::now(),
        };
        let told = shipped(&sending, Duration::from_millis(1_500));
        assert_eq!(told, "image shop:1 is there: 1 layer, 3 MiB in 1.5 s (2 MiB/s)");
        let nothing = Sending { cargo: Cargo::Files("2 artifacts".to_owned()), pieces: 0, ..sending };
        let told = shipped(&nothing, Duration::from_millis(10));
        assert_eq!(told, "2 artifacts: all chunks were there (10 ms)");
    }

    const MIB: u64 = 1024 * 1024;

    fn at(mib: u64, of: Extent, millis: u64) -> wire::Progress {
        wire::Progress { what: "dumped".to_owned(), bytes: mib * MIB, of, millis }
    }

    fn snapshot_begins(form: Form, bar: Option<ProgressBar>) -> Progress {
        let mut progress = Progress::new(Output::new(form));
        progress.bar = bar;
        progress.begins("snapshot", "take a snapshot of main");
        progress
    }

    fn entry(seq: u64, what: What) -> Entry {
        let run = "018f3c9e-0000-7000-8000-000000000001".parse().unwrap();
        Entry { run, seq, at: jiff::Timestamp::UNIX_EPOCH, what }
    }

    #[test]
    fn without_a_terminal_a_line_comes_every_ten_seconds_and_none_for_what_ends_sooner() {
        let mut progress = snapshot_begins(Form::Text, None);
        let (about, began) = (Extent::About { bytes: 400 * MIB }, Instant::now());
        let mut lines = Vec::new();
        for half in 0..50_u64 {
            let (millis, mib) = (half * 500, half * 10);
            let line = progress.line(&at(mib, about, millis), began + Duration::from_millis(millis));
            lines.extend(line.map(|line| paint::plain(&line)));
        }
        insta::assert_snapshot!(lines.join("\n"), @r"
          snapshot   take a snapshot of main: dumped 200 MiB of about 400 MiB, 20 MiB/s
          snapshot   take a snapshot of main: dumped 400 MiB of about 400 MiB, 20 MiB/s
        ");

        let mut later = snapshot_begins(Form::Text, None);
        assert!(later.line(&at(1, Extent::Not, 60_000), began).is_some(), "who comes later sees where it is");
    }

    #[test]
    fn with_json_an_object_comes_a_second_at_most() {
        let mut progress = snapshot_begins(Form::Json, None);
        let began = Instant::now();
        let due = |progress: &mut Progress, millis| {
            progress.is_due(began + Duration::from_millis(millis), OBJECTS_APART)
        };
        let said: Vec<u64> = (0..8).map(|half| half * 500).filter(|at| due(&mut progress, *at)).collect();
        assert_eq!(said, [0, 1_000, 2_000, 3_000]);
        let (now, rate) = (at(3, Extent::About { bytes: 9 * MIB }, 1_500), 2 * MIB);
        assert_eq!(now.rate(), rate);
        assert_eq!(
            Line::Progress { progress: &now, rate }.to_string(),
            r#"{"version":1,"kind":"progress","progress":{"what":"dumped","bytes":3145728,"of":{"known":"about","bytes":9437184},"millis":1500},"rate":2097152}"#
        );
    }

    #[test]
    fn on_a_terminal_the_line_of_the_act_has_a_bar_until_something_else_is_heard() {
        let bar = ProgressBar::hidden();
        let mut progress = snapshot_begins(Form::Text, Some(bar.clone()));
        progress.passed(&at(30, Extent::About { bytes: 90 * MIB }, 2_000)).unwrap();
        assert_eq!((bar.position(), bar.length()), (30 * MIB, Some(90 * MIB)));
        assert_eq!(bar.message(), "take a snapshot of main: dumped 30 MiB of about 90 MiB, 15 MiB/s");
        progress.passed(&at(100, Extent::About { bytes: 90 * MIB }, 4_000)).unwrap();
        assert_eq!(bar.message(), "take a snapshot of main: dumped 100 MiB, 25 MiB/s");
        progress.passed(&at(1, Extent::Exactly { bytes: 2 * MIB }, 1_000)).unwrap();
        assert_eq!(bar.message(), "take a snapshot of main: dumped 1 MiB of 2 MiB, 1 MiB/s");

        progress.entry(&entry(3, What::Left { stage: Stage::Snapshot, took_ms: 5_000 })).unwrap();
        assert_eq!(bar.message(), "");
        progress.entry(&entry(4, What::Entered { stage: Stage::Migrate })).unwrap();
        progress.passed(&at(1, Extent::Not, 1_000)).unwrap();
        assert_eq!(bar.message(), "dumped 1 MiB, 1 MiB/s", "no act of the last stage");
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
