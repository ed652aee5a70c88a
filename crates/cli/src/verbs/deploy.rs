//! `deploy`, and `plan`, which is a deploy that ends once its plan is shown; and `migrate rehearse`, whose release is made and sent as a deploy's is.

use std::collections::BTreeSet;

use cutover_core::config::Selection;
use cutover_core::config::settings::{Config, Origin};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{RunId, VariableName};
use cutover_core::plan::{Plan, Verb, plan as plan_deploy};
use cutover_core::request::{Ancestry, Request, Stamp};
use cutover_core::state::HostState;
use cutover_core::variables::given;
use cutover_core::wire::{Ask, Reply};

use super::run::{self, Keep, Sending};
use super::{Desk, Ended, Stop, approval, look, new_run, observe, snapshot, world};
use crate::asked::{Asked, Brings, Conduct};
use crate::effects::{self, Protection};
use crate::hosts::{self, Channel, Target, unexpected};
use crate::render::{self, Progress};
use crate::ship::ship_release;
use crate::sources::{
    BuildFrom, Contents, Git, Images, Making, Overlay, ProcessEnvironment, Project, Wanted, collect,
    look_at_shipped, notes_of_start, older_images, overlay, remove_images,
};

pub(super) async fn deploy(desk: &Desk, asked: Asked) -> Ended {
    let Asked { request, brings, conduct } = asked;
    let project = Project::open(&desk.place)?;
    // The session starts while git thinks: both take moments.
    let opening = target_at_a_glance(desk, &brings, &project).map(|target| hosts::begin(&target));
    // What is wrong with what is asked for is told first.
    let draft = Draft::look(desk, &brings, request, project)?;
    let id = draft.config.id.clone();
    let opening = opening.unwrap_or_else(|| hosts::begin(&draft.target))?;
    let (mut host, mut state) = look(desk, opening, &id, draft.looked_up(), conduct).await?;
    if draft.request.verb == Verb::MigrateRehearse {
        snapshot::look(&mut host, &mut state).await?;
    }
    let told = state.clone();
    carry_out(desk, &draft, host, state, conduct).await.map_err(|stop| stop.untouched(&told))
}

/// The host, where the configuration tells it without what git knows.
fn target_at_a_glance(desk: &Desk, brings: &Brings, project: &Project) -> Option<Target> {
    let config = project.config(&selection(desk, brings, None)).ok()?;
    Some(project.target(&config))
}

/// Once the host was looked at: what serves is known.
async fn carry_out(
    desk: &Desk,
    draft: &Draft,
    mut host: Channel,
    mut state: HostState,
    conduct: Conduct,
) -> Ended {
    draft.wanted.refuse_without_engine(&state)?;
    let making = if conduct.dry_run { Making::OnlyLook } else { Making::Make };
    let mut images = draft.images();
    if making == Making::Make {
        draft.fetch(desk, &mut host, &mut state, &mut images).await?;
    }
    let id = &draft.config.id;
    let mut contents = draft.contents(desk, &mut host, &state, &mut images, making).await?;
    contents.notes.extend(host.note_of_clocks());
    let plan = draft.plan(&state, &contents)?;
    run::show(desk, &plan, conduct)?;
    if conduct.dry_run {
        return Ok(0);
    }
    if run::is_settled(&state) && render::nothing_to_do(&plan) {
        return run::nothing_to_do(desk, &plan);
    }
    let protection = if draft.config.protected { Protection::Protected } else { Protection::Open };
    approval::approve(desk, &effects::question(&draft.request, id, protection), conduct)?;
    // Nobody is led anywhere else by a rehearsal.
    let needs_proxy = draft.request.verb == Verb::Deploy;
    let started = needs_proxy && run::up(desk, &mut host, &state).await?;
    let mut progress = Progress::new(desk.output);
    let shipped = ship_release(&mut host, draft.run, &state, &mut contents, &mut progress).await;
    progress.end();
    // A proxy that was started is part of what the plan is made from; so is what the host calls an image.
    let plan = match (started, shipped?) {
        (true, _) => draft.plan(&observe(&mut host, id, draft.looked_up()).await?, &contents)?,
        (false, true) => draft.plan(&state, &contents)?,
        (false, false) => plan,
    };
    let sending = Sending {
        plan: run::only(plan)?,
        overlay: &draft.overlay,
        unset: BTreeSet::new(),
        keep: Keep::InRelease,
        conduct,
    };
    let engine = contents.engine.as_ref().filter(|_| draft.wanted.has_build() && !conduct.detach);
    let older = match engine {
        Some(engine) => older_images(engine, id, &state, contents.by_service.values()).await,
        None => Vec::new(),
    };
    let ended = run::run(desk, &mut host, sending).await?;
    if let Some(engine) = engine.filter(|_| ended == Exit::Done.code()) {
        let gone = remove_images(engine, &older).await;
        if gone > 0 {
            desk.output.talk(&format!("{gone} images of earlier builds were taken from the engine here"));
        }
    }
    Ok(ended)
}

