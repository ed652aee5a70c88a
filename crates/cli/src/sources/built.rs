//! Images that were built here for an app and that its host needs no more: they would pile up on the laptop or CI machine that builds.

use std::collections::BTreeSet;

use cutover_core::names::AppId;
use cutover_core::release::{Content, Release};
use cutover_core::state::HostState;
use cutover_engine::Engine;

/// Names of images that were built here for an app, but for those that releases on the host's record have, and those of `now`. Looked for before
/// the run: what another deploy builds meanwhile is none of them. Where the engine does not tell there are none: that is no reason to fail.
pub(crate) async fn older_images<'a>(
    engine: &Engine,
    app: &AppId,
    state: &'a HostState,
    now: impl IntoIterator<Item = &'a Content>,
) -> Vec<String> {
    let of_record = state.releases.iter().flat_map(|record| Release::contents(&record.release));
    let needed: BTreeSet<&str> = of_record.chain(now).filter_map(name).collect();
    let names = engine.image_names(&format!("cutover/{app}/*")).await.unwrap_or_default();
    let names = names.iter().map(|name| name.strip_prefix("localhost/").unwrap_or(name));
    names.filter(|name| !needed.contains(name)).map(str::to_owned).collect()
}

/// Takes the names away; gives how many went. What a container uses stays, as does what has another name. One that stays is tried again by the next
/// deploy.
pub(crate) async fn remove_images(engine: &Engine, names: &[String]) -> usize {
    let mut gone = 0;
    for name in names {
        gone += usize::from(engine.remove_image(name).await.is_ok());
    }
    gone
}

fn name(content: &Content) -> Option<&str> {
    match content {
        Content::Image { name, .. } => name.as_deref(),
        Content::Artifact { .. } => None,
    }
}
