//! How the benchmark speaks: the only place that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark is there to be read")]

use std::path::Path;
use std::time::Duration;

use super::sheet::{Machine, Row, Section, Sheet};

const NAME: usize = 52;

pub(super) fn title(machine: &Machine) {
    println!("cutover, measured as it ships: {}.", machine.text());
    println!("Medians; in brackets what nine of ten lie above, and below; what is compared takes turns.");
}

/// What is measured now, on the error stream: some take a minute.
pub(super) fn now(section: &str) {
    eprintln!("measuring: {section} …");
}

pub(super) fn section(section: &Section) {
    println!("\n{}", section.name);
    for row in &section.rows {
        println!("  {}", line(row));
        if let Some(note) = &row.note {
            println!("      {note}");
        }
    }
    for why in &section.not_run {
        println!("  not run: {why}");
    }
}

fn line(row: &Row) -> String {
    let figure = &row.figure;
    let spread = if figure.samples > 1 {
        format!("[{}–{}] of {}", number(figure.low), number(figure.high), figure.samples)
    } else {
        String::new()
    };
    let goal = match (row.goal, row.met) {
        (Some(goal), Some(true)) => format!("  goal ≤ {}: met", number(goal)),
        (Some(goal), _) => format!("  goal ≤ {}: MISSED", number(goal)),
        (None, _) => String::new(),
    };
    let value = format!("{} {}", number(figure.median), row.unit);
    let text = format!("{:<NAME$} {value:>14}  {spread:<24}{goal}", row.name);
    text.trim_end().to_owned()
}

fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 || value.fract().abs() < 0.000_1 {
        format!("{value:.0}")
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

pub(super) fn end(sheet: &Sheet, file: &Path, took: Duration) {
    let rows = || sheet.sections.iter().flat_map(|section| &section.rows);
    let with_goal = rows().filter(|row| row.goal.is_some()).count();
    let met = rows().filter(|row| row.met == Some(true)).count();
    println!("\n{met} of {with_goal} goals met; {} s; all of it in {}", took.as_secs(), file.display());
}

/// Why there are no figures.
pub fn wrong(error: &anyhow::Error) {
    eprintln!("bench: {error:#}");
}
