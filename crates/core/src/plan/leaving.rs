//! What goes when all is decided: removing a stopped instance is nobody's reason to wait.

use super::{Direction, HostPlan, InstanceRef, Verb};

/// Instances whose processes end in the drain, and which are removed when the verdict has been told. The verdict waits for the removal where
/// something else does: a network that goes, a folder, a candidate that is kept in their place, the way back.
pub fn leaving(plan: &HostPlan) -> &[InstanceRef] {
    let Some(drain) = plan.drain.todo() else { return &[] };
    let is_usual = plan.direction == Direction::Forward && matches!(plan.verb, Verb::Deploy | Verb::Rollback);
    let is_waited_for = !(drain.keep_warm.is_zero()
        && drain.kept_candidates.is_empty()
        && plan.record.networks.is_empty()
        && plan.record.volumes.is_empty());
    if is_usual && !is_waited_for { &drain.outgoing } else { &[] }
}
