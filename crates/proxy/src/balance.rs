//! Which of a route's targets gets a request: the one with the fewest in flight; ties go round.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::target::Target;

/// A route's targets, and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    all: Vec<Arc<Target>>,
    turn: AtomicUsize,
}

impl Targets {
    pub(crate) fn new(all: Vec<Arc<Target>>) -> Self {
        Self { all, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The target for the next request, none of those it was already refused by. A target that lately refused a connection is
    /// taken only when there is no other.
    pub(crate) fn choose(&self, refused: &[Arc<Target>]) -> Option<&Arc<Target>> {
        if let ([only], []) = (self.all.as_slice(), refused) {
            return Some(only);
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.all.len()).map(|step| &self.all[(first.wrapping_add(step)) % self.all.len()]);
        // `min_by_key` keeps the first of equals, which is the one whose turn it is.
        in_turn
            .filter(|target| !refused.iter().any(|other| Arc::ptr_eq(target, other)))
            .min_by_key(|target| (target.is_passed_over(), target.in_flight.glance()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::InFlight;
    use cutover_routes::Address;
    use std::time::Duration;

    fn targets(count: u16) -> Vec<Arc<Target>> {
        (0..count)
            .map(|number| {
                let address = Address::Tcp(([127, 0, 0, 1], 20_000 + number).into());
                Arc::new(Target::new(number.to_string(), address))
            })
            .collect()
    }

    #[test]
    fn ties_go_round() {
        let targets = Targets::new(targets(3));

        let chosen: Vec<_> = (0..6).map(|_| targets.choose(&[]).unwrap().id.clone()).collect();

        assert_eq!(chosen, ["0", "1", "2", "0", "1", "2"]);
    }

    #[test]
    fn the_least_busy_is_chosen() {
        let all = targets(2);
        let _busy = InFlight::enter(&all[0]);
        let targets = Targets::new(all);

        assert!((0..4).all(|_| targets.choose(&[]).unwrap().id == "1"));
    }

    #[test]
    fn one_that_refused_is_passed_over_while_there_is_another() {
        let all = targets(2);
        all[0].pass_over(Duration::from_mins(1));
        let targets = Targets::new(all.clone());

        assert!((0..4).all(|_| targets.choose(&[]).unwrap().id == "1"));
        assert_eq!(targets.choose(&all[1..]).unwrap().id, "0");
        assert!(targets.choose(&all).is_none());
        all[0].answered();
        assert!((0..2).any(|_| targets.choose(&[]).unwrap().id == "0"));
    }
}
