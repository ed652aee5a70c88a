//! All that a release needs of what is here: images and artifacts that the host lacks.

use std::collections::BTreeSet;

use cutover_core::names::RunId;
use cutover_core::release::Content;
use cutover_core::state::FoundImage;
use cutover_core::wire::Ask;

use super::{Image, hear_lacking, ship_images};
use crate::hosts::Channel;
use crate::render::{self, Progress};
use crate::sources::Contents;
use crate::verbs::Stop;

/// Gives the host what it lacks. Contents then name images as the host knows them; whether that is otherwise than before.
pub(crate) async fn ship_release(
    host: &mut Channel,
    run: RunId,
    contents: &mut Contents,
    progress: &mut Progress,
) -> Result<bool, Stop> {
    let artifacts: BTreeSet<_> = contents.artifacts.keys().cloned().collect();
    if artifacts.is_empty() && contents.images.is_empty() {
        return Ok(false);
    }
    let images = contents.images.iter().map(|image| image.parts.clone()).collect();
    host.ask(&Ask::Lacking { run, images, artifacts }).await?;
    let lacking = hear_lacking(host).await?;
    for hash in &lacking.artifacts {
        let Some(artifact) = contents.artifacts.get(hash) else { continue };
        let (file, bytes) = artifact.pack()?;
        progress.doing("ship", &format!("artifact {} ({})", hash.short(), render::size(bytes)));
        let ask = Ask::Artifact { hash: hash.clone(), bytes };
        host.ask_from(&ask, tokio::fs::File::from_std(file), bytes).await?;
        host.done().await?;
    }
    let Some(engine) = &contents.engine else { return Ok(false) };
    let found = ship_images(host, engine, &contents.images, lacking, progress).await?;
    let mut changed = false;
    for image in &contents.images {
        let Some(found) = found.get(&image.parts.name) else { continue };
        for content in contents.by_service.values_mut() {
            changed |= rename(content, image, found);
        }
    }
    Ok(changed)
}

/// What the host calls an image.
fn rename(content: &mut Content, image: &Image, found: &FoundImage) -> bool {
    let Content::Image { reference, identity, name, .. } = content else { return false };
    if *identity != image.parts.identity || *reference == found.id {
        return false;
    }
    reference.clone_from(&found.id);
    *name = Some(image.parts.name.clone());
    true
}
