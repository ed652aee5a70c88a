//! Whatever the text: reading it ends, without a panic, and every problem points into it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cutover_core::config::{Selection, Sources, compose_files, env_files, environments, parse};
use proptest::prelude::*;

const MODEL: &str = include_str!("../fixtures/config/model.yml");

fn read(text: &str) {
    for environment in ["production", "local"] {
        let selection = Selection { environment: Some(environment.parse().unwrap()), ..Selection::default() };
        let sources = Sources { file: "cutover.yml", text, ..Sources::default() };
        if let Err(problems) = parse(&sources, &selection) {
            assert!(!problems.problems.is_empty(), "refused without a reason");
            for problem in &problems.problems {
                assert!(text.get(problem.span.clone()).is_some(), "{problem} points to {:?}", problem.span);
                assert!(problem.line >= 1 && problem.column >= 1);
            }
        }
    }
    compose_files(text);
    env_files(&[text]);
    drop(environments(text));
}

/// One place of the model file, changed.
#[derive(Debug, Clone)]
enum Change {
    Cut(usize, usize),
    Put(usize, String),
    Twice(usize),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..MODEL.len();
    let bit = prop_oneof![
        "[-:{}\\[\\]&*!|>'\"%@`#,? \\n\\t$]{1,3}",
        Just("<<: *source".to_owned()),
        Just("${X:-".to_owned()),
        Just("é…".to_owned()),
        Just("0".to_owned()),
        Just("&a ".to_owned()),
        Just("!reset ".to_owned()),
        Just("null".to_owned()),
        "[a-z]{1,8}: ",
    ];
    prop_oneof![
        (at.clone(), 1..40usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (at.clone(), bit).prop_map(|(at, text)| Change::Put(at, text)),
        (0..40usize).prop_map(Change::Twice),
        (0..40usize, 0..40usize).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

fn apply(text: &str, change: &Change) -> String {
    let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
    let mut lines: Vec<&str> = text.split('\n').collect();
    let count = lines.len();
    match change {
        Change::Cut(at, length) => format!("{}{}", &text[..boundary(*at)], &text[boundary(at + length)..]),
        Change::Put(at, bit) => format!("{}{bit}{}", &text[..boundary(*at)], &text[boundary(*at)..]),
        Change::Twice(line) => {
            lines.insert(line % count, lines[line % count]);
            lines.join("\n")
        }
        Change::Swap(one, other) => {
            lines.swap(one % count, other % count);
            lines.join("\n")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_read_or_refused(text in "(?s).{0,200}") {
        read(&text);
    }

    #[test]
    fn text_of_yaml_marks_is_read_or_refused(text in "[-:{}\\[\\]&*!|>'\"%@`#,?a \\n\\t~<.]{0,120}") {
        read(&text);
    }

    #[test]
    fn a_changed_file_is_read_or_refused(changes in prop::collection::vec(change(), 1..5)) {
        read(&changes.iter().fold(MODEL.to_owned(), |text, change| apply(&text, change)));
    }
}
