//! Reading layers by letting the engine push. It asks by digest what is there and sends the rest; what of it is a layer that was wanted is found
//! by its hash. Layers whose digest the engine remembers are said to be there: which layer that was stands in the manifest, and what turns out to
//! be wanted after all is asked for in a second push.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::hash::ContentHash;
use cutover_engine::{Engine, Reference};
use tokio::sync::mpsc;

use super::blob::Blob;
use super::registry::{Manifest, Registry};
use super::{Image, ReadError};

/// An engine that has not spoken to us by then cannot.
const SPEAKS: Duration = Duration::from_secs(5);
/// What is pushed is called so.
const TAG: &str = "ship";
/// The second one is for what the engine had digests of.
const PUSHES: usize = 2;

/// Hands the wanted layers to `arrived`, among others; gives the configuration.
pub(super) async fn read(
    engine: &Engine,
    image: &Image,
    layers: &BTreeSet<ContentHash>,
    arrived: &mpsc::UnboundedSender<Blob>,
) -> Result<Vec<u8>, ReadError> {
    let mut wanted: BTreeSet<String> = image.configuration.iter().cloned().collect();
    let (mut configuration, mut there) = (None, BTreeSet::new());
    for _ in 0..PUSHES {
        let registry = Registry::open(wanted.clone(), arrived.clone()).await?;
        push(engine, image, &registry).await?;
        for manifest in registry.manifests() {
            let blob = registry.blob(&manifest.configuration);
            configuration = configuration.or_else(|| image.configuration_in(blob?.1?));
            wanted.extend(lacking(&manifest, image, layers, &registry, &mut there));
            if configuration.is_none() {
                wanted.insert(manifest.configuration);
            }
        }
        if let Some(configuration) = configuration.clone().filter(|_| layers.is_subset(&there)) {
            return Ok(configuration);
        }
    }
    Err(ReadError::Incomplete)
}

/// Digests of wanted layers that were said to be there. What came is added to `there`.
fn lacking(
    manifest: &Manifest,
    image: &Image,
    layers: &BTreeSet<ContentHash>,
    registry: &Registry,
    there: &mut BTreeSet<ContentHash>,
) -> Vec<String> {
    there.extend(manifest.layers.iter().filter_map(|digest| Some(registry.blob(digest)?.0)));
    if manifest.layers.len() != image.parts.layers.len() {
        return Vec::new();
    }
    let pairs = manifest.layers.iter().zip(&image.parts.layers);
    let lacking = pairs.filter(|(_, layer)| layers.contains(*layer) && !there.contains(*layer));
    lacking.map(|(digest, _)| digest.clone()).collect()
}

/// One push, under a name that is taken back whatever comes of it.
async fn push(engine: &Engine, image: &Image, registry: &Registry) -> Result<(), ReadError> {
    remove_names(engine, &registry.names()).await?;
    let name = Reference { repository: registry.repository(), tag: Some(TAG.to_owned()), digest: None };
    engine.tag(&image.parts.id, &name).await?;
    let pushed = tokio::select! {
        pushed = engine.push(&name) => pushed.map_err(ReadError::from),
        () = silence(registry) => Err(ReadError::Silent),
    };
    let removed = engine.remove_image(&name.to_string()).await;
    pushed?;
    Ok(removed?)
}

/// Returns when the engine ought to have spoken to the registry and has not.
async fn silence(registry: &Registry) {
    tokio::time::sleep(SPEAKS).await;
    if registry.was_spoken_to() {
        std::future::pending::<()>().await;
    }
}

/// Takes back names that a ship left which was killed: at this address there is none but us.
async fn remove_names(engine: &Engine, beginning: &str) -> Result<(), ReadError> {
    for name in engine.image_names(&format!("{beginning}*")).await? {
        engine.remove_image(&name).await?;
    }
    Ok(())
}
