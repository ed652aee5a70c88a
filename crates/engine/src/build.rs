//! Building an image from a context, by the engine's own builder.
//!
//! The classic builder is spoken to: every engine has it and it needs nothing beside the API. `BuildKit`, which secrets
//! of a build would need, works through the same API with bollard's feature `buildkit`; it is not built in.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bollard::models::BuildInfo;
use bollard::query_parameters::BuildImageOptions;
use futures_util::StreamExt;

use crate::connect::Engine;
use crate::context::{Context, ContextError, Packed};
use crate::error::{EngineError, Kind, Subject, explain, is_of_removed_layer};
use crate::registry::RegistryLogin;

/// So many of the last lines go with a failure.
const LAST_LINES: usize = 20;

/// Said between the two.
const BUILT_AGAIN: &str =
    "a layer from the builder's cache was removed by somebody else during the build; it is built once more";

/// What to build, and how to call it.
#[derive(Debug, Clone)]
pub struct BuildSpec {
    /// The files, with the path of the Dockerfile among them.
    pub context: Context,
    /// The stage to stop at; `None` is the last one.
    pub target: Option<String>,
    /// Arguments of the build. They end up in the image's history, so none of them is secret.
    pub arguments: BTreeMap<String, String>,
    /// Labels of the image, beside those in the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// What to call it; without a name it is known by its id only.
    pub tag: Option<String>,
    /// `os/architecture`; `None` is the engine's own.
    pub platform: Option<String>,
    /// Whether steps done before are taken from the cache.
    pub cache: BuildCache,
    /// Whether the registry is asked for newer base images.
    pub bases: BaseImages,
    /// Network of the build's commands: `host`, `none`, a name; `None` is the engine's choice.
    pub network: Option<String>,
    /// Who we are to the registries that base images come from.
    pub logins: Vec<RegistryLogin>,
}

/// Whether steps done before are taken from the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BuildCache {
    /// Steps whose input is the same are not done again.
    #[default]
    Use,
    /// Each step is done.
    Ignore,
}

/// Where base images come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BaseImages {
    /// Those that are here, else from their registry.
    #[default]
    Here,
    /// From their registry whenever it has a newer one.
    Newest,
}

/// Labels every image of ours carries, by the names the Open Container Initiative gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginLabels {
    /// Commit in full.
    pub revision: Option<String>,
    /// When it was built, as RFC 3339.
    pub created: Option<String>,
    /// The app's own version.
    pub version: Option<String>,
    /// Where the source lies.
    pub source: Option<String>,
}

impl OriginLabels {
    /// Those that are known, as labels.
    pub fn labels(self) -> impl Iterator<Item = (String, String)> {
        [
            ("revision", self.revision),
            ("created", self.created),
            ("version", self.version),
            ("source", self.source),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?)))
    }
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The engine's id of it.
    pub id: String,
    /// What it was built from.
    pub context: Packed,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The context could not be made or was cut off.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The engine could not be asked, or refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A step of the Dockerfile failed.
    #[error("the build failed: {message}")]
    Failed {
        /// The builder's words.
        message: String,
        /// What the build wrote last.
        last_lines: Vec<String>,
    },
}

