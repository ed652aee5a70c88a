//! Receiving files in chunks: what lacks is told, and only that comes.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::wire::Reply;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::Session;
use super::ship::refuse_low;
use crate::blocking::blocking;
use crate::parcels::{Incoming, ParcelError};
use crate::stages::room;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Lists come: what of them lacks, where there is room for it.
    pub(super) async fn parcels(&mut self, bytes: u64) -> Result<(), Stop> {
        let layout = self.layout.clone();
        let look = move |pieces| {
            let mut incoming = Incoming::begin(layout, Incoming::announced(pieces)?);
            let lacking = incoming.lacking();
            Ok((incoming, lacking))
        };
        let (incoming, lacking) =
            self.receive(bytes, look).await?.map_err(|error: ParcelError| not_taken(&error))?;
        let (come, made) = (incoming.to_come(), incoming.to_make());
        self.brought.parcels = Some(incoming);
        if made > 0 {
            let waiting = self.layout.parcels();
            refuse_low(room::refuse_low_for_files((&waiting, come), (self.layout.state(), made)))?;
        }
        Ok(self.outgoing.send(&Reply::Chunks { lacking }).await?)
    }

    /// Chunks come.
    pub(super) async fn chunks(&mut self, chunks: u32, bytes: u64) -> Result<(), Stop> {
        let Some(mut incoming) = self.brought.parcels.take() else {
            self.incoming.skip(bytes).await?;
            return Err(not_announced().into());
        };
        let take = move |pieces| {
            let taken = incoming.take(pieces, chunks);
            (incoming, taken)
        };
        let (incoming, taken) = self.receive(bytes, take).await?;
        self.brought.parcels = Some(incoming);
        taken.map_err(|error| not_taken(&error))?;
        Ok(self.outgoing.send(&Reply::Done).await?)
    }

    /// All came.
    pub(super) async fn unpack(&mut self) -> Result<(), Stop> {
        let mut incoming = self.brought.parcels.take().ok_or_else(not_announced)?;
        let unpack = move || {
            let lacking = incoming.unpack();
            (incoming, lacking)
        };
        let (incoming, lacking) = blocking(unpack).await.map_err(std::io::Error::other)?;
        self.brought.parcels = Some(incoming);
        let lacking = lacking.map_err(|error| not_taken(&error))?;
        Ok(self.outgoing.send(&Reply::Chunks { lacking }).await?)
    }
}

fn not_taken(error: &ParcelError) -> Failure {
    let failure = Failure::new(Exit::Failed, "the files were not taken in").because(error.to_string());
    if error.is_full() {
        failure.next("make room on the host, then try again: what came whole is not sent again")
    } else {
        failure.next("try again: what came whole is not sent again")
    }
}

fn not_announced() -> Failure {
    Failure::new(Exit::Usage, "files came that were not announced")
        .next("speak with it by `cutover`, of the same version as this cutover-host")
}
