//! Images that come from a client: what of them lacks, layer by layer, and the image once all is there. Before a look its run gets a lease, so
//! that what was found stays until the run ends (S26).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::names::RunId;
use cutover_core::state::FoundImage;
use cutover_core::wire::{ImageParts, Lacking, Reply};
use cutover_engine::{Archive, ArchiveLayer, EngineError, Kind, Reference};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::Session;
use crate::blocking::blocking;
use crate::files::FileError;
use crate::layers::{LayerError, Layers};
use crate::lease::{Lease, Leased};
use crate::parcels::Incoming;
use crate::ports::{Runtime, RuntimeError};
use crate::runtime::docker::DockerRuntime;
use crate::runtime::process::artifact::Artifacts;
use crate::stages::room;

/// The configuration of an image has at most so many bytes.
const MOST_CONFIGURATION: u64 = 8 * 1024 * 1024;
/// Layers of one image at most; engines take 127.
const MOST_LAYERS: usize = 1_024;

/// What this session was told, and found out, of images.
#[derive(Default)]
pub(super) struct Brought {
    /// Holds as long as the session does.
    lease: Option<Lease>,
    /// Images that the engine did not make from the layers it seemed to have: all of theirs are to come.
    in_full: BTreeSet<ContentHash>,
    /// All that the lease is about.
    leased: Leased,
    /// Images that were fetched and not here before, by name.
    pub(super) fetched: BTreeSet<String>,
    /// Files that come in chunks.
    pub(super) parcels: Option<Incoming>,
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// What lacks. From here on nobody takes away what is there.
    pub(super) async fn lacking(
        &mut self,
        run: RunId,
        images: Vec<ImageParts>,
        artifacts: BTreeSet<ContentHash>,
    ) -> Result<(), Stop> {
        if images.iter().any(|image| image.layers.len() > MOST_LAYERS) {
            return Err(Failure::new(Exit::Usage, "an image has more layers than any engine takes").into());
        }
        let names = images.iter().flat_map(|image| [image.name.clone(), image.id.clone()]);
        self.lease(run, names.collect::<Vec<_>>(), &artifacts).await?;
        let stored = Artifacts::new(self.layout.clone());
        let mut lacking = Lacking {
            artifacts: artifacts.into_iter().filter(|artifact| !stored.has(artifact)).collect(),
            ..Lacking::default()
        };
        if !images.is_empty() {
            let docker = self.docker().await?;
            for image in &images {
                if let Some(found) = find(&docker, image).await? {
                    lacking.found.insert(image.name.clone(), found);
                } else {
                    let layers = self.layers_that_lack(&docker, image).await?;
                    lacking.layers.insert(image.name.clone(), layers);
                }
            }
            self.refuse_low_room(&docker, &images, &lacking.layers).await?;
        }
        Ok(self.outgoing.send(&Reply::Lacking { lacking }).await?)
    }

    /// One layer comes.
    pub(super) async fn layer(&mut self, layer: &ContentHash, bytes: u64) -> Result<(), Stop> {
        let (layers, wanted) = (Layers::new(self.layout.clone()), layer.clone());
        let taken = self.receive(bytes, move |pieces| layers.receive(pieces, &wanted)).await?;
        taken.map_err(|error| not_taken(layer, &error))?;
        Ok(self.outgoing.send(&Reply::Done).await?)
    }

    /// All came: the engine makes the image of it.
    pub(super) async fn load(&mut self, image: &ImageParts, bytes: u64) -> Result<(), Stop> {
        let configuration = self.receive(bytes, configuration).await?;
        let configuration = configuration.map_err(|error| {
            Failure::new(Exit::Failed, format!("the configuration of image {} was not taken in", image.name))
                .because(error.to_string())
                .next("do the same again: it is sent anew")
        })?;
        let docker = self.docker().await?;
        let mut lacking = Lacking::default();
        if let Some(found) = self.make(&docker, image, configuration).await? {
            lacking.found.insert(image.name.clone(), found);
        } else {
            let layers = self.layers_that_lack(&docker, image).await?;
            lacking.layers.insert(image.name.clone(), layers);
        }
        Ok(self.outgoing.send(&Reply::Lacking { lacking }).await?)
    }