/// All that is known before the host is looked at.
struct Draft {
    project: Project,
    git: Option<Git>,
    config: Config,
    target: Target,
    wanted: Wanted,
    overlay: Overlay,
    request: Request,
    dirty: bool,
    /// The run it becomes: what is shipped is kept for it.
    run: RunId,
}

impl Draft {
    fn look(desk: &Desk, brings: &Brings, request: Request, project: Project) -> Result<Self, Stop> {
        let git = Git::look(&project.folder, brings.commit.as_deref()).map_err(|error| error.failure())?;
        let selection = selection(desk, brings, git.as_ref());
        project.refuse_secrets_on_the_command_line(&selection)?;
        let config = project.config(&selection)?;
        let wanted = Wanted::new(&config, brings)?;
        refuse_a_commit_that_nothing_is_of(git.as_ref(), &config, &wanted)?;
        let use_process = if config.protected && !brings.from_env {
            ProcessEnvironment::Leave
        } else {
            ProcessEnvironment::Use
        };
        let process = |name: &str| std::env::var(name).ok();
        let overlay = overlay(&config, &project, use_process, &request.allow, process)?;
        let source = match &git {
            Some(git) => git.provenance(brings.version.clone(), brings.dirty || wanted.has_artifact()),
            None => request.source.clone(),
        };
        let request = Request { source, ..request };
        let target = project.target(&config);
        Ok(Self {
            project,
            git,
            config,
            target,
            wanted,
            overlay,
            request,
            dirty: brings.dirty,
            run: new_run(),
        })
    }

