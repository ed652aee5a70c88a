//! The simulated host with its fault points: the world as it is, the calls made of it, and what lands after its caller gave up.

use super::faults::{Fault, FaultPlan};
use super::world::World;

/// An effect that lands after its caller gave up.
struct Late {
    due: u64,
    effect: Box<dyn FnOnce(&mut World) + Send>,
}

/// The simulated host.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) world: World,
    /// Calls of ports so far.
    pub(crate) calls: u64,
    /// Calls since the first fault.
    pub(crate) since_first: Option<u64>,
    faults: FaultPlan,
    late: Vec<Late>,
    /// Something landed after its caller gave up.
    pub(crate) landed: bool,
}

impl Machine {
    pub(crate) fn new(world: World, faults: FaultPlan) -> Self {
        Self { world, faults, ..Self::default() }
    }

    /// Counts a call; says what goes wrong at it. Between calls the world goes on: late effects land, traffic is served.
    pub(crate) fn call(&mut self) -> Option<Fault> {
        self.calls += 1;
        self.land(self.calls);
        self.world.traffic();
        match (self.faults.first, self.since_first, self.faults.second) {
            (Some((at, fault)), None, _) if at == self.calls => {
                self.since_first = Some(0);
                Some(fault)
            }
            (_, Some(count), second) => {
                self.since_first = Some(count + 1);
                second.filter(|(at, _)| *at == count + 1).map(|(_, fault)| fault)
            }
            _ => None,
        }
    }

    /// Puts an effect off, by some calls.
    pub(crate) fn lands_later(&mut self, effect: impl FnOnce(&mut World) + Send + 'static) {
        self.late.push(Late { due: self.calls + 3, effect: Box::new(effect) });
    }

    /// All late effects land now.
    pub(crate) fn land_all(&mut self) {
        self.land(u64::MAX);
    }

    fn land(&mut self, until: u64) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|late| late.due <= until);
        self.late = later;
        self.landed |= !due.is_empty();
        for late in due {
            (late.effect)(&mut self.world);
        }
    }
}
