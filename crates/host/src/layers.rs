//! Layers on their way to the engine: unpacked as they come, held against the hash they were announced with, made durable, and then renamed into
//! their place. One that came whole is there for whoever needs it next, also after a lost connection; a torn one is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use sha2::{Digest, Sha256};

use crate::files::{self, FileError};

/// How long a layer waits for an image that needs it.
const KEPT: Duration = Duration::from_hours(24);
const PIECE: usize = 256 * 1024;

/// Why a layer was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// What arrived cannot be unpacked.
    #[error("what arrived cannot be unpacked: {0}")]
    Packed(io::Error),
    /// Something else arrived than was announced.
    #[error("what arrived is {found}, not {announced}")]
    Other {
        /// Hash of what was meant.
        announced: ContentHash,
        /// Hash of what arrived.
        found: ContentHash,
    },
}

impl LayerError {
    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::File(error) if error.full)
    }
}

/// The layers of one installation that wait. Its methods block: they read and write files.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    layout: Layout,
}

impl Layers {
    /// Those below a layout's folder of state.
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Where a layer lies, if it came whole.
    pub(crate) fn file(&self, layer: &ContentHash) -> Option<PathBuf> {
        let path = self.layout.layer(layer);
        path.is_file().then_some(path)
    }

    /// Takes in a layer that comes compressed with zstd. One that is there is left as it is, and the stream is not read.
    ///
    /// # Errors
    /// What is no such stream, or another layer; a full disk. Nothing of it stays.
    pub(crate) fn receive(&self, packed: impl Read, layer: &ContentHash) -> Result<(), LayerError> {
        if self.file(layer).is_some() {
            return Ok(());
        }
        let place = self.layout.layer(layer);
        files::ensure_folder(&self.layout.layers(), 0o700)?;
        let next = files::beside(&place);
        let received = unpack(packed, &next, layer).and_then(|()| {
            fs::rename(&next, &place).map_err(|error| FileError::new("keep the layer", &place, &error))?;
            Ok(files::sync_folder(&self.layout.layers())?)
        });
        if received.is_err() {
            files::discard(&next);
        }
        received
    }

    /// Lets layers go that nobody waits for any more.
    pub(crate) fn remove(&self, layers: impl IntoIterator<Item = ContentHash>) {
        for layer in layers {
            files::discard(&self.layout.layer(&layer));
        }
    }

    /// Lets go what has waited for too long, and what sessions left that were killed; but not `wanted`.
    pub(crate) fn sweep(&self, wanted: &BTreeSet<ContentHash>) {
        // Nothing to sweep, or nothing that can be: it is tried again with the next image.
        let Ok(entries) = fs::read_dir(self.layout.layers()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_old = entry.metadata().and_then(|found| found.modified()).is_ok_and(is_old);
            let gone = match name.to_str().and_then(ContentHash::from_hex) {
                Some(layer) => is_old && !wanted.contains(&layer),
                // Whoever writes it holds it locked.
                None => File::open(entry.path()).is_ok_and(|file| file.try_lock_shared().is_ok()),
            };
            if gone {
                files::discard(&entry.path());
            }
        }
    }
}

/// What seems to come from the future is new: a clock may have jumped.
fn is_old(modified: SystemTime) -> bool {
    SystemTime::now().duration_since(modified).is_ok_and(|age| age > KEPT)
}

fn unpack(packed: impl Read, next: &std::path::Path, announced: &ContentHash) -> Result<(), LayerError> {
    let failed = |error: &io::Error| FileError::new("write the layer", next, error);
    let mut file = files::private(next).map_err(|error| failed(&error))?;
    file.lock().map_err(|error| failed(&error))?;
    let mut layer = zstd::Decoder::new(packed).map_err(LayerError::Packed)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        let read = layer.read(&mut piece).map_err(LayerError::Packed)?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
        file.write_all(&piece[..read]).map_err(|error| failed(&error))?;
    }
    let found = ContentHash::from_digest(&hasher.finalize());
    if found != *announced {
        return Err(LayerError::Other { announced: announced.clone(), found });
    }
    Ok(file.sync_all().map_err(|error| failed(&error))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> (tempfile::TempDir, Layers) {
        let root = tempfile::tempdir().unwrap();
        let layers = Layers::new(Layout::under(root.path()));
        (root, layers)
    }

    fn packed(content: &[u8]) -> Vec<u8> {
        zstd::encode_all(content, 3).unwrap()
    }

    fn names(layers: &Layers) -> Vec<String> {
        let entries = fs::read_dir(layers.layout.layers()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_layer_that_came_whole_stays_until_it_was_needed() {
        let (_root, layers) = layers();
        let content = vec![7; 1_000_000];
        let hash = ContentHash::of(&content);
        layers.receive(packed(&content).as_slice(), &hash).unwrap();
        layers.receive(io::empty(), &hash).unwrap();

        assert_eq!(fs::read(layers.file(&hash).unwrap()).unwrap(), content);
        layers.sweep(&BTreeSet::new());
        assert!(layers.file(&hash).is_some(), "it came just now");
        layers.remove([hash.clone()]);
        assert_eq!(layers.file(&hash), None);
    }

    #[test]
    fn a_torn_one_and_another_one_leave_nothing() {
        let (_root, layers) = layers();
        let content = vec![7; 1_000_000];
        let hash = ContentHash::of(&content);
        let mut torn = packed(&content);
        torn.truncate(torn.len() / 2);

        assert!(matches!(layers.receive(torn.as_slice(), &hash), Err(LayerError::Packed(_))));
        assert!(matches!(layers.receive(packed(b"other").as_slice(), &hash), Err(LayerError::Other { .. })));
        assert!(matches!(layers.receive(&b"no zstd at all"[..], &hash), Err(LayerError::Packed(_))));

        assert_eq!(names(&layers), Vec::<String>::new());
    }

    #[test]
    fn what_a_killed_session_left_goes_and_what_one_writes_stays() {
        let (_root, layers) = layers();
        files::ensure_folder(&layers.layout.layers(), 0o700).unwrap();
        let place = |name: &str| layers.layout.layers().join(name);
        fs::write(place(".left"), b"torn").unwrap();
        let writing = files::private(&place(".writing")).unwrap();
        writing.lock().unwrap();

        layers.sweep(&BTreeSet::new());

        assert_eq!(names(&layers), [".writing"]);
    }

    #[test]
    fn an_old_one_goes_unless_it_is_wanted_now() {
        let (_root, layers) = layers();
        let long_ago = SystemTime::now() - KEPT - Duration::from_secs(60);
        let hashes = [b"one", b"two"].map(|content| {
            let hash = ContentHash::of(content);
            layers.receive(packed(content).as_slice(), &hash).unwrap();
            File::options()
                .write(true)
                .open(layers.layout.layer(&hash))
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
            hash
        });

        layers.sweep(&BTreeSet::from([hashes[0].clone()]));

        assert_eq!(names(&layers), [hashes[0].as_str()]);
    }
}
