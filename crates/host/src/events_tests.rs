use std::fs;

use super::*;
use cutover_core::names::AppId;
use cutover_core::plan::{Stage, Verb};
use cutover_core::verdict::{Outcome, Verdict};
use jiff::Timestamp;

/// A run that writes its journal, and with it its events.
struct Run {
    _folder: tempfile::TempDir,
    layout: Layout,
    store: Store,
    id: RunId,
    file: EventFile,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        let run = RunId::new(uuid::Uuid::now_v7());
        let file = EventFile::open(&layout, run);
        Self { _folder: folder, layout, store: Store::in_memory().unwrap(), id: run, file }
    }

    fn journals(&self, what: &What) -> Entry {
        self.store.append(self.id, Timestamp::now(), what).unwrap()
    }

    fn writes(&self, text: &str) {
        self.file.append(&self.journals(&note(text)));
    }

    fn verdict(&self) -> Verdict {
        Verdict {
            run: self.id,
            app: "shop/local".parse::<AppId>().unwrap(),
            verb: Verb::Deploy,
            release: None,
            serving: None,
            outcome: Outcome::Done,
            allowed: vec![],
            by: String::new(),
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            switched_ms: None,
            freed: None,
            warnings: vec![],
        }
    }

    fn ends(&self) {
        self.file.append(&self.journals(&What::Verdict { verdict: Box::new(self.verdict()) }));
    }

    fn follow(&self, from: u64) -> Follow {
        Follow::new(&self.layout, self.id, from).unwrap()
    }

    async fn next(&self, follow: &mut Follow) -> Option<String> {
        let next = tokio::time::timeout(Duration::from_secs(20), follow.next(&self.store));
        next.await.unwrap().unwrap().map(|entry| text(&entry))
    }

    async fn rest(&self, mut follow: Follow) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(text) = self.next(&mut follow).await {
            all.push(text);
        }
        all
    }

    fn append_raw(&self, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(self.layout.events(self.id)).unwrap();
        file.write_all(bytes).unwrap();
    }
}

fn note(text: &str) -> What {
    What::Note { stage: Stage::Start, text: text.to_owned() }
}

fn text(entry: &Entry) -> String {
    match &entry.what {
        What::Note { text, .. } => text.clone(),
        What::Verdict { .. } => "verdict".to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_run_that_has_ended_is_replayed_from_any_entry() {
    let run = Run::new();
    for line in ["one", "two", "three"] {
        run.writes(line);
    }
    run.ends();

    assert_eq!(run.rest(run.follow(0)).await, ["one", "two", "three", "verdict"]);
    assert_eq!(run.rest(run.follow(3)).await, ["three", "verdict"]);
}

#[tokio::test]
async fn what_comes_is_followed_even_from_before_the_first_entry() {
    let run = Run::new();
    let mut follow = run.follow(0);
    assert!(tokio::time::timeout(Duration::from_millis(1), follow.next(&run.store)).await.is_err());

    for line in ["one", "two"] {
        run.writes(line);
        assert_eq!(run.next(&mut follow).await.as_deref(), Some(line));
    }
    run.ends();
    assert_eq!(run.next(&mut follow).await.as_deref(), Some("verdict"));
    assert_eq!(run.next(&mut follow).await, None);
}

#[tokio::test]
async fn what_the_file_missed_comes_from_the_journal_in_its_place() {
    let run = Run::new();
    run.writes("one");
    run.journals(&note("the disk was full"));
    run.append_raw(br#"{"run":"half a li"#);
    // The next process of the run begins a line of its own.
    let next = EventFile::open(&run.layout, run.id);
    next.append(&run.journals(&note("three")));
    run.journals(&What::Verdict { verdict: Box::new(run.verdict()) });

    assert_eq!(run.rest(run.follow(0)).await, ["one", "the disk was full", "three", "verdict"]);
}

#[tokio::test]
async fn what_a_person_was_told_ends_it_only_until_the_run_is_taken_up_again() {
    let run = Run::new();
    run.writes("one");
    let failure = cutover_core::failure::Failure::new(Exit::Person, "it could not be settled by itself");
    let told = Verdict { outcome: Outcome::Failed { failure }, ..run.verdict() };
    run.store.give_up_run(&told).unwrap();
    run.file.append(&run.journals(&What::Verdict { verdict: Box::new(told) }));
    assert_eq!(run.rest(run.follow(0)).await, ["one", "verdict"]);

    run.writes("once more");
    run.ends();

    assert_eq!(run.rest(run.follow(0)).await, ["one", "once more", "verdict"]);
}

#[tokio::test]
async fn without_a_file_and_a_journal_there_is_still_the_verdict() {
    let run = Run::new();
    run.store.finish_run(&run.verdict()).unwrap();

    assert_eq!(run.rest(run.follow(0)).await, ["verdict"]);
}

#[tokio::test]
async fn an_entry_that_the_journal_could_not_take_is_given_too() {
    let run = Run::new();
    run.writes("one");
    run.file.append(&Entry { run: run.id, seq: 0, at: Timestamp::now(), what: note("unwritten") });
    run.ends();

    assert_eq!(run.rest(run.follow(0)).await, ["one", "unwritten", "verdict"]);
}

#[tokio::test]
async fn output_is_bounded_and_the_rest_is_not() {
    let run = Run::new();
    run.writes("one");
    let file = OpenOptions::new().write(true).open(run.layout.events(run.id)).unwrap();
    file.set_len(LOG_BYTES + 1).unwrap();
    let before = fs::metadata(run.layout.events(run.id)).unwrap().len();

    run.file.append(&run.journals(&What::Output { of: "main".to_owned(), line: "x".to_owned() }));
    assert_eq!(fs::metadata(run.layout.events(run.id)).unwrap().len(), before);
    run.ends();
    assert!(fs::metadata(run.layout.events(run.id)).unwrap().len() > before);
}

#[test]
fn an_event_file_is_private_and_can_be_forgotten() {
    use std::os::unix::fs::PermissionsExt;
    let run = Run::new();
    run.writes("one");

    let mode = fs::metadata(run.layout.events(run.id)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    forget(&run.layout, run.id).unwrap();
    forget(&run.layout, run.id).unwrap();
    assert!(!run.layout.events(run.id).exists());
}
