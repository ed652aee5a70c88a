//! Conversations with the real session: what it answers, what it refuses, and that runs do not depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use cutover_host::assignment::Assignment;
use cutover_host::lock::RunLock;
use cutover_host::store::Store;

use crate::support::{Conversation, Root};
use cutover_core::artifact::{Entry, EntryKind, tree_hash};
use cutover_core::exit::Exit;
use cutover_core::hash::ContentHash;
use cutover_core::names::{AppId, RunId};
use cutover_core::plan::{Direction, HostPlan, PLAN_VERSION, Planned, RecordPlan, Verb, WhyNot};
use cutover_core::secret::Secrets;
use cutover_core::verdict::{Outcome, Verdict};
use cutover_core::wire::{Ask, Reply, WIRE_VERSION};

fn shop() -> AppId {
    "shop/local".parse().unwrap()
}

/// A plan of a world that never was: the run looks, and refuses it.
fn outdated_plan() -> HostPlan {
    let nothing = WhyNot::NotInThisVerb;
    HostPlan {
        version: PLAN_VERSION,
        run: RunId::new(uuid::Uuid::now_v7()),
        app: shop(),
        verb: Verb::Stop,
        by: "ann@laptop".to_owned(),
        made: jiff::Timestamp::now(),
        fingerprint: ContentHash::of(b"another world"),
        allowed: BTreeSet::new(),
        direction: Direction::Forward,
        release: None,
        live: None,
        becomes: None,
        services: BTreeMap::new(),
        variables: BTreeMap::new(),
        preflight: Planned::NotNeeded(nothing),
        backing: Planned::NotNeeded(nothing),
        snapshot: Planned::NotNeeded(nothing),
        migrate: Planned::NotNeeded(nothing),
        start: Planned::NotNeeded(nothing),
        check: Planned::NotNeeded(nothing),
        handover: Planned::NotNeeded(nothing),
        switch: Planned::NotNeeded(nothing),
        verify: Planned::NotNeeded(nothing),
        bake: Planned::NotNeeded(nothing),
        drain: Planned::NotNeeded(nothing),
        record: RecordPlan::default(),
        notes: vec![],
    }
}

fn run(plan: &HostPlan, detach: bool) -> Ask {
    Ask::Run {
        plan: Box::new(plan.clone()),
        env: 0,
        unset: BTreeSet::new(),
        keep_env: false,
        detach,
        wait: false,
    }
}

fn hear_verdict(conversation: &mut Conversation) -> Verdict {
    loop {
        match conversation.hear() {
            Reply::Event { .. } => {}
            Reply::Verdict { verdict } => return *verdict,
            other => panic!("a verdict was due, {other:?} came"),
        }
    }
}

fn stage(conversation: &mut Conversation, text: &str, unset: &[&str]) {
    let unset = unset.iter().map(|name| name.parse().unwrap()).collect();
    conversation.send(&Ask::EnvStage { app: shop(), bytes: text.len() as u64, unset });
    conversation.say(text.as_bytes());
}

#[test]
fn a_client_of_another_version_is_told_ours_and_nothing_else() {
    let root = Root::new();
    for version in [WIRE_VERSION - 1, WIRE_VERSION + 1] {
        let mut conversation = root.silent();
        conversation.send(&Ask::Hello { version, package: "9.9.9".to_owned(), progress: false });

        assert!(matches!(conversation.hear(), Reply::Hello { version: WIRE_VERSION, .. }));
        assert_eq!(conversation.leaves(), (Some(0), String::new()));
    }
}

#[test]
fn what_is_no_message_is_told_and_ends_the_conversation_in_order() {
    let root = Root::new();
    let cases: [&[u8]; 6] = [
        b" \n",
        b"rubbish\n",
        b"{\"ask\":\"levitate\"}\n",
        b"{\"ask\":\"lock\",\"app\":{\"app\":\"../..\",\"environment\":\"x\"}}\n",
        b"\xff\xfe\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
    ];
    for bytes in cases {
        let mut conversation = root.talk();
        conversation.say(bytes);

        assert_eq!(conversation.hear_failure().exit, Exit::Usage, "{:?}", String::from_utf8_lossy(bytes));
        assert_eq!(conversation.leaves(), (Some(0), String::new()));
    }
}

#[test]
fn a_client_that_leaves_at_any_moment_ends_the_session_without_a_word() {
    let root = Root::new();
    let text = "A=1\n";
    let cut_env =
        serde_json::to_string(&Ask::EnvStage { app: shop(), bytes: 999, unset: [].into() }).unwrap();
    let artifact = Ask::Artifact { hash: ContentHash::of(b"x"), bytes: 1_000_000 };
    let cut_artifact = serde_json::to_string(&artifact).unwrap();
    for said in [
        String::new(),
        "{\"ask\":\"lo".to_owned(),
        format!("{cut_env}\n{text}"),
        format!("{cut_artifact}\nxxx"),
    ] {
        let mut conversation = root.talk();
        conversation.say(said.as_bytes());

        let (code, errors) = conversation.leaves();

        assert_eq!((code, errors.as_str()), (Some(0), ""), "{said}");
    }
    assert!(!root.layout().env_file(&shop()).exists());
    assert_eq!(std::fs::read_dir(root.layout().artifacts()).map_or(0, Iterator::count), 0);
}

