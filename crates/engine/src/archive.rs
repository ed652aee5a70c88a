//! Archives of images: what an engine loads an image from, also where it has most layers already, and what it saves one to.
//!
//! One archive has both forms: `manifest.json` (engines up to 28) and an OCI layout (29, with containerd's store). Engines match layers by the
//! chain of their diff ids and take an archive without those they have. What they say of a layer that lacks after all stands in the stream of
//! a call that was answered with status 200.

use std::io;
use std::path::PathBuf;

use bollard::query_parameters::ImportImageOptions;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::connect::Engine;
use crate::error::{EngineError, Subject, explain};
use crate::identity::hex;
use crate::registry::Reference;

/// Files are passed on in pieces of at most this size.
const PIECE: usize = 256 * 1024;
/// Entries of an archive begin at multiples of this size.
const BLOCK: u64 = 512;

/// An archive to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// What the image is called.
    pub name: Reference,
    /// Its configuration, as it was hashed.
    pub configuration: Vec<u8>,
    /// All its layers, lowest first.
    pub layers: Vec<ArchiveLayer>,
}

/// A layer in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveLayer {
    /// Its diff id: 64 digits.
    pub diff_id: String,
    /// A file that holds it, unpacked; `None`: the engine has it.
    pub file: Option<PathBuf>,
}

impl Engine {
    /// Loads an image.
    ///
    /// # Errors
    /// A layer that the engine was thought to have and has not, among others; then no image appears.
    pub async fn load(&self, archive: Archive) -> Result<(), EngineError> {
        let act = || format!("load image {}", archive.name);
        let parts = parts(&archive).await.map_err(|error| EngineError::refused(act(), error))?;
        let body = stream::iter(parts).flat_map(Part::pieces);
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        let mut said = self.docker_long().import_image_stream(options, body, None);
        while let Some(report) = said.next().await {
            report.map_err(explain(Subject::Image, act))?;
        }
        Ok(())
    }

    /// An image with all its layers, as the engine writes it. Takes as long as reading all of it does, whatever is wanted of it.
    pub fn save(&self, image: &str) -> impl Stream<Item = Result<Bytes, EngineError>> + Send + use<> {
        let act = format!("save image {image}");
        let pieces = self.docker_long().export_image(image);
        pieces.map(move |piece| piece.map_err(explain(Subject::Image, || act.clone())))
    }
}

/// A part of an archive.
enum Part {
    Bytes(Vec<u8>),
    /// A file of so many bytes. It is open already: who removes it meanwhile takes nothing away.
    File(File, u64),
}

impl Part {
    fn pieces(self) -> stream::BoxStream<'static, io::Result<Bytes>> {
        match self {
            Self::Bytes(bytes) => stream::once(async { Ok(Bytes::from(bytes)) }).boxed(),
            Self::File(file, bytes) => stream::try_unfold((file, bytes), async |(mut file, left)| {
                if left == 0 {
                    return Ok(None);
                }
                let mut piece = Vec::with_capacity(PIECE);
                let read = (&mut file).take(left.min(PIECE as u64)).read_buf(&mut piece).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Some((Bytes::from(piece), (file, left - read as u64))))
            })
            .boxed(),
        }
    }
}

/// All of an archive, in order.
async fn parts(archive: &Archive) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut layers = Vec::new();
    for layer in &archive.layers {
        let mut size = 0;
        if let Some(file) = &layer.file {
            let file = File::open(file).await?;
            size = file.metadata().await?.len();
            parts.push(Part::Bytes(header(&blob(&layer.diff_id), size)?));
            parts.push(Part::File(file, size));
            parts.push(Part::Bytes(padding(size)));
        }
        layers.push(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{}", layer.diff_id),
            "size": size,
        }));
    }
    let configuration = digest(&archive.configuration);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{configuration}"),
            "size": archive.configuration.len(),
        },
        "layers": layers,
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", digest(manifest.as_bytes())),
            "size": manifest.len(),
            "annotations": {
                "io.containerd.image.name": archive.name.full(),
                "org.opencontainers.image.ref.name": archive.name.tag,
            },
        }],
    });
    let paths: Vec<String> = archive.layers.iter().map(|layer| blob(&layer.diff_id)).collect();
    let older =
        json!([{ "Config": blob(&configuration), "RepoTags": [archive.name.to_string()], "Layers": paths }]);
    parts.extend(whole(&blob(&configuration), &archive.configuration)?);
    parts.extend(whole(&blob(&digest(manifest.as_bytes())), manifest.as_bytes())?);
    parts.extend(whole("index.json", index.to_string().as_bytes())?);
    parts.extend(whole("manifest.json", older.to_string().as_bytes())?);
    parts.extend(whole("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?);
    parts.push(Part::Bytes(vec![0; 1024]));
    Ok(parts)
}

fn whole(name: &str, content: &[u8]) -> io::Result<[Part; 3]> {
    let size = content.len() as u64;
    Ok([Part::Bytes(header(name, size)?), Part::Bytes(content.to_vec()), Part::Bytes(padding(size))])
}

fn header(name: &str, size: u64) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}

/// What fills the last block.
fn padding(size: u64) -> Vec<u8> {
    let over = size % BLOCK;
    let missing = if over == 0 { 0 } else { BLOCK - over };
    vec![0; usize::try_from(missing).unwrap_or_default()]
}

fn blob(digits: &str) -> String {
    format!("blobs/sha256/{digits}")
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn an_archive_has_both_forms_and_only_the_layers_that_lack() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("layer");
        std::fs::write(&file, vec![7; 1_000]).unwrap();
        let (there, sent) = ("a".repeat(64), "b".repeat(64));
        let archive = Archive {
            name: Reference::split("cutover/shop/live/web:7f3c9e1"),
            configuration: br#"{"rootfs":{}}"#.to_vec(),
            layers: vec![
                ArchiveLayer { diff_id: there.clone(), file: None },
                ArchiveLayer { diff_id: sent.clone(), file: Some(file) },
            ],
        };

        let pieces = stream::iter(parts(&archive).await.unwrap()).flat_map(Part::pieces);
        let bytes: Vec<u8> = pieces.map(|piece| piece.unwrap().to_vec()).collect::<Vec<_>>().await.concat();

        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.insert(entry.path().unwrap().display().to_string(), content);
        }
        assert_eq!(found[&blob(&sent)], vec![7; 1_000]);
        assert!(!found.contains_key(&blob(&there)));
        let older: serde_json::Value = serde_json::from_slice(&found["manifest.json"]).unwrap();
        assert_eq!(older[0]["Layers"], json!([blob(&there), blob(&sent)]));
        assert_eq!(older[0]["RepoTags"], json!(["cutover/shop/live/web:7f3c9e1"]));
        let index: serde_json::Value = serde_json::from_slice(&found["index.json"]).unwrap();
        let described = &index["manifests"][0];
        assert_eq!(
            described["annotations"]["io.containerd.image.name"],
            "docker.io/cutover/shop/live/web:7f3c9e1"
        );
        let manifest = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        assert_eq!(digest(&found[&blob(manifest)]), manifest);
    }
}
