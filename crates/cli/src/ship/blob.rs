//! One blob as an engine sends it: unpacked, hashed and packed anew while it comes, into a file without a name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};

use bytes::Bytes;
use cutover_core::hash::ContentHash;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Pieces on their way between the engine and the file.
const UNDER_WAY: usize = 8;
const PIECE: usize = 256 * 1024;
/// How hard a layer is packed: the fastest level that packs no worse than what registries keep.
const LEVEL: i32 = 3;
/// A configuration has at most so many bytes.
const MOST_CONFIGURATION: usize = 8 * 1024 * 1024;

/// What came.
#[derive(Debug)]
pub(super) struct Blob {
    /// The hash of what is in it: a layer's diff id.
    pub(super) content: ContentHash,
    /// It, compressed with zstd.
    pub(super) packed: File,
    /// Bytes of that.
    pub(super) bytes: u64,
    /// What is in it, where it may be a configuration.
    pub(super) small: Option<Vec<u8>>,
}

/// A blob that comes.
pub(super) struct Upload {
    feed: mpsc::Sender<Bytes>,
    work: JoinHandle<io::Result<Blob>>,
    /// Bytes so far.
    pub(super) bytes: u64,
}

impl Upload {
    /// Nothing came yet.
    pub(super) fn begin() -> Self {
        let (feed, receive) = mpsc::channel(UNDER_WAY);
        let work = tokio::task::spawn_blocking(move || repack(Pieces::new(receive)));
        Self { feed, work, bytes: 0 }
    }

    /// Takes all of a body, no faster than it can be packed.
    pub(super) async fn feed(&mut self, mut body: hyper::body::Incoming) -> io::Result<()> {
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(io::Error::other)?.into_data() else { continue };
            self.bytes += piece.len() as u64;
            self.feed.send(piece).await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// All came.
    pub(super) async fn end(self) -> io::Result<Blob> {
        drop(self.feed);
        self.work.await.map_err(io::Error::other)?
    }
}

/// Unpacks by whatever it is packed with, hashes, and packs anew.
pub(super) fn repack(blob: impl Read) -> io::Result<Blob> {
    let mut blob = BufReader::with_capacity(PIECE, blob);
    let begins = |with: &[u8], begin: &[u8]| begin.starts_with(with);
    let begin = blob.fill_buf()?;
    if begins(&[0x1f, 0x8b], begin) {
        pack(flate2::bufread::MultiGzDecoder::new(blob))
    } else if begins(&[0x28, 0xb5, 0x2f, 0xfd], begin) {
        pack(zstd::Decoder::with_buffer(blob)?)
    } else {
        pack(blob)
    }
}

/// Hashes and packs.
pub(super) fn pack(mut content: impl Read) -> io::Result<Blob> {
    let mut packed = zstd::Encoder::new(tempfile::tempfile()?, LEVEL)?;
    let mut hasher = Sha256::new();
    let mut small = Some(Vec::new());
    let mut piece = vec![0; PIECE];
    loop {
        let read = content.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
        packed.write_all(&piece[..read])?;
        keep_if_small(&mut small, &piece[..read]);
    }
    let mut packed = packed.finish()?;
    let bytes = packed.stream_position()?;
    packed.seek(SeekFrom::Start(0))?;
    Ok(Blob { content: ContentHash::from_digest(&hasher.finalize()), packed, bytes, small })
}

/// A configuration is a JSON object.
fn keep_if_small(small: &mut Option<Vec<u8>>, piece: &[u8]) {
    let Some(kept) = small else { return };
    let may_be = kept.first().or(piece.first()) == Some(&b'{');
    if may_be && kept.len() + piece.len() <= MOST_CONFIGURATION {
        kept.extend_from_slice(piece);
    } else {
        *small = None;
    }
}

/// What comes in, for a reader that blocks.
pub(super) struct Pieces {
    receive: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Pieces {
    pub(super) fn new(receive: mpsc::Receiver<Bytes>) -> Self {
        Self { receive, piece: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receive.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(buffer.len().min(self.piece.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(blob: &Blob) -> Vec<u8> {
        zstd::decode_all(&blob.packed).unwrap()
    }

    #[test]
    fn whatever_it_was_packed_with_a_layer_is_known_by_what_is_in_it() {
        let layer = vec![7; 1_000_000];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&layer).unwrap();
        for packed in [gzip.finish().unwrap(), zstd::encode_all(layer.as_slice(), 1).unwrap(), layer.clone()]
        {
            let blob = repack(packed.as_slice()).unwrap();
            assert_eq!(blob.content, ContentHash::of(&layer));
            assert_eq!(blob.bytes, blob.packed.metadata().unwrap().len());
            assert_eq!((content(&blob), blob.small), (layer.clone(), None));
        }
    }

    #[test]
    fn a_configuration_is_kept_as_it_is() {
        let configuration = br#"{"rootfs":{}}"#;
        assert_eq!(
            repack(configuration.as_slice()).unwrap().small.as_deref(),
            Some(configuration.as_slice())
        );
    }

    #[test]
    fn one_that_is_torn_is_told() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&[7; 1_000]).unwrap();
        let mut packed = gzip.finish().unwrap();
        packed.truncate(packed.len() - 9);
        assert!(repack(packed.as_slice()).is_err());
    }
}
