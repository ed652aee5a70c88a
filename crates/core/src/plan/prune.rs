//! The plan of `prune`, and of `snapshot prune`, which takes nothing else: what is live goes on as it is, and what a look found to be needed by
//! nothing goes.

use crate::names::AppId;
use crate::plan::assemble::candidates;
use crate::plan::idle::idle;
use crate::plan::{HostPlan, RecordPlan, Verb};
use crate::request::{Request, Stamp};
use crate::retention::Kind;
use crate::state::HostState;

/// Plans `prune`. Without a look for left-overs there are none.
pub(crate) fn prune(id: &AppId, state: &HostState, request: &Request, stamp: Stamp) -> HostPlan {
    let mut found = state.leftovers.clone().unwrap_or_default();
    if request.verb == Verb::SnapshotPrune {
        found.gone.retain(|one| one.kind == Kind::Snapshot);
        let record = RecordPlan { leftovers: found.gone, ..RecordPlan::default() };
        return HostPlan { record, ..idle(id, state, request, stamp) };
    }
    HostPlan {
        record: RecordPlan {
            candidates: state.live.as_ref().map_or_else(Vec::new, |live| candidates(state, live)),
            leftovers: found.gone,
            ..RecordPlan::default()
        },
        notes: found.stays,
        ..idle(id, state, request, stamp)
    }
}
