//! What came of each case.

use std::fmt;
use std::time::Duration;

use super::Case;

/// One case.
#[derive(Clone, Debug)]
pub struct Row {
    pub case: Case,
    /// What the client exited with; none: killed.
    pub client: Option<i32>,
    /// From the fault to the client's end.
    pub noticed: Duration,
    /// What `history` says; none where no run had begun.
    pub verdict: Option<u8>,
    /// From the fault to one live release, with nobody at it.
    pub converged: Duration,
    /// Whether it is the new one.
    pub new: bool,
    pub sent: u64,
    pub failed: u64,
    /// Told by the proxy that a hold lasts too long: 503 with `Retry-After`.
    pub told: u64,
    /// Failed while the server itself was down, or inside a proxy that was killed.
    pub down: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = |code: Option<i32>| code.map_or("-".to_owned(), |code| code.to_string());
        write!(
            formatter,
            "{:<40} {:<6} {:>6.1}s  {:<7} {:<6} {:>6.1}s {:>9} {:>6} {:>4} {:>4}",
            self.case.to_string(),
            code(self.client),
            self.noticed.as_secs_f64(),
            code(self.verdict.map(i32::from)),
            if self.new { "new" } else { "old" },
            self.converged.as_secs_f64(),
            self.sent,
            self.failed,
            self.told,
            self.down,
        )
    }
}

/// Cases as a table, a line each, and the sums.
pub fn table(rows: &[Row]) -> String {
    let head = format!(
        "{:<40} client after    verdict serves after    requests failed told down",
        "what happened, when"
    );
    let lines = [head].into_iter().chain(rows.iter().map(Row::to_string)).collect::<Vec<_>>();
    let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let slowest = rows.iter().map(|row| row.converged).max().unwrap_or_default();
    format!(
        "{}\n{} cases, {} requests, {} failed, {} more while the server was down or inside a killed proxy; slowest to converge {:.1}s",
        lines.join("\n"),
        rows.len(),
        sum(|row| row.sent),
        sum(|row| row.failed),
        sum(|row| row.down),
        slowest.as_secs_f64()
    )
}
