//! What is done with releases that are recorded: `rollback`, `restart`, `start`, `stop`, `remove`, `prune`, and what changes snapshots. They need the app's name, and nothing
//! else of its configuration.

use std::collections::BTreeSet;

use cutover_core::plan::{Plan, Verb, lifecycle as plan_lifecycle};
use cutover_core::request::Request;
use cutover_core::state::HostState;

use super::run::{self, Keep, Sending};
use super::{Desk, Ended, Stop, approval, look, observe, prune, snapshot, stamp, world};
use crate::asked::{Asked, Conduct};
use crate::effects;
use crate::hosts::{self, Channel, Target};
use crate::sources::{Identity, Overlay, Project};

pub(super) async fn lifecycle(desk: &Desk, asked: Asked) -> Ended {
    let Asked { request, conduct, .. } = asked;
    let identity = Project::open(&desk.place)?.identity(&desk.place)?;
    let opening = hosts::begin(&identity.target)?;
    let (mut host, mut state) = look(desk, opening, &identity.id, BTreeSet::new(), conduct).await?;
    let looked = match request.verb {
        Verb::Prune => prune::look(&mut host, &mut state).await,
        Verb::SnapshotPrune => snapshot::look_for_unneeded(&mut host, &mut state).await,
        Verb::SnapshotRestore => snapshot::look(&mut host, &mut state).await,
        _ => Ok(()),
    };
    looked.map_err(|stop| stop.untouched(&state))?;
    carry_out(desk, &identity, host, &state, request, conduct).await.map_err(|stop| stop.untouched(&state))
}

/// Once the host was looked at: what serves is known.
async fn carry_out(
    desk: &Desk,
    identity: &Identity,
    mut host: Channel,
    state: &HostState,
    request: Request,
    conduct: Conduct,
) -> Ended {
    let mut plan = made(host.target(), state, &request)?;
    let losses = snapshot::losses(&mut host, state, &plan).await?;
    run::note(&mut plan, &losses);
    run::show(desk, &plan, conduct)?;
    if conduct.dry_run {
        return Ok(0);
    }
    if run::is_settled(state) && crate::render::nothing_to_do(&plan) {
        return run::nothing_to_do(desk, &plan);
    }
    approval::approve(desk, &effects::question(&request, &identity.id, identity.protection), conduct)?;
    let needs_proxy = match request.verb {
        // What is only taken away is so without a proxy, too, and so is what nobody is held for.
        Verb::Prune | Verb::SnapshotPrune | Verb::SnapshotCreate => false,
        Verb::SnapshotRestore => request.snapshot.to.is_none(),
        _ => true,
    };
    let plan = if needs_proxy && run::up(desk, &mut host, state).await? {
        // The proxy that was started is part of what the plan is made from.
        let mut seen = observe(&mut host, &identity.id, BTreeSet::new()).await?;
        seen.snapshots.clone_from(&state.snapshots);
        let mut plan = made(host.target(), &seen, &request)?;
        run::note(&mut plan, &losses);
        plan
    } else {
        plan
    };
    let sending = Sending {
        plan: run::only(plan)?,
        overlay: &Overlay::default(),
        unset: BTreeSet::new(),
        keep: Keep::InRelease,
        conduct,
    };
    run::run(desk, &mut host, sending).await
}

fn made(target: &Target, state: &HostState, request: &Request) -> Result<Plan, Stop> {
    Ok(plan_lifecycle(&state.app, &world(target, state), request, stamp(state))
        .map_err(|refusals| refusals.failure())?)
}
