//! Times as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// A span: `12 ms`, `1.4 s`, `2 min 5 s`, `3 h 20 min`, `4 d`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 if duration.subsec_millis() < 100 => format!("{seconds} s"),
        1..60 => format!("{}.{} s", seconds, duration.subsec_millis() / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// From then until now; a moment that has not come yet counts as now.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    span(Duration::try_from(now.duration_since(then)).unwrap_or_default())
}

/// A moment to the second, in UTC, so that two people read the same.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_at_every_size() {
        let texts: Vec<String> = [7, 999, 1_440, 59_999, 125_000, 12_000_000, 400_000_000]
            .into_iter()
            .map(|millis| span(Duration::from_millis(millis)))
            .collect();
        assert_eq!(texts, ["7 ms", "999 ms", "1.4 s", "59.9 s", "2 min 5 s", "3 h 20 min", "4 d"]);
    }
}
