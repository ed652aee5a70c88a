//! The report as a short table for people.

use std::fmt;
use std::time::Duration;

use super::report::{Figures, Report};

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<10} {:>8} {:>7} {:>10} {:>5} {:>4} {:>8} {:>7} {:>9} {:>9} {:>9}",
            "requests",
            "sent",
            "failed",
            "app errors",
            "told",
            "cut",
            "retried",
            "closed",
            "median",
            "p99",
            "slowest"
        )?;
        for (kind, figures) in &self.kinds {
            row(formatter, &kind.to_string(), figures)?;
        }
        row(formatter, "all", &self.total())?;
        for seen in &self.releases {
            writeln!(
                formatter,
                "release {} answered from {} to {}: {} times, {} errors",
                seen.release,
                self.since_start(seen.first),
                self.since_start(seen.last),
                seen.answers,
                seen.errors
            )?;
        }
        for failure in &self.failures {
            let at = self.since_start(failure.at);
            writeln!(
                formatter,
                "failed at {at}: {} ({}): {}",
                failure.kind, failure.connection, failure.why
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn since_start(&self, at: std::time::SystemTime) -> String {
        format!("{:.3} s", at.duration_since(self.started).unwrap_or_default().as_secs_f64())
    }
}

fn row(formatter: &mut fmt::Formatter<'_>, name: &str, figures: &Figures) -> fmt::Result {
    // A bucket's upper bound may lie above the slowest of all.
    let quantile = |part| {
        let bound = Duration::from_micros(figures.latencies.value_at_quantile(part));
        milliseconds(bound.min(figures.slowest))
    };
    writeln!(
        formatter,
        "{name:<10} {:>8} {:>7} {:>10} {:>5} {:>4} {:>8} {:>7} {:>9} {:>9} {:>9}",
        figures.sent,
        figures.failed,
        figures.app_errors,
        figures.told,
        figures.cut,
        figures.retried,
        figures.closed,
        quantile(0.5),
        quantile(0.99),
        milliseconds(figures.slowest),
    )
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
