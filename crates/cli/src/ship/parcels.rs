//! Sending files in chunks: the list of all chunks goes first, the host says which it lacks, and these follow in one stream, many at a time.

use std::io::{self, Write};
use std::sync::Arc;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::wire::{Ask, Chunk, Parcel, Reply, distinct_chunks, of_ranges};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::chunks::Cut;
use super::{ROUNDS, UNCONFIRMED, not_told};
use crate::hosts::{Channel, HostError, unexpected};
use crate::render::{Cargo, Progress};
use crate::verbs::Stop;

/// Bytes that are compressed and sent at a time.
const PART: u64 = 1024 * 1024;
/// Parts that wait to be sent.
const AHEAD: usize = 4;
/// How hard they are packed.
const LEVEL: i32 = 3;

/// Parcels on their way.
pub(super) struct Sender {
    cuts: Arc<Vec<Cut>>,
    chunks: Vec<Chunk>,
}

/// Chunks, compressed together.
struct Part {
    chunks: u32,
    bytes: u64,
    packed: Vec<u8>,
}

impl Sender {
    pub(super) fn new(cuts: Vec<Cut>) -> Self {
        let parcels: Vec<Parcel> = cuts.iter().map(|cut| cut.parcel.clone()).collect();
        let chunks = distinct_chunks(&parcels).into_iter().cloned().collect();
        Self { cuts: Arc::new(cuts), chunks }
    }

    /// Asks what lacks; [`Self::send`] hears it.
    pub(super) async fn announce(&self, host: &mut Channel) -> Result<(), Stop> {
        let parcels: Vec<&Parcel> = self.cuts.iter().map(|cut| &cut.parcel).collect();
        let list = serde_json::to_vec(&parcels).map_err(io::Error::other)?;
        let list = spawn_blocking(move || zstd::encode_all(list.as_slice(), LEVEL)).await;
        let list = list.map_err(io::Error::other)??;
        Ok(host.ask_with(&Ask::Parcels { bytes: list.len() as u64 }, &list).await?)
    }

    /// Hears what lacks, and sends it, until the host has all.
    pub(super) async fn send(
        &self,
        host: &mut Channel,
        what: &str,
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        let mut lacking = hear_chunks(host).await?;
        let of_them = format!("{} of {} chunks", lacking.len(), self.chunks.len());
        progress.begin_sending(Cargo::Files(what.to_owned()), &of_them);
        for _ in 0..ROUNDS {
            self.send_chunks(host, &lacking, progress).await?;
            lacking = hear_chunks(host).await?;
            if lacking.is_empty() {
                return Ok(progress.end_sending().map_err(|error| not_told(&error))?);
            }
        }
        Err(Failure::new(Exit::Failed, format!("the host did not make {what} of its chunks"))
            .because("it went on asking for chunks that had been sent")
            .next("deploy again; see that the disk of the host is well")
            .into())
    }

    /// Sends these and says that they are all; the answer is still to be heard.
    async fn send_chunks(
        &self,
        host: &mut Channel,
        lacking: &[u32],
        progress: &mut Progress,
    ) -> Result<(), Stop> {
        let wanted: Vec<Chunk> =
            lacking.iter().filter_map(|number| self.chunks.get(*number as usize)).cloned().collect();
        progress.will_send_in_all(wanted.iter().map(|chunk| u64::from(chunk.1)).sum());
        let (ready, mut parts) = mpsc::channel(AHEAD);
        let cuts = Arc::clone(&self.cuts);
        let packing = spawn_blocking(move || pack(&cuts, &wanted, &ready));
        let mut unconfirmed = 0;
        while let Some(part) = parts.recv().await {
            if unconfirmed == UNCONFIRMED {
                host.done().await?;
                unconfirmed -= 1;
            }
            let ask = Ask::Chunks { chunks: part.chunks, bytes: part.packed.len() as u64 };
            host.ask_with(&ask, &part.packed).await?;
            unconfirmed += 1;
            progress.sent(part.chunks as usize, part.bytes, part.packed.len() as u64);
        }
        packing.await.map_err(io::Error::other)??;
        host.ask(&Ask::Unpack).await?;
        for _ in 0..unconfirmed {
            host.done().await?;
        }
        Ok(())
    }
}

/// Packs chunks part by part, no faster than they are sent. Who wants no more has failed, and says why.
fn pack(cuts: &[Cut], chunks: &[Chunk], ready: &mpsc::Sender<Part>) -> io::Result<()> {
    let mut chunks = chunks.iter().peekable();
    while chunks.peek().is_some() {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(chunk) = chunks.next_if(|_| bytes < PART) {
            encoder.write_all(&read(cuts, chunk)?)?;
            count += 1;
            bytes += u64::from(chunk.1);
        }
        if ready.blocking_send(Part { chunks: count, bytes, packed: encoder.finish()? }).is_err() {
            break;
        }
    }
    Ok(())
}

fn read(cuts: &[Cut], chunk: &Chunk) -> io::Result<Vec<u8>> {
    cuts.iter().find_map(|cut| cut.read(chunk)).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
}

/// Hears [`Reply::Chunks`].
async fn hear_chunks(host: &mut Channel) -> Result<Vec<u32>, HostError> {
    match host.reply().await? {
        Reply::Chunks { lacking } => Ok(of_ranges(&lacking).collect()),
        other => Err(unexpected("chunks", &other)),
    }
}