#[test]
fn variables_are_kept_private_and_shown_masked() {
    let root = Root::new();
    let mut conversation = root.talk();

    stage(&mut conversation, "TOKEN=\"correct horse battery\"\nPORT=80\nOLD=x\n", &[]);
    assert!(matches!(conversation.hear(), Reply::Done));
    stage(&mut conversation, "PORT=81\n", &["OLD"]);
    assert!(matches!(conversation.hear(), Reply::Done));

    let Reply::Variables { masked } = conversation.ask(&Ask::EnvList { app: shop() }) else { panic!() };
    let shown: Vec<_> = masked.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(shown, ["PORT=***", "TOKEN=***"]);
    let path = root.layout().env_file(&shop());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&path).unwrap().contains("PORT=\"81\""));
}

#[test]
fn bad_lines_of_an_env_file_are_told_without_their_values_and_nothing_is_changed() {
    let root = Root::new();
    let mut conversation = root.talk();

    stage(&mut conversation, "GOOD=1\nhunter2\n", &[]);
    let failure = conversation.hear_failure();

    assert_eq!((failure.exit, failure.cause.len()), (Exit::Configuration, 1));
    assert!(failure.cause[0].starts_with("line 2: "), "{failure:?}");
    assert!(!format!("{failure:?}").contains("hunter2"));
    assert!(!root.layout().env_file(&shop()).exists());
    // The conversation is still in step.
    assert!(matches!(conversation.ask(&Ask::Lock { app: shop() }), Reply::Lock { holder: None }));
}

#[test]
fn an_artifact_is_taken_in_once_and_a_false_one_is_not() {
    let root = Root::new();
    let mut conversation = root.talk();
    let mut archive = tar::Builder::new(Vec::new());
    let content = vec![7_u8; 300_000];
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "bin/app", content.as_slice()).unwrap();
    let archive = archive.into_inner().unwrap();
    let entry =
        Entry { path: "bin/app".to_owned(), kind: EntryKind::File, content: ContentHash::of(&content) };
    let (hash, other) = (tree_hash(&[entry]), ContentHash::of(b"other"));
    let mut ship = |hash: &ContentHash| {
        conversation.send(&Ask::Artifact { hash: hash.clone(), bytes: archive.len() as u64 });
        conversation.say(&archive);
        conversation.hear()
    };

    assert!(matches!(ship(&hash), Reply::Done));
    assert!(matches!(ship(&hash), Reply::Done), "again");
    let Reply::Failed { failure } = ship(&other) else { panic!() };

    assert!(failure.cause[0].contains("the artifact that arrived is"), "{failure:?}");
    let kept: Vec<_> = std::fs::read_dir(root.layout().artifacts()).unwrap().flatten().collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(std::fs::read(root.layout().artifact(&hash).join("bin/app")).unwrap(), content);
}

#[test]
fn a_run_is_carried_out_once_and_told_again_to_whoever_asks() {
    let root = Root::new();
    let plan = outdated_plan();
    let mut conversation = root.talk();

    conversation.send(&run(&plan, false));
    let first = hear_verdict(&mut conversation);
    conversation.send(&run(&plan, false));
    let again = hear_verdict(&mut conversation);
    let mut other = root.talk();
    other.send(&Ask::Attach { run: None, app: shop(), from: 1 });
    let attached = hear_verdict(&mut other);

    assert_eq!((first.run, first.exit()), (plan.run, Exit::Refused));
    assert_eq!((&again, &attached), (&first, &first));
    let Reply::History { verdicts } = conversation.ask(&Ask::History { app: shop(), limit: 9 }) else {
        panic!()
    };
    assert_eq!(verdicts, [first]);
    assert!(!root.layout().run_folder(plan.run).exists(), "what was sent for it is gone");
    assert!(matches!(conversation.ask(&Ask::Lock { app: shop() }), Reply::Lock { holder: None }));
}

#[test]
fn a_run_goes_on_when_its_client_leaves() {
    let root = Root::new();
    let plan = outdated_plan();
    let mut conversation = root.talk();
    conversation.send(&run(&plan, true));
    assert!(matches!(conversation.hear(), Reply::Done));
    assert_eq!(conversation.leaves().0, Some(0));

    let mut conversation = root.talk();
    conversation.send(&Ask::Attach { run: Some(plan.run), app: shop(), from: 1 });

    assert_eq!(hear_verdict(&mut conversation).run, plan.run);
}

#[test]
fn a_run_whose_session_was_killed_before_it_started_is_started_by_the_next_who_asks() {
    let root = Root::new();
    let plan = outdated_plan();
    let mut conversation = root.talk();
    assert!(matches!(conversation.ask(&Ask::History { app: shop(), limit: 1 }), Reply::History { .. }));
    let assignment = Assignment {
        plan: plan.clone(),
        unset: BTreeSet::new(),
        keep_env: false,
        wait: false,
        fetched: BTreeSet::new(),
    };
    assignment.save(&root.layout(), &Secrets::new()).unwrap();
    let store = Store::open(&root.layout()).unwrap();
    store.begin_run(plan.run, &shop(), plan.verb, &plan.by, plan.made).unwrap();

    conversation.send(&Ask::Attach { run: None, app: shop(), from: 1 });

    assert_eq!(hear_verdict(&mut conversation).run, plan.run);
}

