//! A registry in this process, on loopback, for one push of one image: how single layers are read from an engine. An engine asks first what is
//! there and sends only what is not, so that it need not read what nobody lacks. What comes is handed on, and nothing is ever given out.
//!
//! Any user of this machine could reach it: its repository has a name that nobody can guess, and all else is answered with 404. It keeps no
//! faith in what is sent either: layers and configuration are known by their hashes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cutover_core::hash::ContentHash;
use http::header::{CONTENT_LENGTH, LOCATION, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::blob::{Blob, Upload};

/// A manifest has at most so many bytes.
const MOST_MANIFEST: usize = 4 * 1024 * 1024;
/// Uploads under way at most; engines have five.
const MOST_UPLOADS: usize = 64;
/// The port that is tried first: engines remember by a registry's address what they have sent there, small layers above all.
const USUAL_PORT: u16 = 5_077;

type Answer = Response<Full<Bytes>>;

/// The registry. Dropped, it ends.
pub(super) struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

/// What an engine said of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) configuration: String,
    /// Digests of the layers as they are kept, lowest first.
    pub(super) layers: Vec<String>,
}

struct Shared {
    repository: String,
    told: Mutex<Told>,
    arrived: mpsc::UnboundedSender<Blob>,
}

#[derive(Default)]
struct Told {
    /// Digests that are to be sent; all others are said to be there.
    wanted: BTreeSet<String>,
    uploads: BTreeMap<String, Upload>,
    manifests: Vec<Manifest>,
    spoken_to: bool,
    /// By digest: the hash of what is in it, and a configuration's bytes.
    blobs: BTreeMap<String, (ContentHash, Option<Vec<u8>>)>,
}

