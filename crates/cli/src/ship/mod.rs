//! Getting images and files to a host that lacks them, over the session's channel: layer by layer, chunk by chunk, and only those that it lacks.
//!
//! Layers are read from the engine that has the image by letting it push to a registry in this process, else from what it saves; each is
//! compressed with zstd. They are sent as they come, while the engine still reads the next ones.

mod blob;
mod build;
mod chunks;
mod parcels;
mod parts;
mod push;
mod registry;
mod release;
mod save;

use std::collections::{BTreeMap, BTreeSet};

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::state::FoundImage;
use cutover_core::wire::{Ask, ImageParts, Lacking, Reply};
use cutover_engine::{Engine, EngineError, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::hosts::{Channel, HostError, unexpected};
use crate::render::{Cargo, Progress};
use blob::{Blob, pack};

pub(crate) use build::ForHost;
pub(crate) use release::ship_release;

/// Layers that are sent before the first of them has to be confirmed.
const UNCONFIRMED: usize = 8;
/// A host says what lacks, and may find that more does: engines lose images, and some cannot make one from layers they have.
const ROUNDS: usize = 3;

/// An image of the client's engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) parts: ImageParts,
    /// Digest of its configuration, where the engine tells it.
    pub(crate) configuration: Option<String>,
}

impl Image {
    /// A configuration, if it is this image's.
    fn configuration_in(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let read: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let layers = read.get("rootfs")?.get("diff_ids")?.as_array()?;
        let layers = layers.iter().map(|layer| ContentHash::from_hex(layer.as_str()?));
        layers.eq(self.parts.layers.iter().cloned().map(Some)).then_some(bytes)
    }
}

/// Why layers could not be read from the engine.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("here: {0}")]
    Here(#[from] std::io::Error),
    #[error("the engine does not reach this process on loopback")]
    Silent,
    #[error("the engine gave neither all layers nor the configuration that it names")]
    Incomplete,
}

/// Gives the host what it lacks of images; what it then has, by name.
async fn ship_images(
    host: &mut Channel,
    engine: &Engine,
    images: &[Image],
    lacking: Lacking,
    progress: &mut Progress,
) -> Result<BTreeMap<String, FoundImage>, Failure> {
    let Lacking { mut found, layers, .. } = lacking;
    for image in images {
        let Some(layers) = layers.get(&image.parts.name) else { continue };
        let made = ship(host, engine, image, layers.clone(), progress).await?;
        found.insert(image.parts.name.clone(), made);
    }
    Ok(found)
}

async fn ship(
    host: &mut Channel,
    engine: &Engine,
    image: &Image,
    mut layers: BTreeSet<ContentHash>,
    progress: &mut Progress,
) -> Result<FoundImage, Failure> {
    let name = &image.parts.name;
    let cargo = Cargo::Image(name.clone());
    progress.begin_sending(cargo, &format!("{} of {} layers", layers.len(), image.parts.layers.len()));
    for _ in 0..ROUNDS {
        let configuration = send_layers(host, engine, image, layers, progress).await?;
        let packed = pack(configuration.as_slice()).map_err(|error| not_read(name, &error.into()))?;
        let ask = Ask::Load { image: image.parts.clone(), bytes: packed.bytes };
        let lacking = async {
            host.ask_from(&ask, tokio::fs::File::from_std(packed.packed), packed.bytes).await?;
            hear_lacking(host).await
        };
        let mut lacking = lacking.await.map_err(HostError::failure)?;
        if let Some(found) = lacking.found.remove(name) {
            progress.end_sending().map_err(|error| not_told(&error))?;
            return Ok(found);
        }
        layers = lacking.layers.remove(name).unwrap_or_default();
    }
    Err(Failure::new(Exit::Failed, format!("the host did not make image {name} of its layers"))
        .because("it went on asking for layers that had been sent")
        .next("deploy again; the log of the host's container engine says more"))
}

fn not_told(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, "nobody hears what is told any more").because(error.to_string())
}

/// Hears [`Reply::Lacking`].
async fn hear_lacking(host: &mut Channel) -> Result<Lacking, HostError> {
    match host.reply().await? {
        Reply::Lacking { lacking } => Ok(lacking),
        other => Err(unexpected("lacking", &other)),
    }
}

/// Sends layers as they are read; gives the configuration.
async fn send_layers(
    host: &mut Channel,
    engine: &Engine,
    image: &Image,
    mut layers: BTreeSet<ContentHash>,
    progress: &mut Progress,
) -> Result<Vec<u8>, Failure> {
    let (arrived, mut arrives) = mpsc::unbounded_channel();
    let reading = Reading(tokio::spawn(read(engine.clone(), image.clone(), layers.clone(), arrived)));
    let mut unconfirmed = 0;
    while let Some(blob) = arrives.recv().await {
        if !layers.remove(&blob.content) {
            continue;
        }
        if unconfirmed == UNCONFIRMED {
            host.done().await.map_err(HostError::failure)?;
            unconfirmed -= 1;
        }
        send(host, blob, progress).await.map_err(HostError::failure)?;
        unconfirmed += 1;
    }
    for _ in 0..unconfirmed {
        host.done().await.map_err(HostError::failure)?;
    }
    reading.configuration().await.map_err(|error| not_read(&image.parts.name, &error))
}

async fn send(host: &mut Channel, blob: Blob, progress: &mut Progress) -> Result<(), HostError> {
    progress.will_send(blob.bytes);
    let ask = Ask::Layer { layer: blob.content, bytes: blob.bytes };
    let file = progress.counted(tokio::fs::File::from_std(blob.packed));
    host.ask_from(&ask, file, blob.bytes).await
}

/// What reads from the engine. Dropped, it ends.
struct Reading(JoinHandle<Result<Vec<u8>, ReadError>>);

impl Reading {
    async fn configuration(mut self) -> Result<Vec<u8>, ReadError> {
        (&mut self.0).await.map_err(std::io::Error::other)?
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read(
    engine: Engine,
    image: Image,
    layers: BTreeSet<ContentHash>,
    arrived: mpsc::UnboundedSender<Blob>,
) -> Result<Vec<u8>, ReadError> {
    match push::read(&engine, &image, &layers, &arrived).await {
        Ok(configuration) => Ok(configuration),
        // A disk of ours that is full is so for both.
        Err(ReadError::Here(error)) => Err(error.into()),
        Err(_) => save::read(&engine, &image, &layers, &arrived).await,
    }
}

fn not_read(name: &str, error: &ReadError) -> Failure {
    let failure =
        Failure::new(Exit::Failed, format!("image {name} could not be read from the container engine here"))
            .because(error.to_string());
    match error {
        ReadError::Engine(EngineError { kind: Kind::Unreachable, .. }) => {
            failure.next("see that the container engine here is up, then deploy again")
        }
        ReadError::Here(_) => failure.next(format!(
            "layers wait in {} until they are sent: make room there (TMPDIR names another place)",
            std::env::temp_dir().display()
        )),
        _ => failure.next("deploy again: layers that came whole to the host are not sent again"),
    }
}
