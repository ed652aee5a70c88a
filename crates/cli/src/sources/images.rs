//! Images: built once for each distinct `build:`, or found; and what each is, as content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cutover_core::config::settings::{BuildPlace, BuildSettings, Config, Source};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::layout;
use cutover_core::names::{AppId, RunId, ServiceName};
use cutover_core::release::{Content, Provenance};
use cutover_core::state::{FoundImage, HostState};
use cutover_core::wire::{Ask, BuildOrder, Destination};
use cutover_engine::{
    BaseImages, BuildCache, BuildError, BuildSpec, Commit, Context, ContextError, ContextSource, Engine,
    EngineError, Image, Kind, OriginLabels, Reference,
};

use super::artifact::{ENV_FILES, ENV_SAMPLES, below};
use super::platform;
use super::project::Project;
use crate::hosts::{Channel, Target};
use crate::render::Progress;
use crate::ship;
use crate::verbs::Stop;

/// Lines of a builder's output that go with a failure.
const LAST_LINES: usize = 20;

/// Where images are made and found.
pub(crate) struct Images<'a> {
    engine: Option<Engine>,
    /// Those that the host may lack.
    own: Vec<ship::Image>,
    built: BTreeMap<(BuildSettings, Option<String>), Content>,
    config: &'a Config,
    app: &'a AppId,
    folder: &'a Path,
    never: BTreeSet<String>,
    origin: &'a Provenance,
    from: BuildFrom<'a>,
    /// The run that they are for.
    run: RunId,
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
        config: &'a Config,
        project: &'a Project,
        origin: &'a Provenance,
        from: BuildFrom<'a>,
        run: RunId,
    ) -> Self {
        let (folder, never, app) = (project.folder.as_path(), project.never_sent(), &config.id);
        let (engine, own, built) = (None, Vec::new(), BTreeMap::new());
        Self { engine, own, built, config, app, folder, never, origin, from, run }
    }

    /// Builds an image for the platform of its service, else of the host; unless the same build was done for another service.
    pub(crate) async fn build(
        &mut self,
        service: &ServiceName,
        settings: &BuildSettings,
        state: &HostState,
        host: &mut Channel,
        progress: &mut Progress,
    ) -> Result<Content, Stop> {
        let wanted = self.config.platform(service).map(str::to_owned);
        let key = (settings.clone(), wanted.clone());
        if let Some(content) = self.built.get(&key) {
            return Ok(content.clone());
        }
        let place = match settings.on {
            BuildPlace::Here => String::new(),
            BuildPlace::Host => format!(" on {}", host.target().shown()),
        };
        progress.doing("build", &format!("{service} {}{place}", self.origin_text()));
        let spec = self.spec(service, settings).await;
        let mut spec = spec.map_err(|error| build_failure(service, &error.into()))?;
        let platform = wanted.or_else(|| Some(state.engine.as_ref()?.platform.clone()));
        if settings.on == BuildPlace::Host {
            let content = self.build_on_host(service, spec, platform, host, progress).await?;
            self.built.insert(key, content.clone());
            return Ok(content);
        }
        // What its engine builds anyway need not be said.
        spec.platform = platform.clone().filter(|platform| !platform::is_of_this_machine(platform));
        let engine = self.engine().await?;
        if let (Target::Here, Some(tag)) = (host.target(), &spec.tag) {
            // Its engine may be the host's own: while others are built, a prune would find that nobody needs this one yet.
            host.ask(&Ask::Lease { run: self.run, images: BTreeSet::from([tag.clone()]) }).await?;
            host.done().await?;
        }
        let built = engine
            .build(&spec, &mut |line| progress.doing("build", line))
            .await
            .map_err(|error| build_failure(service, &error))?;
        let image = engine.inspect_image(&built.id).await.map_err(|error| engine_failure(&error))?;
        if let Some(platform) = &platform {
            platform::refuse_other(service, &platform::of(&image), platform)?;
        }
        let content = content(&image, spec.tag.as_deref().unwrap_or(&built.id))?;
        let name =
            spec.tag.unwrap_or_else(|| layout::built_image(self.app, service, content.identity().as_str()));
        self.keep_for_host(&engine, &image, name, &content).await?;
        self.built.insert(key, content.clone());
        Ok(content)
    }

    /// Has the host's engine build it.
    async fn build_on_host(
        &self,
        service: &ServiceName,
        spec: BuildSpec,
        platform: Option<String>,
        host: &mut Channel,
        progress: &mut Progress,
    ) -> Result<Content, Stop> {
        let to = Destination::Context { app: self.app.clone(), service: service.clone() };
        let context = ship::ForHost::read(&spec.context, to).await;
        let context = context.map_err(|error| build_failure(service, &error.into()))?;
        let hash = context.hash();
        // A work tree has no name of its own: what it holds gives it one.
        let tag = spec.tag.unwrap_or_else(|| layout::built_image(self.app, service, hash.as_str()));
        let order = BuildOrder {
            app: self.app.clone(),
            service: service.clone(),
            context: hash,
            dockerfile: spec.context.dockerfile().to_owned(),
            target: spec.target,
            args: spec.arguments,
            labels: spec.labels,
            tag: tag.clone(),
            // What its engine builds anyway need not be said.
            platform: self.config.platform(service).map(str::to_owned),
        };
        let found = context.build(host, self.run, order, progress).await?;
        if let Some(platform) = &platform {
            platform::refuse_other(service, &found.platform, platform)?;
        }
        Ok(Content::Image { reference: found.id, identity: found.identity, name: Some(tag), origin: None })
    }

    /// An image that the engine here has and that came from no registry: one that was built or loaded here, and which no host can fetch.
    pub(crate) async fn own(&mut self, reference: &str) -> Result<Option<Content>, Failure> {
        let Some((engine, image)) = self.found_here(reference).await else { return Ok(None) };
        let content = content(&image, reference)?;
        let name = Reference::split(reference);
        let name = Reference { tag: name.tag.or_else(|| Some("latest".to_owned())), ..name };
        self.keep_for_host(&engine, &image, name.to_string(), &content).await?;
        Ok(Some(content))
    }

    /// The same, where the host has another one of that name, which came from no registry either: a tag that was built anew here.
    pub(crate) async fn own_instead(
        &mut self,
        reference: &str,
        there: &FoundImage,
    ) -> Result<Option<Content>, Failure> {
        if there.origin.is_some() {
            return Ok(None);
        }
        let Some((_, image)) = self.found_here(reference).await else { return Ok(None) };
        if *content(&image, reference)?.identity() == there.identity {
            return Ok(None);
        }
        self.own(reference).await
    }

    async fn found_here(&mut self, reference: &str) -> Option<(Engine, Image)> {
        let name = Reference::split(reference);
        let registry = self.config.registry.as_ref().map(|registry| registry.server.as_str());
        if name.digest.is_some() || registry == Some(name.registry()) {
            return None;
        }
        // Without an engine here there is no such image, and the host has to fetch it.
        let engine = self.engine().await.ok()?;
        let image = engine.inspect_image(reference).await.ok()?;
        image.origin(&name).is_none().then_some((engine, image))
    }

    /// What the host may lack, and the engine that has it.
    pub(crate) fn shippable(&mut self) -> (Vec<ship::Image>, Option<Engine>) {
        (std::mem::take(&mut self.own), self.engine.clone())
    }

    async fn keep_for_host(
        &mut self,
        engine: &Engine,
        image: &Image,
        name: String,
        content: &Content,
    ) -> Result<(), Failure> {
        if self.own.iter().any(|own| own.parts.identity == *content.identity()) {
            return Ok(());
        }
        let kept = ship::Image::of(engine, image, name, content.identity().clone()).await;
        self.own.extend(kept.map_err(|error| engine_failure(&error))?);
        Ok(())
    }

    /// What the image of a `build:` is, if it was built from this very source before: for plans that build nothing.
    pub(crate) async fn built_before(
        &mut self,
        service: &ServiceName,
        settings: &BuildSettings,
        state: &HostState,
    ) -> Option<Content> {
        let key = (settings.clone(), self.config.platform(service).map(str::to_owned));
        if let Some(content) = self.built.get(&key) {
            return Some(content.clone());
        }
        let tag = self.tag(service)?;
        if settings.on == BuildPlace::Host {
            let found = state.images.get(&tag)?.clone();
            let (reference, name) = (found.id, Some(tag));
            return Some(Content::Image { reference, identity: found.identity, name, origin: None });
        }
        let image = self.engine().await.ok()?.inspect_image(&tag).await.ok()?;
        let content = content(&image, &tag).ok()?;
        self.built.insert(key, content.clone());
        Some(content)
    }

    /// Names that images have which the host has built, for the host to look up.
    pub(crate) fn built_on_host(&self) -> impl Iterator<Item = String> {
        let on_host =
            |source: &Source| matches!(source, Source::Build(settings) if settings.on == BuildPlace::Host);
        let parts = self.config.parts().filter(move |(_, source, _)| on_host(source));
        parts.filter_map(|(name, ..)| self.tag(name))
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
        let never = self.never(settings);
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

    /// Patterns of what no image may have in it, as seen from its context (P6). A context that leaves this machine has no env file at all.
    fn never(&self, settings: &BuildSettings) -> Vec<String> {
        let literal = |path: &str| {
            path.chars().fold(String::new(), |pattern, letter| match letter {
                '*' | '?' | '[' | '\\' => format!("{pattern}\\{letter}"),
                other => format!("{pattern}{other}"),
            })
        };
        let named = self.never.iter().filter_map(|path| below(&settings.context, path)).map(literal);
        let env_files = ENV_FILES.map(|name| format!("**/{name}"));
        let samples = ENV_SAMPLES.map(|name| format!("!**/{name}"));
        // The last one that matches decides.
        let of_env = env_files.into_iter().chain(samples).filter(|_| settings.on == BuildPlace::Host);
        of_env.chain(named).collect()
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