#[test]
fn there_is_nothing_to_attach_to_or_to_cancel_at_first() {
    let root = Root::new();
    let mut conversation = root.talk();

    conversation.send(&Ask::Attach { run: None, app: shop(), from: 1 });
    let failure = conversation.hear_failure();
    assert_eq!(
        (failure.exit, failure.what.as_str()),
        (Exit::Usage, "no run of shop/local is known on this host")
    );
    conversation.send(&Ask::Cancel { app: shop(), by: "ann".to_owned() });
    assert_eq!(conversation.hear_failure().exit, Exit::Refused);
}

#[test]
fn a_state_database_of_a_newer_version_is_refused_with_what_to_do() {
    let root = Root::new();
    let mut conversation = root.talk();
    assert!(matches!(conversation.ask(&Ask::History { app: shop(), limit: 1 }), Reply::History { .. }));
    conversation.leaves();
    // `user_version`: four bytes in the head of the file.
    let mut bytes = std::fs::read(root.layout().store()).unwrap();
    let known: [u8; 4] = bytes[60..64].try_into().unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(root.layout().store(), &bytes).unwrap();

    let mut conversation = root.talk();
    conversation.send(&Ask::Observe { app: shop(), images: BTreeSet::new() });
    let failure = conversation.hear_failure();

    let known_here = format!("version 99, this cutover-host knows {}", u32::from_be_bytes(known));
    assert!(failure.cause[0].contains(&known_here), "{failure:?}");
    assert_eq!(std::fs::read(root.layout().store()).unwrap(), bytes);
    bytes[60..64].copy_from_slice(&known);
    std::fs::write(root.layout().store(), &bytes).unwrap();
}

#[test]
fn a_run_that_never_came_to_life_is_ended_and_told() {
    let root = Root::new();
    let plan = outdated_plan();
    drop(root.talk().ask(&Ask::Lock { app: shop() }));
    let store = Store::open(&root.layout()).unwrap();
    let long_ago = "2026-01-01T00:00:00Z".parse().unwrap();
    store.begin_run(plan.run, &shop(), Verb::Stop, "ann@laptop", long_ago).unwrap();

    let settled = root.runs(&["run", "--settle", "shop/local"]);

    assert!(settled.status.success(), "{settled:?}");
    let verdict = store.verdict(plan.run).unwrap().expect("a verdict");
    assert_eq!((verdict.exit(), verdict.by.as_str()), (Exit::Failed, "ann@laptop"));
    assert_eq!(store.unfinished(&shop()).unwrap(), None, "watch heals the app again");
}

/// A run that another process carries out, with nothing in its journal yet.
#[test]
fn how_far_a_run_is_hears_who_understands_it_and_an_older_client_goes_on_without() {
    let root = Root::new();
    let (layout, run) = (root.layout(), RunId::new(uuid::Uuid::now_v7()));
    drop(root.talk().ask(&Ask::Lock { app: shop() }));
    let store = Store::open(&layout).unwrap();
    let began = jiff::Timestamp::now();
    store.begin_run(run, &shop(), Verb::SnapshotCreate, "ann@laptop", began).unwrap();
    let _works = RunLock::take(&layout, run).unwrap().expect("nobody else carries it out");
    let progress = r#"{"what":"dumped","bytes":7,"of":{"known":"not"},"millis":900}"#;
    std::fs::write(layout.run_progress(run), format!(r#"{{"after":0,"progress":{progress}}}"#)).unwrap();
    let attach = Ask::Attach { run: Some(run), app: shop(), from: 1 };

    let (mut newer, mut older) = (root.talk(), root.silent());
    older.say(b"{\"ask\":\"hello\",\"version\":1,\"package\":\"0.1.0\"}\n");
    assert!(matches!(older.hear(), Reply::Hello { .. }));
    older.send(&attach);
    let Reply::Progress { progress } = newer.ask(&attach) else { panic!("how far it is was due") };
    assert_eq!((progress.what.as_str(), progress.bytes), ("dumped", 7));
    std::fs::write(layout.run_progress(run), "what a newer build has written").unwrap();
    let verdict = Verdict {
        run,
        app: shop(),
        verb: Verb::SnapshotCreate,
        release: None,
        serving: None,
        outcome: Outcome::Done,
        allowed: Vec::new(),
        by: "ann@laptop".to_owned(),
        started: began,
        finished: began,
        switched_ms: None,
        freed: None,
        warnings: Vec::new(),
    };
    store.finish_run(&verdict).unwrap();

    for conversation in [&mut newer, &mut older] {
        assert!(matches!(conversation.hear(), Reply::Verdict { .. }), "nothing else is heard");
    }
}
