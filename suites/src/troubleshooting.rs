//! `docs/troubleshooting.md`, what `docs/rollback.md` says is refused, and the errors that are told do not drift apart.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The texts of a headline, each as what it says between the names that stand for others.
fn headlines() -> Vec<Vec<String>> {
    let page = fs::read_to_string(top().join("docs/troubleshooting.md")).unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix("### "));
    lines.flat_map(|line| line.split(" · ").map(parts).collect::<Vec<_>>()).collect()
}

/// Names in italics and `…` stand for anything; the exit code behind is none of it.
fn parts(text: &str) -> Vec<String> {
    let text = text.rsplit_once(" (").filter(|(_, code)| code.ends_with(')')).map_or(text, |(text, _)| text);
    text.split('*').step_by(2).flat_map(|literal| literal.split('…')).map(str::to_owned).collect()
}

fn fits(parts: &[String], told: &str) -> bool {
    let mut rest = told;
    parts.iter().enumerate().all(|(number, part)| match rest.find(part.as_str()) {
        Some(place) if number > 0 || place == 0 => {
            rest = &rest[place + part.len()..];
            true
        }
        _ => false,
    })
}

/// The approved texts, and all that the sources say.
fn read(folder: &Path, ending: &str, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, ending, texts);
        } else if path.extension().is_some_and(|found| found == ending) {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
}

fn golden() -> Vec<String> {
    let mut texts = Vec::new();
    read(&top().join("suites/tests/input/snapshots"), "snap", &mut texts);
    texts
}

#[test]
fn each_failure_of_the_golden_texts_has_an_entry() {
    let headlines = headlines();
    let mut missing = Vec::new();
    for text in golden() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(told) = line.strip_prefix("error: ") else { continue };
            // What points into the configuration is explained where it points.
            let points = lines.get(number + 1).is_some_and(|next| next.contains("--> "));
            if !points && !headlines.iter().any(|parts| fits(parts, told)) {
                missing.push(told.to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "docs/troubleshooting.md does not have: {missing:#?}");
}

#[test]
fn each_headline_is_something_that_is_told() {
    let mut told = golden();
    read(&top().join("crates"), "rs", &mut told);
    let is_told = |part: &String| told.iter().any(|text| text.contains(part.trim()));
    let strange: Vec<_> = headlines()
        .into_iter()
        .filter(|parts| !parts.iter().max_by_key(|part| part.len()).is_some_and(is_told))
        .collect();
    assert!(strange.is_empty(), "nobody says: {strange:#?}");
}

#[test]
fn each_refusal_on_the_page_of_rollback_has_an_entry() {
    let page = fs::read_to_string(top().join("docs/rollback.md")).unwrap();
    let table = page.split("| it says |").nth(1).unwrap().split("\n\n").next().unwrap();
    let refusals: Vec<_> = table.lines().skip(2).map(|line| line.split(" | ").next().unwrap()).collect();
    assert!(refusals.len() > 5, "{refusals:?}");
    let headlines = headlines();
    for refusal in refusals {
        let told = parts(refusal.trim_start_matches("| "));
        assert!(headlines.contains(&told), "docs/troubleshooting.md does not have: {refusal}");
    }
}
