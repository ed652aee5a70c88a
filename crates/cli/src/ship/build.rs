//! Building on the host: what an image is built from goes there as files do, only what changed since the last time, and the host's engine builds.

use std::io;

use cutover_core::hash::ContentHash;
use cutover_core::names::RunId;
use cutover_core::state::FoundImage;
use cutover_core::wire::{Ask, BuildOrder, Destination, Reply};
use cutover_engine::{Context, ContextError};
use tokio::task::spawn_blocking;

use super::chunks::Cut;
use super::parcels::Sender;
use crate::hosts::{Channel, unexpected};
use crate::render::Progress;
use crate::verbs::Stop;

/// A context, on its way to a host.
pub(crate) struct ForHost {
    cut: Cut,
}

impl ForHost {
    /// Reads a context as it is now.
    pub(crate) async fn read(context: &Context, to: Destination) -> Result<Self, ContextError> {
        let failed = |source| ContextError::Read { path: "the build's context".to_owned(), source };
        let archive = tempfile::tempfile().map_err(failed)?;
        context.write_into(archive.try_clone().map_err(failed)?).await?;
        let cut = spawn_blocking(move || Cut::of(archive, to)).await;
        let cut = cut.map_err(io::Error::other).and_then(|cut| cut).map_err(failed)?;
        Ok(Self { cut })
    }

    /// The hash of all that is in it.
    pub(crate) fn hash(&self) -> ContentHash {
        self.cut.parcel.hash()
    }

    /// Sends it and has the image built; each line of the builder is told as it comes.
    pub(crate) async fn build(
        self,
        host: &mut Channel,
        run: RunId,
        order: BuildOrder,
        progress: &mut Progress,
    ) -> Result<FoundImage, Stop> {
        let (what, tag) = (format!("what {} is built from", order.service), order.tag.clone());
        let sender = Sender::new(vec![self.cut]);
        sender.announce(host).await?;
        sender.send(host, &what, progress).await?;
        host.ask(&Ask::Build { run, order: Box::new(order) }).await?;
        loop {
            match host.reply().await? {
                Reply::Doing { what } => progress.doing("build", &what),
                Reply::Images { mut images } => {
                    let answer = images.remove(&tag);
                    return answer.ok_or_else(|| unexpected("image", &Reply::Images { images }).into());
                }
                other => return Err(unexpected("images", &other).into()),
            }
        }
    }
}