impl Registry {
    /// Listens. Blobs whose digest is not in `wanted` are said to be there already; what an engine has no digest of it sends anyway. All that
    /// comes goes to `arrived`.
    pub(super) async fn open(
        wanted: BTreeSet<String>,
        arrived: mpsc::UnboundedSender<Blob>,
    ) -> std::io::Result<Self> {
        let listener = match TcpListener::bind(usual_address()).await {
            Ok(listener) => listener,
            // Another ship of this user's goes on, or there is only one address on this loopback.
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let address = listener.local_addr()?;
        let repository = format!("cutover/{}", uuid::Uuid::now_v7().simple());
        let told = Mutex::new(Told { wanted, ..Told::default() });
        let shared = Arc::new(Shared { repository, told, arrived });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, listening })
    }

    /// What an image is to be called that is pushed here, without its tag.
    pub(super) fn repository(&self) -> String {
        format!("{}/{}", self.address, self.shared.repository)
    }

    /// What begins the names of images that were to be pushed here.
    pub(super) fn names(&self) -> String {
        format!("{}/cutover/", self.address)
    }

    /// Whether anything was pushed to its end, and how it is made up.
    pub(super) fn manifests(&self) -> Vec<Manifest> {
        self.shared.told().manifests.clone()
    }

    /// Whether anybody ever asked anything.
    pub(super) fn was_spoken_to(&self) -> bool {
        self.shared.told().spoken_to
    }

    /// What came under a digest: the hash of what is in it, and a configuration's bytes.
    pub(super) fn blob(&self, digest: &str) -> Option<(ContentHash, Option<Vec<u8>>)> {
        self.shared.told().blobs.get(digest).cloned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// An address of this user's own, the same each time, where loopback has more than one.
fn usual_address() -> SocketAddr {
    let own = ContentHash::of_parts(&["registry", &rustix::process::getuid().as_raw().to_string()]).number();
    let [_, _, one, two, ..] = own.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 77, one, two.max(1)), USUAL_PORT))
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task: no connection outlives the registry.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(converse(stream, Arc::clone(&shared)))),
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    // An engine begins with TLS, and hangs up on hearing none. Whatever else breaks off, the push tells.
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        self.told().spoken_to = true;
        let path = request.uri().path().to_owned();
        if path == "/v2/" || path == "/v2" {
            return say(StatusCode::OK);
        }
        let Some(rest) =
            path.strip_prefix("/v2/").and_then(|rest| rest.strip_prefix(&self.repository)?.strip_prefix('/'))
        else {
            return say(StatusCode::NOT_FOUND);
        };
        match (request.method().clone(), rest.split('/').collect::<Vec<_>>().as_slice()) {
            (Method::HEAD, ["blobs", digest]) => self.is_there(digest),
            (Method::POST, ["blobs", "uploads", ..]) => self.begin(request.uri().query().unwrap_or_default()),
            (Method::PATCH, ["blobs", "uploads", upload]) => self.go_on(upload, request).await,
            (Method::PUT, ["blobs", "uploads", upload]) => self.end(upload, request).await,
            (Method::PUT, ["manifests", _]) => self.manifest(request).await,
            _ => say(StatusCode::NOT_FOUND),
        }
    }

    fn has(&self, digest: &str) -> bool {
        let told = self.told();
        told.blobs.contains_key(digest) || !told.wanted.contains(digest)
    }

    fn is_there(&self, digest: &str) -> Answer {
        if !self.has(digest) {
            return say(StatusCode::NOT_FOUND);
        }
        let mut answer = digested(StatusCode::OK, digest);
        // Nobody reads it, but there has to be one.
        answer.headers_mut().insert(CONTENT_LENGTH, 1.into());
        answer
    }

    /// An upload, or the offer to take a blob over from another repository, which an engine thinks that it sent here.
    fn begin(&self, query: &str) -> Answer {
        let mounted = parameter(query, "mount").filter(|digest| self.has(digest));
        if let Some(digest) = mounted {
            return located(
                digested(StatusCode::CREATED, &digest),
                &format!("/v2/{}/blobs/{digest}", self.repository),
            );
        }
        let upload = uuid::Uuid::now_v7().simple().to_string();
        let mut told = self.told();
        if told.uploads.len() >= MOST_UPLOADS {
            return say(StatusCode::TOO_MANY_REQUESTS);
        }
        told.uploads.insert(upload.clone(), Upload::begin());
        self.accepted(&upload, 0)
    }

    fn accepted(&self, upload: &str, bytes: u64) -> Answer {
        let path = format!("/v2/{}/blobs/uploads/{upload}", self.repository);
        let mut answer = located(say(StatusCode::ACCEPTED), &path);
        let range = format!("0-{}", bytes.saturating_sub(1));
        header(&mut answer, RANGE.as_str(), &range);
        header(&mut answer, "docker-upload-uuid", upload);
        answer
    }

    async fn go_on(&self, id: &str, request: Request<Incoming>) -> Answer {
        let Some(mut upload) = self.take(id) else { return say(StatusCode::NOT_FOUND) };
        if upload.feed(request.into_body()).await.is_err() {
            return say(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let bytes = upload.bytes;
        self.told().uploads.insert(id.to_owned(), upload);
        self.accepted(id, bytes)
    }

    async fn end(&self, id: &str, request: Request<Incoming>) -> Answer {
        let digest = parameter(request.uri().query().unwrap_or_default(), "digest");
        let (Some(mut upload), Some(digest)) = (self.take(id), digest) else {
            return say(StatusCode::NOT_FOUND);
        };
        if upload.feed(request.into_body()).await.is_err() {
            return say(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let Ok(mut blob) = upload.end().await else { return say(StatusCode::INTERNAL_SERVER_ERROR) };
        self.told().blobs.insert(digest.clone(), (blob.content.clone(), blob.small.take()));
        // Whoever wants none of it any more has ended us.
        self.arrived.send(blob).ok();
        located(digested(StatusCode::CREATED, &digest), &format!("/v2/{}/blobs/{digest}", self.repository))
    }

    async fn manifest(&self, request: Request<Incoming>) -> Answer {
        let Ok(body) = Limited::new(request.into_body(), MOST_MANIFEST).collect().await else {
            return say(StatusCode::BAD_REQUEST);
        };
        let body = body.to_bytes();
        // A list of manifests is none of an image; each of them comes by itself.
        self.told().manifests.extend(read_manifest(&body));
        digested(StatusCode::CREATED, &format!("sha256:{}", ContentHash::of(&body)))
    }

    fn take(&self, upload: &str) -> Option<Upload> {
        self.told().uploads.remove(upload)
    }
}

fn read_manifest(body: &[u8]) -> Option<Manifest> {
    let manifest: serde_json::Value = serde_json::from_slice(body).ok()?;
    let digest = |of: &serde_json::Value| Some(of.get("digest")?.as_str()?.to_owned());
    let layers = manifest.get("layers")?.as_array()?.iter().map(digest).collect::<Option<_>>()?;
    Some(Manifest { configuration: digest(manifest.get("config")?)?, layers })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    // Of what stands in a digest only the colon may be written otherwise.
    Some(value.replace("%3A", ":").replace("%3a", ":"))
}

fn say(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    header(&mut answer, "docker-distribution-api-version", "registry/2.0");
    answer
}

fn digested(status: StatusCode, digest: &str) -> Answer {
    let mut answer = say(status);
    header(&mut answer, "docker-content-digest", digest);
    answer
}

fn located(mut answer: Answer, path: &str) -> Answer {
    header(&mut answer, LOCATION.as_str(), path);
    answer
}

/// A value that cannot stand in a header is left out: then it was nonsense that somebody asked with.
fn header(answer: &mut Answer, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        answer.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_configuration_and_layers_and_a_list_does_not() {
        let manifest =
            br#"{"config":{"digest":"sha256:c"},"layers":[{"digest":"sha256:1"},{"digest":"sha256:2"}]}"#;
        let expected = Manifest {
            configuration: "sha256:c".to_owned(),
            layers: vec!["sha256:1".to_owned(), "sha256:2".to_owned()],
        };
        assert_eq!(read_manifest(manifest), Some(expected));
        assert_eq!(read_manifest(br#"{"manifests":[]}"#), None);
        assert_eq!(read_manifest(b"nonsense"), None);
    }

    #[test]
    fn a_digest_is_read_as_engines_write_it() {
        let read = |query: &str| parameter(query, "digest");
        assert_eq!(read("digest=sha256%3Aab").as_deref(), Some("sha256:ab"));
        assert_eq!(read("a=b&digest=sha256:ab").as_deref(), Some("sha256:ab"));
        assert_eq!(read("digests=x"), None);
    }
}
