//! How the demonstration speaks: the only place that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demonstration is there to be read")]

use std::time::Duration;

use cutover_testkit::guestbook::Kind;

/// Lines of an application's log that are shown of a failure.
const LOG_LINES: usize = 2;

pub(super) fn title(kind: Kind) {
    let what = match kind {
        Kind::Processes => "plain processes",
        Kind::Containers => "images on a container engine",
    };
    println!("cutover, shown on a guestbook: six releases, {what}, constant traffic.");
}

/// A step of the story begins.
pub(super) fn step(text: &str) {
    println!("\n{text}");
}

pub(super) fn fact(text: &str) {
    println!("    {text}");
}

/// What was asserted.
pub(super) fn good(text: &str) {
    println!("  ✓ {text}");
}

/// A command as a person types it.
pub(super) fn command(words: &[&str]) {
    println!("  $ cutover {}", words.join(" "));
}

/// The four answers, without the repetitions of the application's log.
pub(super) fn failure(text: &str) {
    let mut logged = 0;
    for line in text.trim_end().lines() {
        let is_log = line.trim_start().starts_with('|');
        logged += usize::from(is_log);
        if !is_log || logged <= LOG_LINES {
            fact(line);
        }
    }
}

pub(super) fn table(rows: &[(String, String)]) {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, value) in rows {
        println!("    {name:<width$}  {value}");
    }
}

pub(super) fn end(took: Duration) {
    println!("\nAll of it took {}.", seconds(took));
}

pub fn usage() {
    eprintln!("usage: demo [processes | docker]");
}

/// Why there is nothing to be shown.
pub fn impossible(why: &str) {
    eprintln!("demo: {why}");
}

/// Why it is no success.
pub fn wrong(error: &anyhow::Error) {
    println!();
    eprintln!("  ✗ not as it should be: {error:#}");
}

/// A time as people read it.
pub(super) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
