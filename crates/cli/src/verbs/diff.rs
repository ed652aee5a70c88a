//! `diff`: what is otherwise on the host than it was recorded when it went live, each with the command that mends it.

use std::collections::BTreeSet;

use cutover_core::config::Selection;
use cutover_core::drift;
use cutover_core::exit::Exit;
use cutover_core::names::AppId;
use cutover_core::release::Content;
use cutover_core::state::HostState;
use cutover_core::wire::{Ask, HostFacts, Reply};

use super::{Desk, Ended, Stop, observe};
use crate::hosts::{self, Channel, unexpected};
use crate::render::{self, Line};
use crate::sources::Project;

/// Exits with 4 where something differs.
pub(super) async fn diff(desk: &Desk) -> Ended {
    let project = Project::open(&desk.place)?;
    let identity = project.identity(&desk.place)?;
    let mut host = hosts::open(&identity.target).await?;
    let state = observe(&mut host, &identity.id, BTreeSet::new()).await?;
    // Which images are asked for follows from what is live.
    let state = match images(&state) {
        none if none.is_empty() => state,
        images => observe(&mut host, &identity.id, images).await?,
    };
    let facts = facts(&mut host, &identity.id).await?;
    let selection = Selection { environment: desk.place.environment.clone(), ..Selection::default() };
    // A file that is being mended wants nothing yet.
    let wanted = project.config(&selection).ok();
    let found = drift::find(&state, &facts, wanted.as_ref());
    for one in &found {
        desk.output.answer(&Line::Drift { drift: one }, || render::drift(one))?;
    }
    if found.is_empty() {
        desk.output.talk(&format!("{} is as it was recorded", identity.id));
    }
    Ok(if found.is_empty() { Exit::Done } else { Exit::NotHealthy }.code())
}

/// What the machine is like.
pub(super) async fn facts(host: &mut Channel, app: &AppId) -> Result<HostFacts, Stop> {
    match host.answer(&Ask::Facts { app: app.clone() }).await? {
        Reply::Facts { facts } => Ok(*facts),
        other => Err(unexpected("facts", &other).into()),
    }
}

/// The images of the live release.
fn images(state: &HostState) -> BTreeSet<String> {
    let live = state.live.as_ref();
    let record =
        state.releases.iter().find(|record| live.is_some_and(|live| live.release == record.release.id));
    let contents = record.into_iter().flat_map(|record| record.release.contents());
    let images = contents.filter_map(|content| match content {
        Content::Image { reference, .. } => Some(reference.clone()),
        Content::Artifact { .. } => None,
    });
    images.collect()
}
