//! Reading layers from what the engine saves: for engines that cannot reach our loopback. They read the whole image, whatever is wanted of it.

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use cutover_core::hash::ContentHash;
use cutover_engine::Engine;
use futures_util::{StreamExt, pin_mut};
use tokio::sync::mpsc;

use super::blob::{Blob, Pieces, repack};
use super::{Image, ReadError};

/// Pieces on their way from the engine.
const UNDER_WAY: usize = 8;

/// As [`super::push::read`].
pub(super) async fn read(
    engine: &Engine,
    image: &Image,
    layers: &BTreeSet<ContentHash>,
    arrived: &mpsc::UnboundedSender<Blob>,
) -> Result<Vec<u8>, ReadError> {
    let (feed, receive) = mpsc::channel::<Bytes>(UNDER_WAY);
    let take = {
        let (image, layers, arrived) = (image.clone(), layers.clone(), arrived.clone());
        move || take(Pieces::new(receive), &image, &layers, &arrived)
    };
    let work = tokio::task::spawn_blocking(take);
    let saved = engine.save(&image.parts.id);
    pin_mut!(saved);
    while let Some(piece) = saved.next().await {
        // Whoever wants no more says why.
        if feed.send(piece?).await.is_err() {
            break;
        }
    }
    drop(feed);
    work.await.map_err(std::io::Error::other)?
}

/// Entries are named by what is in them, or (by older engines) not.
fn take(
    saved: impl Read,
    image: &Image,
    layers: &BTreeSet<ContentHash>,
    arrived: &mpsc::UnboundedSender<Blob>,
) -> Result<Vec<u8>, ReadError> {
    let (mut configuration, mut lacking) = (None, layers.clone());
    let mut archive = tar::Archive::new(saved);
    for entry in archive.entries()? {
        let entry = entry?;
        let named = entry.path()?.file_name().and_then(|name| ContentHash::from_hex(name.to_str()?));
        let known = named.is_some_and(|hash| image.parts.layers.contains(&hash) && !lacking.contains(&hash));
        if known || entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let blob = repack(entry)?;
        if let Some(small) = &blob.small {
            configuration = configuration.or_else(|| image.configuration_in(small.clone()));
        }
        if lacking.remove(&blob.content) {
            // Whoever wants none of it any more has ended us.
            arrived.send(blob).ok();
        }
    }
    configuration.filter(|_| lacking.is_empty()).ok_or(ReadError::Incomplete)
}