    /// The image; `None`: a layer lacks after all.
    async fn make(
        &mut self,
        docker: &DockerRuntime,
        image: &ImageParts,
        configuration: Vec<u8>,
    ) -> Result<Option<FoundImage>, Stop> {
        if let Some(found) = find(docker, image).await? {
            return Ok(Some(found));
        }
        if !self.layers_that_lack(docker, image).await?.is_empty() {
            return Ok(None);
        }
        let base = self.layers_there(docker, image).await?;
        let layers = Layers::new(self.layout.clone());
        let sent = |(place, layer): (usize, &ContentHash)| ArchiveLayer {
            diff_id: layer.as_str().to_owned(),
            file: if place < base { None } else { layers.file(layer) },
        };
        let archive = Archive {
            name: Reference::split(&image.name),
            configuration,
            layers: image.layers.iter().enumerate().map(sent).collect(),
        };
        match docker.engine().load(archive).await {
            Ok(()) => {}
            Err(error) if base > 0 && !matches!(error.kind, Kind::Full | Kind::Unreachable) => {
                tracing::info!(image = image.name, %error, "not made from the layers that seemed to be there");
                take_back(docker, image).await?;
                self.brought.in_full.insert(image.identity.clone());
                return Ok(None);
            }
            Err(error) => {
                // What waits may be what is wrong, unless nobody looked at it.
                if !matches!(error.kind, Kind::Full | Kind::Unreachable) {
                    layers.remove(image.layers.clone());
                }
                if error.kind != Kind::Unreachable && take_back(docker, image).await.is_err() {
                    tracing::warn!(image = image.name, "what was not loaded keeps its name");
                }
                return Err(not_loaded(image, &error).into());
            }
        }
        let found = find(docker, image).await?;
        layers.remove(image.layers.clone());
        Ok(Some(found.ok_or_else(|| other_image(image))?))
    }

    /// Keeps these for a run, beside what is kept for it already.
    pub(super) async fn lease(
        &mut self,
        run: RunId,
        images: impl IntoIterator<Item = String>,
        artifacts: &BTreeSet<ContentHash>,
    ) -> Result<(), Stop> {
        self.brought.leased.images.extend(images);
        self.brought.leased.artifacts.extend(artifacts.iter().cloned());
        let (leased, layout) = (self.brought.leased.clone(), self.layout.clone());
        let lease =
            blocking(move || Lease::take(&layout, run, &leased)).await.map_err(std::io::Error::other)?;
        match lease {
            Ok(lease) => self.brought.lease = Some(lease),
            // Nothing goes live on a full disk: what is brought is refused for want of room, or the run is, before it touches anything.
            Err(error) if error.full => tracing::warn!(%error, "no lease"),
            Err(error) => {
                let failure = Failure::new(Exit::Failed, "nothing can be kept for this run on the host");
                return Err(failure
                    .because(error.to_string())
                    .next("see that its folder can be written to, then try again")
                    .into());
            }
        }
        Ok(())
    }

    pub(super) async fn docker(&mut self) -> Result<std::sync::Arc<DockerRuntime>, Stop> {
        let host = self.host().await?;
        host.docker.clone().ok_or_else(|| crate::observe::no_engine("none answers on this host").into())
    }

    /// How many layers, from the lowest on, the engine can make an image from.
    async fn layers_there(&self, docker: &DockerRuntime, image: &ImageParts) -> Result<usize, Stop> {
        if self.brought.in_full.contains(&image.identity) {
            return Ok(0);
        }
        let layers: Vec<String> = image.layers.iter().map(|layer| format!("sha256:{layer}")).collect();
        Ok(docker.engine().layers_in_common(&layers).await.map_err(|error| not_looked(&error))?)
    }

