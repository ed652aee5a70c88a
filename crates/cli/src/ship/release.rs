//! All that a release needs of what is here: images and artifacts that the host lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use cutover_core::hash::ContentHash;
use cutover_core::names::RunId;
use cutover_core::release::{Content, Release};
use cutover_core::state::{FoundImage, HostState};
use cutover_core::wire::{Ask, Destination};
use tokio::task::spawn_blocking;

use super::chunks::{self, Cut};
use super::parcels::Sender;
use super::{Image, hear_lacking, ship_images};
use crate::hosts::{Channel, Target};
use crate::render::{self, Progress};
use crate::sources::{Artifact, Contents};
use crate::verbs::Stop;

/// An artifact whose archive is smaller is sent as it is: a list of its chunks would save little.
const SENT_WHOLE: u64 = 128 * 1024;

/// Gives the host what it lacks. Contents then name images as the host knows them; whether that is otherwise than before.
pub(crate) async fn ship_release(
    host: &mut Channel,
    run: RunId,
    state: &HostState,
    contents: &mut Contents,
    progress: &mut Progress,
) -> Result<bool, Stop> {
    let artifacts: BTreeSet<_> = contents.artifacts.keys().cloned().collect();
    if artifacts.is_empty() && contents.images.is_empty() {
        return Ok(false);
    }
    let images = contents.images.iter().map(|image| image.parts.clone()).collect();
    let early = Early::prepare(host.target(), state, &contents.artifacts).await?;
    host.ask(&Ask::Lacking { run, images, artifacts }).await?;
    // What it will surely lack is not waited for.
    early.begin(host, progress).await?;
    let lacking = hear_lacking(host).await?;
    let sent = early.finish(host, progress).await?;
    for hash in lacking.artifacts.difference(&sent) {
        let Some(artifact) = contents.artifacts.get(hash) else { continue };
        let archive = pack(artifact).await?;
        send_whole(host, hash, archive, progress).await?;
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

/// Artifacts that no release of the host knows. Over a network they are sent, or what they consist of is told, before the host has said that it lacks
/// them.
struct Early {
    /// Small ones.
    whole: BTreeMap<ContentHash, File>,
    /// The others.
    cut: BTreeSet<ContentHash>,
    sender: Sender,
}

impl Early {
    async fn prepare(
        target: &Target,
        state: &HostState,
        artifacts: &BTreeMap<ContentHash, Artifact>,
    ) -> io::Result<Self> {
        let (mut whole, mut cuts) = (BTreeMap::new(), Vec::new());
        let known: BTreeSet<ContentHash> = match target {
            // Nothing is gained by sending less to this machine: artifacts go as they are.
            Target::Here => artifacts.keys().cloned().collect(),
            Target::Server(_) => {
                state.releases.iter().map(|record| &record.release).flat_map(Release::artifacts).collect()
            }
        };
        for (hash, artifact) in artifacts.iter().filter(|(hash, _)| !known.contains(*hash)) {
            let archive = pack(artifact).await?;
            if chunks::size(&archive)? < SENT_WHOLE {
                whole.insert(hash.clone(), archive);
            } else {
                let to = Destination::Artifact { hash: hash.clone() };
                let cut = spawn_blocking(move || Cut::of(archive, to)).await;
                cuts.push(cut.map_err(io::Error::other)??);
            }
        }
        let cut = cuts.iter().map(|cut| cut.parcel.hash()).collect();
        Ok(Self { whole, cut, sender: Sender::new(cuts) })
    }

    async fn begin(&self, host: &mut Channel, progress: &mut Progress) -> Result<(), Stop> {
        for (hash, archive) in &self.whole {
            send_whole(host, hash, archive.try_clone()?, progress).await?;
        }
        if !self.cut.is_empty() {
            self.sender.announce(host).await?;
        }
        Ok(())
    }

    /// Hears the answers, and sends what lacks; which artifacts are there now.
    async fn finish(
        &self,
        host: &mut Channel,
        progress: &mut Progress,
    ) -> Result<BTreeSet<ContentHash>, Stop> {
        for _ in &self.whole {
            host.done().await?;
        }
        if !self.cut.is_empty() {
            let what = match self.cut.first() {
                Some(only) if self.cut.len() == 1 => format!("artifact {}", only.short()),
                _ => format!("{} artifacts", self.cut.len()),
            };
            self.sender.send(host, &what, progress).await?;
        }
        Ok(self.whole.keys().chain(&self.cut).cloned().collect())
    }
}

async fn pack(artifact: &Artifact) -> io::Result<File> {
    let artifact = artifact.clone();
    spawn_blocking(move || artifact.pack()).await.map_err(io::Error::other)?
}

/// Its answer is still to be heard.
async fn send_whole(
    host: &mut Channel,
    hash: &ContentHash,
    archive: File,
    progress: &mut Progress,
) -> Result<(), Stop> {
    let bytes = chunks::size(&archive)?;
    progress.doing("ship", &format!("artifact {} ({})", hash.short(), render::size(bytes)));
    let ask = Ask::Artifact { hash: hash.clone(), bytes };
    Ok(host.ask_from(&ask, tokio::fs::File::from_std(archive), bytes).await?)
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