impl Engine {
    /// Builds an image; each line of the builder goes to `on_line` as it comes. Dropping it ends the build.
    ///
    /// The builder holds on to nothing that it takes from its cache: whoever removes an image takes the layers beneath it along, also those that
    /// a build of an alike Dockerfile counts on just then. Without them in the cache it builds, so it is built once more.
    pub async fn build(
        &self,
        spec: &BuildSpec,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Built, BuildError> {
        match self.build_once(spec, on_line).await {
            Err(error) if error.is_of_removed_layer() => {
                on_line(BUILT_AGAIN);
                self.build_once(spec, on_line).await
            }
            built => built,
        }
    }

    async fn build_once(
        &self,
        spec: &BuildSpec,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Built, BuildError> {
        let mut stream = spec.context.stream();
        let packed = stream.outcome();
        let built = self.send(spec, stream, on_line).await;
        // The packing has ended by now: its stream was read to the end, or dropped with the request.
        match (built, packed.await) {
            (Ok(id), Ok(context)) => Ok(Built { id, context }),
            (Err(error), Ok(_) | Err(ContextError::CutOff)) => Err(error),
            (_, Err(cause)) => Err(BuildError::Context(cause)),
        }
    }

    async fn send(
        &self,
        spec: &BuildSpec,
        context: crate::context::ContextStream,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<String, BuildError> {
        let act = || "build an image".to_owned();
        let body = bollard::body_try_stream(context);
        let mut reports =
            self.docker_long().build_image(options(spec), credentials(&spec.logins), Some(body));
        let mut lines = Lines::new(on_line);
        let mut id = None;
        while let Some(report) = reports.next().await {
            match report {
                Ok(report) => {
                    id = report.aux.as_ref().and_then(|aux| aux.id.clone()).or(id);
                    lines.take(&report);
                }
                Err(bollard::errors::Error::DockerStreamError { error }) => {
                    return Err(BuildError::Failed {
                        message: error.trim().to_owned(),
                        last_lines: lines.last(),
                    });
                }
                Err(error) => return Err(explain(Subject::Thing, act)(error).into()),
            }
        }
        drop(reports);
        lines.last();
        match (id, &spec.tag) {
            (Some(id), _) => Ok(id),
            // An engine that does not tell the id can still be asked for what it was called.
            (None, Some(tag)) => Ok(self.inspect_image(tag).await?.id),
            (None, None) => {
                Err(EngineError::unexpected(act(), "the engine did not say which image it made").into())
            }
        }
    }
}

fn options(spec: &BuildSpec) -> BuildImageOptions {
    let pairs = |map: &BTreeMap<String, String>| -> HashMap<String, String> {
        map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    BuildImageOptions {
        dockerfile: spec.context.dockerfile().to_owned(),
        t: spec.tag.clone(),
        target: spec.target.clone().unwrap_or_default(),
        buildargs: Some(pairs(&spec.arguments)),
        labels: Some(pairs(&spec.labels)),
        platform: spec.platform.clone().unwrap_or_default(),
        nocache: spec.cache == BuildCache::Ignore,
        pull: (spec.bases == BaseImages::Newest).then(|| "1".to_owned()),
        networkmode: spec.network.clone(),
        // Containers of steps go also when a step fails.
        rm: true,
        forcerm: true,
        ..BuildImageOptions::default()
    }
}

fn credentials(logins: &[RegistryLogin]) -> Option<HashMap<String, bollard::auth::DockerCredentials>> {
    (!logins.is_empty())
        .then(|| logins.iter().map(|login| (login.server.clone(), login.credentials())).collect())
}

/// The builder's words come in pieces; people read lines.
struct Lines<'reader> {
    on_line: &'reader mut (dyn FnMut(&str) + Send),
    piece: String,
    last: VecDeque<String>,
}

impl<'reader> Lines<'reader> {
    fn new(on_line: &'reader mut (dyn FnMut(&str) + Send)) -> Self {
        Self { on_line, piece: String::new(), last: VecDeque::new() }
    }

    fn take(&mut self, report: &BuildInfo) {
        if let Some(words) = &report.stream {
            self.piece.push_str(words);
            while let Some(end) = self.piece.find('\n') {
                let line: String = self.piece.drain(..=end).collect();
                self.tell(line.trim_end());
            }
        }
        // Progress of a base image's layers: the status alone, the bars are for a terminal of the engine's own client.
        if let Some(status) = &report.status
            && report.progress_detail.as_ref().is_none_or(|progress| progress.current.is_none())
        {
            let line = report.id.as_ref().map_or_else(|| status.clone(), |id| format!("{id}: {status}"));
            self.tell(&line);
        }
    }

    fn tell(&mut self, line: &str) {
        let line = plain(line);
        if line.is_empty() {
            return;
        }
        (self.on_line)(&line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// What came last, the unfinished line included.
    fn last(mut self) -> Vec<String> {
        let piece = std::mem::take(&mut self.piece);
        self.tell(piece.trim_end());
        self.last.into()
    }
}

/// Without colours, which the builder puts around what went to standard error, and what was overwritten by the rest.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.trim_end().chars();
    while let Some(character) = rest.next() {
        match character {
            // ESC [ … up to a letter.
            '\u{1b}' => {
                if rest.next() == Some('[') {
                    rest.by_ref().find(|end| ('@'..='~').contains(end));
                }
            }
            '\r' => text.clear(),
            other => text.push(other),
        }
    }
    text
}

impl BuildError {
    fn is_of_removed_layer(&self) -> bool {
        match self {
            Self::Failed { message, .. } => is_of_removed_layer(message),
            Self::Engine(error) => is_of_removed_layer(&error.message),
            Self::Context(_) => false,
        }
    }

    /// The engine's kind, where it was the engine.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Engine(error) => Some(error.kind),
            Self::Context(_) | Self::Failed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> BuildInfo {
        BuildInfo { stream: Some(text.to_owned()), ..BuildInfo::default() }
    }

    #[test]
    fn pieces_become_lines_and_the_last_ones_are_kept() {
        let mut told = Vec::new();
        let mut on_line = |line: &str| told.push(line.to_owned());
        let mut lines = Lines::new(&mut on_line);
        lines.take(&words("Step 1/2 : FROM x\n ---> 12"));
        lines.take(&words("34\nunfinished"));
        assert_eq!(lines.last(), ["Step 1/2 : FROM x", " ---> 1234", "unfinished"]);
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn lines_are_plain_text() {
        assert_eq!(plain("\u{1b}[91mwhy\u{1b}[0m"), "why");
        assert_eq!(plain("10 %\r20 %\rdone\r"), "done");
        assert_eq!(plain("\u{1b}[0m"), "");
    }

    #[test]
    fn no_more_than_the_last_lines_are_kept() {
        let mut on_line = |_: &str| {};
        let mut lines = Lines::new(&mut on_line);
        (0..50).for_each(|number| lines.take(&words(&format!("{number}\n"))));
        let last = lines.last();
        assert_eq!((last.len(), last[0].as_str(), last[19].as_str()), (20, "30", "49"));
    }

    #[test]
    fn only_known_origins_become_labels() {
        let labels: Vec<_> =
            OriginLabels { revision: Some("7f3c".to_owned()), ..OriginLabels::default() }.labels().collect();
        assert_eq!(labels, [("org.opencontainers.image.revision".to_owned(), "7f3c".to_owned())]);
    }
}
