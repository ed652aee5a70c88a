//! When a crashed instance is started again: soon, and ever later while it keeps crashing.

use std::time::Duration;

use cutover_core::defaults::{RESTART_FIRST, RESTART_MOST, RESTART_STEADY};

/// The pauses of one instance.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: RESTART_FIRST }
    }

    /// The pause after it ran for so long. Having run steadily, it begins anew with the shortest.
    pub(super) fn pause(&mut self, ran: Duration) -> Duration {
        if ran >= RESTART_STEADY {
            self.next = RESTART_FIRST;
        }
        let pause = self.next;
        self.next = (self.next * 2).min(RESTART_MOST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_begin_anew_after_a_steady_run() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.pause(Duration::ZERO), RESTART_FIRST);
        assert_eq!(backoff.pause(Duration::ZERO), RESTART_FIRST * 2);
        for _ in 0..20 {
            backoff.pause(Duration::ZERO);
        }
        assert_eq!(backoff.pause(Duration::ZERO), RESTART_MOST);
        assert_eq!(backoff.pause(RESTART_STEADY), RESTART_FIRST);
    }
}
