//! From a plan to its run: show it, ask, ship what it needs, set it going, follow it to its verdict.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, RunId, VariableName};
use cutover_core::plan::{HostPlan, Plan, Verb};
use cutover_core::state::HostState;
use cutover_core::verdict::Verdict;
use cutover_core::wire::{Ask, Reply};

use tokio::time::sleep;

use super::{Desk, Ended, Stop};
use crate::asked::Conduct;
use crate::hosts::{Channel, unexpected};
use crate::render::{Form, Line, Progress};
use crate::sources::Overlay;

/// Between two looks at a lock that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// For a signal that reached another process to reach this one.
const MOMENT: Duration = Duration::from_millis(100);

/// Waits until nobody holds the app's lock. A plan made before that would be refused, since the host moves on.
pub(super) async fn wait_for_lock(desk: &Desk, channel: &mut Channel, app: &AppId) -> Result<(), Stop> {
    let mut told = false;
    loop {
        let holder = match channel.answer(&Ask::Lock { app: app.clone() }).await? {
            Reply::Lock { holder: None } => return Ok(()),
            Reply::Lock { holder: Some(holder) } => holder,
            other => return Err(unexpected("lock", &other).into()),
        };
        if !told {
            desk.output.talk(&format!("waiting for {} of {app} by {}", holder.verb.as_str(), holder.by));
            told = true;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Adds what is worth saying of it.
pub(super) fn note(plan: &mut Plan, notes: &[String]) {
    plan.hosts.values_mut().for_each(|host| host.notes.extend_from_slice(notes));
}

/// Shows the plan: as data when only the plan was asked for, else as talk.
pub(super) fn show(desk: &Desk, plan: &Plan, conduct: Conduct) -> Result<(), Stop> {
    match (desk.output.form(), conduct.dry_run) {
        (Form::Json, _) => desk.output.json(&Line::Plan { plan })?,
        (Form::Text, true) => desk.output.data(&crate::render::plan(plan))?,
        (Form::Text, false) => desk.output.talk(&crate::render::plan(plan)),
    }
    Ok(())
}

/// Whether nothing is in motion and the proxy answers: what is found may be taken as it is.
pub(super) fn is_settled(state: &HostState) -> bool {
    state.unfinished.is_none() && state.lock.is_none() && state.table.is_some()
}

/// All is as asked for already: says so.
pub(super) fn nothing_to_do(desk: &Desk, plan: &Plan) -> Ended {
    for host in plan.hosts.values() {
        if host.verb == Verb::SnapshotPrune {
            desk.output
                .talk(&format!("every snapshot of {} is needed, or new enough: nothing to do", host.app));
            continue;
        }
        if host.verb == Verb::Prune {
            desk.output.talk(&format!("all that lies on the host for {} is needed: nothing to do", host.app));
            continue;
        }
        let live = host
            .live
            .as_ref()
            .map_or_else(|| "nothing".to_owned(), |live| format!("release {}", live.release));
        desk.output.talk(&format!("{live} of {} is live already: nothing to do", host.app));
    }
    if desk.output.form() == Form::Json {
        desk.output.json(&Line::NothingToDo { plan })?;
    }
    Ok(Exit::Done.code())
}

/// Sees to it that proxy and watch run; whether they were started just now. Where the proxy was seen serving they do.
pub(super) async fn up(desk: &Desk, channel: &mut Channel, seen: &HostState) -> Result<bool, Stop> {
    if seen.table.is_some() {
        return Ok(false);
    }
    match channel.answer(&Ask::Up).await? {
        Reply::Up { started, listeners } => {
            if started {
                let listeners: Vec<String> = listeners.iter().map(ToString::to_string).collect();
                desk.output.talk(&format!(
                    "started proxy and watch on {} (listening on {}); `cutover-host down` stops them",
                    channel.target().shown(),
                    listeners.join(", ")
                ));
            }
            Ok(started)
        }
        other => Err(unexpected("up", &other).into()),
    }
}

/// The one host's plan. More hosts come with servers.
pub(super) fn only(plan: Plan) -> Result<HostPlan, Stop> {
    plan.hosts.into_values().next().ok_or_else(|| {
        Failure::new(Exit::Failed, "the plan is about no host")
            .next("this is a fault of cutover: report it")
            .into()
    })
}

/// What goes to the host with a plan.
pub(super) struct Sending<'a> {
    pub(super) plan: HostPlan,
    /// Values that are laid over the host's env file.
    pub(super) overlay: &'a Overlay,
    /// Names that go out of it.
    pub(super) unset: BTreeSet<VariableName>,
    pub(super) keep: Keep,
    pub(super) conduct: Conduct,
}

/// What becomes of the values that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// They are this release's only.
    InRelease,
    /// They go into the host's env file, too.
    OnHost,
}

/// Sets a run going and follows it.
pub(super) async fn run(desk: &Desk, channel: &mut Channel, sending: Sending<'_>) -> Ended {
    let env = sending.overlay.values.to_env_file();
    let run = sending.plan.run;
    let ask = Ask::Run {
        plan: Box::new(sending.plan),
        env: env.len() as u64,
        unset: sending.unset,
        keep_env: sending.keep == Keep::OnHost,
        detach: sending.conduct.detach,
        wait: sending.conduct.wait,
    };
    channel.ask_with(&ask, env.as_bytes()).await.map_err(|error| error.failure_of_run(&run.to_string()))?;
    follow(desk, channel, Some(run)).await
}

/// Follows a run to its verdict, which is how the verb ends. Ctrl-C lets go of it: the run goes on.
pub(super) async fn follow(desk: &Desk, channel: &mut Channel, run: Option<RunId>) -> Ended {
    let mut progress = Progress::new(desk.output);
    let mut run = run;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let heard = tokio::select! {
            biased;
            _ = &mut interrupt => return Err(let_go(run, "Ctrl-C").into()),
            heard = channel.reply() => heard,
        };
        // An ssh that asks on the terminal hears Ctrl-C as we do, and may be quicker.
        if heard.is_err() && tokio::time::timeout(MOMENT, &mut interrupt).await.is_ok() {
            return Err(let_go(run, "Ctrl-C").into());
        }
        let name = || run.map_or_else(|| "of this app".to_owned(), |run| run.to_string());
        match heard.map_err(|error| error.failure_of_run(&name()))? {
            Reply::Event { entry } => {
                run = Some(entry.run);
                progress.entry(&entry).map_err(|error| let_go(run, &error.to_string()))?;
            }
            Reply::Progress { progress: now } => {
                progress.passed(&now).map_err(|error| let_go(run, &error.to_string()))?;
            }
            Reply::Verdict { verdict } => {
                progress.end();
                return end(desk, &verdict);
            }
            Reply::Done => {
                progress.end();
                return detached(desk, run);
            }
            other => return Err(unexpected("event", &other).failure_of_run(&name()).into()),
        }
    }
}

fn end(desk: &Desk, verdict: &Verdict) -> Ended {
    let exit = verdict.exit().code();
    if desk.output.form() == Form::Json {
        desk.output.json(&Line::Verdict { exit, verdict })?;
    }
    desk.output.talk(&crate::render::verdict(verdict)?);
    Ok(exit)
}

fn detached(desk: &Desk, run: Option<RunId>) -> Ended {
    if let Some(run) = run {
        desk.output.talk(&format!("run {run} goes on by itself: `cutover attach` follows it"));
        if desk.output.form() == Form::Json {
            desk.output.json(&Line::Detached { run })?;
        }
    }
    Ok(Exit::Done.code())
}

fn let_go(run: Option<RunId>, why: &str) -> Failure {
    let run = run.map_or_else(|| "the run".to_owned(), |run| format!("run {run}"));
    Failure::new(Exit::Unknown, format!("{run} is no longer followed from here"))
        .because(why)
        .while_serving("the run goes on by itself on the host")
        .next("`cutover attach` follows it again; `cutover cancel` ends it")
}
