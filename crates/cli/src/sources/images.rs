//! Images: built once for each distinct `build:`, or found; and what each is, as content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cutover_core::config::settings::BuildSettings;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::layout;
use cutover_core::names::{AppId, ServiceName};
use cutover_core::release::{Content, Provenance};
use cutover_engine::{
    BaseImages, BuildCache, BuildError, BuildSpec, Commit, Context, ContextError, ContextSource, Engine,
    EngineError, Image, Kind, OriginLabels,
};

use super::artifact::below;
use super::project::Project;
use crate::render::Progress;

/// Lines of a builder's output that go with a failure.
const LAST_LINES: usize = 20;

/// Where images are made and found.
pub(crate) struct Images<'a> {
    engine: Option<Engine>,
    built: BTreeMap<BuildSettings, Content>,
    app: &'a AppId,
    folder: &'a Path,
    never: BTreeSet<String>,
    origin: &'a Provenance,
    from: BuildFrom<'a>,
}

/// What contexts are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildFrom<'a> {
    /// A commit's clean export.
    Commit(&'a str),
    /// The files as they lie there.
    WorkTree,
}

impl<'a> Images<'a> {
    /// Nothing is asked of the engine before an image is.
    pub(crate) fn new(
        app: &'a AppId,
        project: &'a Project,
        origin: &'a Provenance,
        from: BuildFrom<'a>,
    ) -> Self {
        let (folder, never) = (project.folder.as_path(), project.never_sent());
        Self { engine: None, built: BTreeMap::new(), app, folder, never, origin, from }
    }

    /// Builds an image, unless the same build was done for another service.
    pub(crate) async fn build(
        &mut self,
        service: &ServiceName,
        settings: &BuildSettings,
        progress: &mut Progress,
    ) -> Result<Content, Failure> {
        if let Some(content) = self.built.get(settings) {
            return Ok(content.clone());
        }
        progress.doing("build", &format!("{service} {}", self.origin_text()));
        let spec =
            self.spec(service, settings).await.map_err(|error| build_failure(service, &error.into()))?;
        let engine = self.engine().await?;
        let built = engine
            .build(&spec, &mut |line| progress.doing("build", line))
            .await
            .map_err(|error| build_failure(service, &error))?;
        let image = engine.inspect_image(&built.id).await.map_err(|error| engine_failure(&error))?;
        let content = content(&image, spec.tag.as_deref().unwrap_or(&built.id))?;
        self.built.insert(settings.clone(), content.clone());
        Ok(content)
    }

    /// What the image of a `build:` is, if it was built from this very source before: for plans that build nothing.
    pub(crate) async fn built_before(
        &mut self,
        service: &ServiceName,
        settings: &BuildSettings,
    ) -> Option<Content> {
        if let Some(content) = self.built.get(settings) {
            return Some(content.clone());
        }
        let tag = self.tag(service)?;
        let image = self.engine().await.ok()?.inspect_image(&tag).await.ok()?;
        let content = content(&image, &tag).ok()?;
        self.built.insert(settings.clone(), content.clone());
        Some(content)
    }

    async fn engine(&mut self) -> Result<Engine, Failure> {
        if let Some(engine) = &self.engine {
            return Ok(engine.clone());
        }
        let engine = Engine::connect().await.map_err(|error| engine_failure(&error))?;
        self.engine = Some(engine.clone());
        Ok(engine)
    }

    async fn spec(&self, service: &ServiceName, settings: &BuildSettings) -> Result<BuildSpec, ContextError> {
        let (source, created) = match self.from {
            BuildFrom::WorkTree => (ContextSource::WorkTree, None),
            BuildFrom::Commit(commit) => {
                let commit = Commit::find(self.folder, commit).await?;
                // The commit's own time: the same commit gives the same image.
                let created = jiff::Timestamp::from_second(commit.time).ok().map(|time| time.to_string());
                (ContextSource::Commit(commit), created)
            }
        };
        let never = self.never(&settings.context);
        let context =
            Context::open(source, self.folder, &settings.context, &settings.dockerfile, &never).await?;
        let labels = OriginLabels {
            revision: self.origin.commit.clone(),
            created,
            version: self.origin.version.clone(),
            source: self.origin.repository.clone(),
        };
        Ok(BuildSpec {
            context,
            target: settings.target.clone(),
            arguments: settings.args.clone(),
            labels: labels.labels().collect(),
            tag: self.tag(service),
            platform: None,
            cache: BuildCache::Use,
            bases: BaseImages::Here,
            network: None,
            logins: Vec::new(),
        })
    }

