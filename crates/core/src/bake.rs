//! Figures → verdict of a bake: whether the new release does worse than the old one did.

use std::collections::BTreeSet;

use cutover_routes::figures::{Figures, TargetFigures};

use crate::defaults;
use crate::names::InstanceName;

/// What was counted of some targets between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Answers of all classes, and requests that found none.
    pub requests: u64,
    /// 5xx, and requests that found no answer.
    pub errors: u64,
}

impl Counted {
    /// All that these targets have counted since the proxy's start.
    pub fn of<'a>(figures: &Figures, targets: impl IntoIterator<Item = &'a InstanceName>) -> Self {
        let names: BTreeSet<&str> = targets.into_iter().map(InstanceName::as_str).collect();
        let counted = figures
            .targets
            .iter()
            .filter(|(name, _)| names.contains(name.as_str()))
            .map(|(_, target)| Self::target(target));
        counted.fold(Self::default(), |sum, one| Self {
            requests: sum.requests + one.requests,
            errors: sum.errors + one.errors,
        })
    }

    fn target(figures: &TargetFigures) -> Self {
        let answers: u64 = figures.answers.values().sum();
        let errors = figures.answers.get("5xx").copied().unwrap_or_default();
        Self { requests: answers + figures.broken, errors: errors + figures.broken }
    }

    /// The difference to an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
        }
    }
}

/// Why a bake fails, if it does: enough requests, more than the tolerated share of errors, and twice the old release's rate.
pub fn judge(new: Counted, old: Counted) -> Option<String> {
    let enough = new.requests >= defaults::BAKE_REQUESTS;
    let many = new.errors * 100 > new.requests * defaults::BAKE_PERCENT;
    // Rates are compared crosswise: new.errors / new.requests ≥ 2 · old.errors / old.requests. An old one that was never asked had no errors.
    let worse = new.errors * old.requests.max(1) >= 2 * old.errors * new.requests;
    (enough && many && worse).then(|| {
        format!("{} of {} requests to the new release failed (5xx or no answer)", new.errors, new.requests)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(requests: u64, errors: u64) -> Counted {
        Counted { requests, errors }
    }

    #[test]
    fn a_bake_fails_by_enough_requests_with_more_errors_than_the_old_release_had() {
        assert!(judge(counted(20, 2), counted(100, 0)).is_some());
        assert!(judge(counted(20, 2), counted(0, 0)).is_some());
        assert!(judge(counted(19, 19), counted(0, 0)).is_none(), "too few to tell");
        assert!(judge(counted(100, 5), counted(0, 0)).is_none(), "5 % is tolerated");
        assert!(judge(counted(100, 10), counted(100, 6)).is_none(), "the old one did hardly better");
        assert!(judge(counted(100, 12), counted(100, 6)).is_some());
    }
}