    /// Layers that neither the engine has nor were sent already.
    async fn layers_that_lack(
        &self,
        docker: &DockerRuntime,
        image: &ImageParts,
    ) -> Result<BTreeSet<ContentHash>, Stop> {
        let base = self.layers_there(docker, image).await?;
        let layers = Layers::new(self.layout.clone());
        layers.sweep(&image.layers.iter().cloned().collect());
        let lack = image.layers.iter().skip(base).filter(|layer| layers.file(layer).is_none());
        Ok(lack.cloned().collect())
    }

    async fn refuse_low_room(
        &self,
        docker: &DockerRuntime,
        images: &[ImageParts],
        lacking: &BTreeMap<String, BTreeSet<ContentHash>>,
    ) -> Result<(), Stop> {
        let sizes = images.iter().flat_map(|image| {
            let layers = lacking.get(&image.name);
            layers.into_iter().flatten().map(|layer| (layer, image.size_of(layer)))
        });
        let bytes = sizes.collect::<BTreeMap<_, _>>().values().sum();
        if bytes == 0 {
            return Ok(());
        }
        let engine = docker.data_folder().await;
        refuse_low(room::refuse_low_for_layers(&self.layout.layers(), engine.as_deref(), bytes))
    }
}

/// What a look at the room said.
pub(super) fn refuse_low(low: Result<Option<Failure>, FileError>) -> Result<(), Stop> {
    match low {
        Ok(None) => Ok(()),
        Ok(Some(failure)) => Err(failure.into()),
        Err(error) => {
            let failure = Failure::new(Exit::Refused, "the free room on a disk cannot be told");
            Err(failure.because(error.to_string()).next("see that the disk is well, then try again").into())
        }
    }
}

/// The image, if the engine has it: by what it is, whatever it is called.
async fn find(docker: &DockerRuntime, image: &ImageParts) -> Result<Option<FoundImage>, Stop> {
    for reference in [&image.id, &image.name] {
        let found = docker
            .image(reference)
            .await
            .map_err(|error: RuntimeError| Stop::from(crate::observe::no_engine(error.to_string())))?;
        if let Some(found) = found.filter(|found| found.identity == image.identity) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// With containerd's store an engine has an image by its name also when it could not unpack it, and no container can be made of that. It was not
/// there before.
async fn take_back(docker: &DockerRuntime, image: &ImageParts) -> Result<(), Stop> {
    if find(docker, image).await?.is_some() {
        docker.engine().remove_image(&image.name).await.map_err(|error| not_looked(&error))?;
    }
    Ok(())
}

fn configuration(pieces: impl Read) -> std::io::Result<Vec<u8>> {
    let mut configuration = Vec::new();
    zstd::Decoder::new(pieces)?.take(MOST_CONFIGURATION).read_to_end(&mut configuration)?;
    Ok(configuration)
}

fn not_taken(layer: &ContentHash, error: &LayerError) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("layer {} was not taken in", layer.short()))
        .because(error.to_string());
    if error.is_full() {
        failure.next("make room on the host, then deploy again: layers that came whole are not sent again")
    } else {
        failure.next("deploy again: what arrived of it is gone, layers that came whole are not sent again")
    }
}

fn not_looked(error: &EngineError) -> Failure {
    crate::observe::no_engine(error.to_string())
}

fn not_loaded(image: &ImageParts, error: &EngineError) -> Failure {
    let failure =
        Failure::new(Exit::Failed, format!("the host's container engine did not take image {}", image.name))
            .because(error.to_string());
    match error.kind {
        Kind::Full => {
            failure.next("make room where the container engine keeps its images, then deploy again: what came is not sent again")
        }
        Kind::Unreachable => {
            failure.next("see that the container engine is up, then deploy again: what came is not sent again")
        }
        _ => failure.next("deploy again: the image is sent anew; the engine's own log says more"),
    }
}

fn other_image(image: &ImageParts) -> Failure {
    Failure::new(Exit::Failed, format!("the host has not got image {} as it was sent", image.name))
        .because("what its container engine made of it is another image")
        .next("deploy again; where that does not help, report it with the engine's version")
}
