//! A plan in which nothing is done: what the plans of verbs that touch few stages begin with.

use std::collections::BTreeMap;

use crate::names::AppId;
use crate::plan::{Direction, HostPlan, PLAN_VERSION, Planned, RecordPlan, WhyNot};
use crate::request::{Request, Stamp};
use crate::state::HostState;

/// What is live stays so, and no stage has anything to do.
pub(crate) fn idle(id: &AppId, state: &HostState, request: &Request, stamp: Stamp) -> HostPlan {
    HostPlan {
        version: PLAN_VERSION,
        run: stamp.run,
        app: id.clone(),
        verb: request.verb,
        by: request.by.clone(),
        made: stamp.now,
        fingerprint: state.fingerprint(),
        allowed: request.allow.clone(),
        direction: Direction::Forward,
        release: None,
        live: state.live.clone(),
        becomes: state.live.clone(),
        services: BTreeMap::new(),
        variables: BTreeMap::new(),
        preflight: Planned::NotNeeded(WhyNot::NotInThisVerb),
        backing: Planned::NotNeeded(WhyNot::NotInThisVerb),
        snapshot: Planned::NotNeeded(WhyNot::NotInThisVerb),
        migrate: Planned::NotNeeded(WhyNot::NotInThisVerb),
        start: Planned::NotNeeded(WhyNot::NotInThisVerb),
        check: Planned::NotNeeded(WhyNot::NotInThisVerb),
        handover: Planned::NotNeeded(WhyNot::NotInThisVerb),
        switch: Planned::NotNeeded(WhyNot::NotInThisVerb),
        verify: Planned::NotNeeded(WhyNot::NotInThisVerb),
        bake: Planned::NotNeeded(WhyNot::NotInThisVerb),
        drain: Planned::NotNeeded(WhyNot::NotInThisVerb),
        record: RecordPlan::default(),
        notes: Vec::new(),
    }
}