    /// Where images are made and found.
    fn images(&self) -> Images<'_> {
        Images::new(&self.config, &self.project, &self.request.source, self.build_from(), self.run)
    }

    /// Images that the host is to look up.
    fn looked_up(&self) -> BTreeSet<String> {
        self.wanted.images().into_iter().chain(self.images().built_on_host()).collect()
    }

    fn build_from(&self) -> BuildFrom<'_> {
        match &self.git {
            Some(git) if !self.dirty => BuildFrom::Commit(&git.commit),
            _ => BuildFrom::WorkTree,
        }
    }

    /// Lets the host fetch the images it lacks and that are not shipped from here: only one that is there can be told from another.
    async fn fetch(
        &self,
        desk: &Desk,
        host: &mut Channel,
        state: &mut HostState,
        own: &mut Images<'_>,
    ) -> Result<(), Stop> {
        let mut images = self.wanted.absent_images(&self.config, state);
        let mut ours = Vec::new();
        for reference in images.keys() {
            if own.own(reference).await?.is_some() {
                ours.push(reference.clone());
            }
        }
        images.retain(|reference, _| !ours.contains(reference));
        if images.is_empty() {
            return Ok(());
        }
        let mut progress = Progress::new(desk.output);
        let env = self.overlay.values.to_env_file();
        let ask = Ask::Fetch {
            app: state.app.clone(),
            images,
            registry: self.config.registry.clone(),
            env: env.len() as u64,
        };
        host.ask_with(&ask, env.as_bytes()).await?;
        loop {
            match host.reply().await? {
                Reply::Doing { what } => progress.doing("fetch", &what),
                Reply::Images { images } => {
                    state.images.extend(images);
                    return Ok(());
                }
                other => return Err(unexpected("images", &other).into()),
            }
        }
    }

    /// Gets hold of what the services are made of.
    async fn contents(
        &self,
        desk: &Desk,
        host: &mut Channel,
        state: &HostState,
        images: &mut Images<'_>,
        making: Making,
    ) -> Result<Contents, Stop> {
        let mut progress = Progress::new(desk.output);
        let contents = collect(&self.wanted, &self.project, host, state, images, making, &mut progress).await;
        progress.end();
        let mut contents = contents?;
        look_at_shipped(&self.config, &self.project, self.build_from(), &mut contents)?;
        contents.notes.extend(notes_of_start(&self.config, &self.project, self.build_from()));
        Ok(contents)
    }

    fn plan(&self, state: &HostState, contents: &Contents) -> Result<Plan, Stop> {
        let live = state.live.as_ref().map(|live| &live.release);
        let live = state.releases.iter().find(|record| Some(&record.release.id) == live);
        let live_commit = live.and_then(|record| record.release.source.commit.as_deref());
        let request = Request {
            contents: contents.by_service.clone(),
            shipped: contents.shipped.clone(),
            overlay: self.overlay.values.fingerprints(&state.salt),
            ancestry: self.git.as_ref().map_or(Ancestry::Unknown, |git| git.ancestry(live_commit)),
            ..self.request.clone()
        };
        let mut plan = plan_deploy(
            &self.config,
            &world(&self.target, state),
            &request,
            Stamp { now: state.now, run: self.run },
        )
        .map_err(|refusals| refusals.failure())?;
        for host in plan.hosts.values_mut() {
            host.notes.extend(self.notes().into_iter().chain(contents.notes.iter().cloned()));
            host.notes.extend(self.covered(state));
            for (name, origin) in &mut host.variables {
                *origin = self.origin(name, *origin, state);
            }
        }
        Ok(plan)
    }

    /// Where a value comes from, now that the client's and the host's are known.
    fn origin(&self, name: &VariableName, otherwise: Origin, state: &HostState) -> Origin {
        let on_host = state.variables.as_ref().is_some_and(|variables| variables.contains_key(name));
        match self.overlay.origins.get(name) {
            Some(origin) => *origin,
            None if on_host && self.config.required.contains_key(name) => Origin::HostFile,
            None => otherwise,
        }
    }

    /// Names of which the host has another value than the one that goes before it.
    fn covered(&self, state: &HostState) -> Option<String> {
        let here = self.overlay.values.fingerprints(&state.salt);
        let there = state.variables.iter().flatten();
        let other = there.filter(|(name, value)| here.get(*name).is_some_and(|here| here != *value));
        let names: Vec<&str> = other.map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "the value from here is taken, and not the host's own, which is another (`cutover env diff`): {}",
                names.join(", ")
            )
        })
    }

    fn notes(&self) -> Vec<String> {
        let Some(git) = &self.git else { return Vec::new() };
        let short = &git.commit[..git.commit.len().min(7)];
        let mut notes = Vec::new();
        let from_commit = self.wanted.has_build() || self.config.shipped().next().is_some();
        if git.dirty && !self.dirty && from_commit {
            notes.push(format!(
                "the work tree has changes that are not committed: commit {short} is deployed without them (`--dirty` takes the work tree)"
            ));
        }
        if !git.is_head && self.wanted.has_artifact() {
            notes.push(format!(
                "artifacts come from the work tree, whatever lies there, and not from commit {short}: the release counts as dirty"
            ));
        }
        notes
    }
}

/// A release is not called by a commit that nothing in it is of.
fn refuse_a_commit_that_nothing_is_of(
    git: Option<&Git>,
    config: &Config,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let is_of_commit = wanted.has_build() || config.shipped().next().is_some();
    let Some(git) = git.filter(|git| !git.is_head && wanted.has_artifact() && !is_of_commit) else {
        return Ok(());
    };
    let short = &git.commit[..git.commit.len().min(7)];
    Err(Failure::new(Exit::Usage, format!("nothing of commit {short} would be deployed"))
        .because(
            "artifacts come from the work tree, which was made from another commit, and nothing is built",
        )
        .next(format!("`git switch --detach {short}`, build the artifacts, and deploy without `--commit`")))
}

fn selection(desk: &Desk, brings: &Brings, git: Option<&Git>) -> Selection {
    let builtin = |name: &str, value: Option<&str>| Some((name.parse().ok()?, value?.to_owned()));
    let commit = git.map(|git| git.commit.as_str());
    Selection {
        environment: desk.place.environment.clone(),
        set: brings.variables.clone(),
        builtins: [builtin(given::COMMIT, commit), builtin(given::VERSION, brings.version.as_deref())]
            .into_iter()
            .flatten()
            .collect(),
        ..Selection::default()
    }
}