    /// Patterns of what no image may have in it, as seen from its context (P6).
    fn never(&self, context: &str) -> Vec<String> {
        let literal = |path: &str| {
            path.chars().fold(String::new(), |pattern, letter| match letter {
                '*' | '?' | '[' | '\\' => format!("{pattern}\\{letter}"),
                other => format!("{pattern}{other}"),
            })
        };
        self.never.iter().filter_map(|path| below(context, path)).map(literal).collect()
    }

    /// The name of what is built, when it is made from something that has one.
    fn tag(&self, service: &ServiceName) -> Option<String> {
        match self.from {
            BuildFrom::WorkTree => None,
            BuildFrom::Commit(commit) => Some(layout::built_image(self.app, service, commit)),
        }
    }

    fn origin_text(&self) -> String {
        match self.from {
            BuildFrom::Commit(commit) => format!("at commit {}", commit.get(..7).unwrap_or(commit)),
            BuildFrom::WorkTree => "from the work tree".to_owned(),
        }
    }
}

/// What stands for an image that nobody has built or fetched yet, in a plan that is only shown.
pub(crate) fn not_yet(name: &str) -> Content {
    Content::Image {
        reference: name.to_owned(),
        identity: ContentHash::of_parts(&["not built or fetched yet", name]),
        name: Some(name.to_owned()),
        origin: None,
    }
}

fn content(image: &Image, name: &str) -> Result<Content, Failure> {
    let identity = ContentHash::from_hex(&image.content()).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("image {name} has no identity"))
            .next("this is a fault of cutover: report it")
    })?;
    let (reference, name) = (image.id.clone(), Some(name.to_owned()));
    Ok(Content::Image { reference, identity, name, origin: None })
}

fn build_failure(service: &ServiceName, error: &BuildError) -> Failure {
    let failure = |exit| Failure::new(exit, format!("the image of `{service}` was not built"));
    match error {
        BuildError::Failed { message, last_lines } => {
            let failure = failure(Exit::Failed);
            let mut failure = failure.because(message).next("mend the build; `docker build` shows the same");
            failure.log = last_lines.iter().rev().take(LAST_LINES).rev().cloned().collect();
            failure
        }
        BuildError::Context(error) => {
            let (exit, next) = context_remedy(error);
            failure(exit).because(error.to_string()).next(next)
        }
        BuildError::Engine(error) => {
            failure(Exit::Failed).because(error.to_string()).next(match error.kind {
                Kind::Unreachable => "see that the container engine is up",
                Kind::Full => "make room on the container engine's disk (`docker system df`), then try again",
                _ => "mend the build; `docker build` shows the same",
            })
        }
    }
}

/// What `build:` names and is not there is a matter of the configuration, as a missing artifact is.
fn context_remedy(error: &ContextError) -> (Exit, &'static str) {
    match error {
        ContextError::NoDockerfile { .. } => {
            (Exit::Configuration, "name it: `build: { context, dockerfile }`; is it committed?")
        }
        ContextError::NoFolder(_) | ContextError::Outside(..) | ContextError::Ignore { .. } => {
            (Exit::Configuration, "see `build:` in cutover.yml")
        }
        ContextError::Git { .. }
        | ContextError::Read { .. }
        | ContextError::Changed(_)
        | ContextError::CutOff => {
            (Exit::Failed, "see `build:` in cutover.yml, and that this user may read it")
        }
    }
}

fn engine_failure(error: &EngineError) -> Failure {
    Failure::new(Exit::Refused, "the container engine did not answer")
        .because(error.to_string())
        .next("start it (`systemctl start docker`); DOCKER_HOST names another socket")
        .next("or run plain processes: `artifact:` with `command:` needs no engine")
}
