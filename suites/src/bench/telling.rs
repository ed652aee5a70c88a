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

/// What had a goal once more, together; and what was not measured.
pub(super) fn end(sheet: &Sheet, file: &Path, took: Duration) {
    println!("\n{}", summary(&sheet.sections));
    println!("{} s; all of it in {}", took.as_secs(), file.display());
}

fn summary(sections: &[Section]) -> String {
    let mut lines = vec!["Goals".to_owned()];
    let (mut goals, mut met, mut not_run) = (0, 0, 0);
    for section in sections {
        for row in section.rows.iter().filter(|row| row.goal.is_some()) {
            goals += 1;
            met += usize::from(row.met == Some(true));
            lines.push(format!("  {}", line(row)));
        }
        for why in &section.not_run {
            not_run += 1;
            lines.push(format!("  not run: {why}"));
        }
    }
    lines.push(format!("\n{met} of {goals} goals met, {not_run} not run"));
    lines.join("\n")
}

/// Why there are no figures.
pub fn wrong(error: &anyhow::Error) {
    eprintln!("bench: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_goals_that_are_met_and_missed_then_the_end_tells_them_together() {
        let mut one = Section::new("One");
        one.row("quick", "ms", &[1.0]).goal(2.0);
        one.row("  a part of it", "ms", &[0.5]);
        one.row("slow", "ms", &[3.0]).goal(2.0);
        let mut other = Section::new("Other");
        other.not_run("there is no engine");
        let told = summary(&[one, other]);
        let lines: Vec<&str> = told.lines().map(str::trim).collect();
        assert!(lines[1].starts_with("quick") && lines[1].ends_with("goal ≤ 2: met"), "{told}");
        assert!(lines[2].starts_with("slow") && lines[2].ends_with("goal ≤ 2: MISSED"), "{told}");
        assert_eq!(lines[3..], ["not run: there is no engine", "", "1 of 2 goals met, 1 not run"]);
    }
}
