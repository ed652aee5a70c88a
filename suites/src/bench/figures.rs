//! Many measurements of one thing as one figure: the median, and how far the others lie from it.

use std::time::Duration;

use serde::Serialize;

/// What many measurements of one thing come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    /// One in ten lies below.
    pub(crate) low: f64,
    /// One in ten lies above.
    pub(crate) high: f64,
    pub(crate) samples: usize,
}

impl Figure {
    /// `None`: nothing was measured.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |tenths: usize| sorted.get((sorted.len().checked_sub(1)? * tenths + 5) / 10).copied();
        Some(Self { median: middle(&sorted)?, low: at(1)?, high: at(9)?, samples: sorted.len() })
    }
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(half.checked_sub(1)?)?, upper))
}

/// Each of the first over its partner of the second: what was measured side by side shares the machine's mood.
pub(crate) fn ratios(these: &[f64], over: &[f64]) -> Vec<f64> {
    these.iter().zip(over).map(|(this, other)| this / other).collect()
}

/// Each of the first less its partner of the second.
pub(crate) fn differences(these: &[f64], less: &[f64]) -> Vec<f64> {
    these.iter().zip(less).map(|(this, other)| this - other).collect()
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Between two moments of a journal.
pub(crate) fn between(from: jiff::Timestamp, to: jiff::Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_an_odd_and_an_even_number_of_samples_then_the_median_is_the_middle() {
        let odd = Figure::of(&[3.0, 1.0, 2.0]);
        let even = Figure::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(odd.map(|figure| figure.median), Some(2.0));
        assert_eq!(even.map(|figure| figure.median), Some(2.5));
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn given_an_outlier_among_many_then_the_spread_leaves_it_out() {
        let samples: Vec<f64> = (1..=20).map(f64::from).chain([1_000.0]).collect();
        let figure = Figure::of(&samples);
        assert_eq!(figure.map(|figure| (figure.low, figure.high)), Some((3.0, 19.0)));
    }
}
