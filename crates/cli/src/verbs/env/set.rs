//! `env set|unset|push`: the host's env file. A changed variable is a new release of the same images, through the gate.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};

use cutover_core::config::Selection;
use cutover_core::config::settings::Origin;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::VariableName;
use cutover_core::plan::{Plan, Rule, lifecycle};
use cutover_core::request::Request;
use cutover_core::secret::Secret;
use cutover_core::state::HostState;
use cutover_core::wire::Ask;
use rustix::termios::{self, LocalModes, OptionalActions};

use crate::asked::{Asked, Conduct, EnvironmentChange};
use crate::effects;
use crate::hosts::{self, Channel, Target};
use crate::render::Line;
use crate::sources::{Overlay, Project, is_declared_without_value, placeholders, read_env_file};
use crate::verbs::run::{self, Keep, Sending};
use crate::verbs::{Desk, Ended, Stop, approval, look, observe, stamp, world};

pub(in crate::verbs) async fn change(desk: &Desk, asked: Asked) -> Ended {
    let Asked { request, brings, conduct } = asked;
    let project = Project::open(&desk.place)?;
    let identity = project.identity(&desk.place)?;
    refuse_secrets_in_words(desk, &project, &brings.change)?;
    let overlay = values(desk, brings.change, &request.allow)?;
    approval::approve(desk, &effects::question(&request, &identity.id, identity.protection), conduct)?;
    let opening = hosts::begin(&identity.target)?;
    let (mut host, state) = look(desk, opening, &identity.id, BTreeSet::new(), conduct).await?;
    let done = if conduct.stage_only || state.live.is_none() {
        stage(desk, &mut host, &state, &request, &overlay).await
    } else {
        release(desk, host, &state, request, &overlay, conduct).await
    };
    done.map_err(|stop| stop.untouched(&state))
}

/// The changed variables become a release of the same images.
pub(in crate::verbs) async fn release(
    desk: &Desk,
    mut host: Channel,
    state: &HostState,
    request: Request,
    overlay: &Overlay,
    conduct: Conduct,
) -> Ended {
    let plan = made(host.target(), state, &request, overlay)?;
    run::show(desk, &plan, conduct)?;
    if conduct.dry_run {
        return Ok(Exit::Done.code());
    }
    let plan = if run::up(desk, &mut host, state).await? {
        let state = observe(&mut host, &state.app, BTreeSet::new()).await?;
        made(host.target(), &state, &request, overlay)?
    } else {
        plan
    };
    let unset = request.unset;
    let sending = Sending { plan: run::only(plan)?, overlay, unset, keep: Keep::OnHost, conduct };
    run::run(desk, &mut host, sending).await
}

fn made(target: &Target, state: &HostState, request: &Request, overlay: &Overlay) -> Result<Plan, Stop> {
    let request = Request { overlay: overlay.values.fingerprints(&state.salt), ..request.clone() };
    Ok(lifecycle(&state.app, &world(target, state), &request, stamp(state))
        .map_err(|refusals| refusals.failure())?)
}

/// Changes the host's file only.
async fn stage(
    desk: &Desk,
    host: &mut Channel,
    state: &HostState,
    request: &Request,
    overlay: &Overlay,
) -> Ended {
    let text = overlay.values.to_env_file();
    let unset = request.unset.clone();
    let ask = Ask::EnvStage { app: state.app.clone(), bytes: text.len() as u64, unset };
    host.ask_with(&ask, text.as_bytes()).await?;
    host.done().await?;
    desk.output.talk(&format!("the host's env file of {} was changed; the next deploy takes it", state.app));
    desk.output.answer_json(&Line::Done)?;
    Ok(Exit::Done.code())
}

/// A name that is declared without a value is secret: its value is asked for, and never stands on a command line (P6).
fn refuse_secrets_in_words(
    desk: &Desk,
    project: &Project,
    change: &EnvironmentChange,
) -> Result<(), Failure> {
    let selection = Selection { environment: desk.place.environment.clone(), ..Selection::default() };
    // A file that is being mended names no secrets yet.
    let Ok(config) = project.config(&selection) else { return Ok(()) };
    let spoken = change.set.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name);
    let secret: Vec<&str> =
        spoken.filter(|name| is_declared_without_value(&config, name)).map(VariableName::as_str).collect();
    if secret.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!("the value of {} does not belong on a command line", secret.join(", ")),
    )
    .because(
        "cutover.yml declares it without a value: it is secret, and a command line can be read by others",
    )
    .next(format!("`cutover env set {}` asks for it, or reads it from standard input", secret.join(" "))))
}

/// The values as given, asked for, or read from standard input, a line each.
pub(in crate::verbs) fn values(
    desk: &Desk,
    change: EnvironmentChange,
    allowed: &BTreeSet<Rule>,
) -> Result<Overlay, Failure> {
    if let Some(file) = &change.push {
        return pushed(file, allowed);
    }
    let mut overlay = Overlay::default();
    for (name, value) in change.set {
        let value = match value {
            Some(value) => Secret::new(value),
            None => ask_for(desk, &name)?,
        };
        overlay.origins.insert(name.clone(), Origin::CommandLine);
        overlay.values.insert(name, value);
    }
    placeholders(&overlay.values, "what was given")?;
    Ok(overlay)
}

/// All of a file; one without a variable changes nothing, which nobody means.
fn pushed(file: &std::path::Path, allowed: &BTreeSet<Rule>) -> Result<Overlay, Failure> {
    let overlay = read_env_file(file, allowed)?;
    if overlay.values.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("{} has no variable in it", file.display()))
            .next("each line is `NAME=value`, a comment, or empty"));
    }
    Ok(overlay)
}

fn ask_for(desk: &Desk, name: &VariableName) -> Result<Secret, Failure> {
    let on_terminal = std::io::stdin().is_terminal();
    let echo = if on_terminal {
        desk.output.talk(&format!("{name} (is not shown): "));
        NoEcho::enter()
    } else {
        None
    };
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    drop(echo);
    match read {
        Ok(read) if read > 0 => Ok(Secret::new(line.trim_end_matches(['\n', '\r']))),
        _ => Err(Failure::new(Exit::Usage, format!("no value for {name}"))
            .because("standard input has ended")
            .next(format!("type it, or send it: `… | cutover env set {name}`"))),
    }
}

/// What is typed is not shown, until this is dropped.
struct NoEcho(termios::Termios);

impl NoEcho {
    fn enter() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // Best effort: where the terminal is gone there is nothing left to mend.
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}
