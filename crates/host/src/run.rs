//! `cutover-host run`: one deploy, detached from its session. It holds the app's lock, carries out the plan, and brings it to a verdict;
//! or settles a run whose process died.

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cutover_core::defaults;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Entry, LockHolder, What};
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};
use cutover_core::plan::{HostPlan, Stage, Verb, deadline};
use cutover_core::recover::is_out_of_the_way;
use cutover_core::rules;
use cutover_core::state::HostState;
use cutover_core::verdict::{Outcome, Verdict};
use jiff::Timestamp;

use crate::assignment::Assignment;
use crate::events::EventFile;
use crate::host::Host;
use crate::journal::{Journal, Listener, unwritten};
use crate::lock::{AppLock, HostLock, LockError, RunLock};
use crate::observe::{Eyes, observe_again};
use crate::program;
use crate::run_progress::Telling;
use crate::settle::{Settling, carry_out, has_told, settle};
use crate::setup;
use crate::stages::{Act, EnvChange, MigrationLocks};
use crate::store::Store;
use crate::within::Allowance;

/// What hears a run's entries besides its event file (tests stop a run at a certain one).
pub type Also = Arc<dyn Fn(&cutover_core::journal::Entry) + Send + Sync>;

/// For an upgrade to come to its end: it restarts the proxy, which lets requests finish first.
const UPGRADE: std::time::Duration = std::time::Duration::from_mins(2);

/// Starts a run of its own, detached from this process (S11); it is given by its id, its plan lies in its folder.
///
/// # Errors
/// When the process cannot be started.
pub fn spawn(layout: &Layout, run: RunId) -> std::io::Result<()> {
    detached(layout, &format!("cutover-run-{run}"), &["run", &run.to_string()])
}

/// Starts a process that settles an app's unfinished run.
///
/// # Errors
/// When the process cannot be started.
pub fn spawn_settle(layout: &Layout, app: &AppId) -> std::io::Result<()> {
    let name = format!("cutover-settle-{}", uuid::Uuid::now_v7());
    detached(layout, &name, &["run", "--settle", &app.to_string()])
}

fn detached(layout: &Layout, unit: &str, arguments: &[&str]) -> std::io::Result<()> {
    std::fs::create_dir_all(layout.logs())?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(layout.process_log("run"))?;
    let mut command = setup::scope(layout, unit, &program::own());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // It takes a session of its own itself (S11), which the leader of a process group could not.
    command.spawn().map(drop)
}

/// Carries out the run with this id.
pub async fn main(layout: Layout, run: RunId, also: Option<Also>) -> ExitCode {
    leave_session();
    match Box::pin(carry(layout, run, also)).await {
        Ok(Some(verdict)) => ExitCode::from(verdict.exit().code()),
        // Another process carries it out: it says how it ends.
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(%failure, "the run could not begin");
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Settles an app's unfinished run, if there is one and nobody works on it.
pub async fn main_settle(layout: Layout, app: AppId, also: Option<Also>) -> ExitCode {
    leave_session();
    let outcome = async {
        let _host_lock = beside_upgrades(&layout).await?;
        let host = open(&layout, &app).await?;
        let unfinished = host.store.all_unfinished().map_err(|error| unreadable(&error))?;
        let Some((_, run)) = unfinished.into_iter().find(|(of, _)| *of == app) else { return Ok(()) };
        let Ok(mut lock) = AppLock::take(&host.layout, &app, &holder_of(&host, &app, run)) else {
            return Ok(());
        };
        settle_all(&host, &app, None, &mut lock, also.as_ref()).await.map(drop)
    };
    match outcome.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let failure: Failure = failure;
            tracing::error!(%failure, "nothing could be settled");
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Held by every run, so that nothing of cutover is replaced under its hands (S23). An upgrade takes moments, and is waited for.
async fn beside_upgrades(layout: &Layout) -> Result<HostLock, Failure> {
    let end = tokio::time::Instant::now() + UPGRADE;
    loop {
        // What was put there is still being handed over to.
        if setup::hand_over_goes_on(layout) && tokio::time::Instant::now() < end {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        }
        match HostLock::shared(layout) {
            Err(LockError::Host { .. }) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            taken => {
                return taken.map_err(|error| {
                    Failure::new(Exit::Locked, "the run was not begun").because(error.to_string())
                });
            }
        }
    }
}

fn leave_session() {
    // Fails where it leads a session already, which is as good. Without one the kernel ends a run that was stopped (SIGSTOP) as soon as whoever
    // began it is gone.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "no session of its own");
    }
}

/// Opens the installation; an engine that something of the app needs is waited for, and without it nothing is done (S4a).
async fn open(layout: &Layout, app: &AppId) -> Result<Host, Failure> {
    let host = Host::open_for(layout, app).await.map_err(|error| error.failure())?;
    if host.docker.is_none() && host.app_needs_engine(app).map_err(|error| unreadable(&error))? {
        return Err(crate::observe::no_engine("none answers, and releases of this app have containers"));
    }
    Ok(host)
}

fn unopened(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, "the state on this host cannot be opened").because(error.to_string())
}

fn unreadable(error: &crate::store::StoreError) -> Failure {
    let failure = Failure::new(Exit::Failed, "the state database cannot be read").because(error.to_string());
    error.next().into_iter().fold(failure, Failure::next)
}

/// `None`: another process of this id carries it out (S12).
async fn carry(layout: Layout, run: RunId, also: Option<Also>) -> Result<Option<Verdict>, Failure> {
    let Some(_alone) = RunLock::take(&layout, run).map_err(|error| unopened(&error))? else {
        return Ok(None);
    };
    let store = Store::open(&layout).map_err(|error| unreadable(&error))?;
    if let Some(verdict) = store.verdict(run).map_err(|error| unreadable(&error))? {
        discard(&layout, run);
        return Ok(Some(verdict));
    }
    let carried = match Assignment::load(&layout, run) {
        Ok(assignment) => carry_assigned(&layout, &assignment, also.clone()).await,
        Err(error) => Err(Failure::new(Exit::Failed, "the run has no plan").because(error.to_string())),
    };
    match carried {
        Ok(verdict) => Ok(Some(verdict)),
        // Whoever follows it is told; it is not begun again and again.
        Err(failure) if matches!(store.has_begun(run), Ok(false)) => {
            never_began(&layout, &Arc::new(store), run, failure, also).map(Some)
        }
        Err(failure) => Err(failure),
    }
}

async fn carry_assigned(
    layout: &Layout,
    assignment: &Assignment,
    also: Option<Also>,
) -> Result<Verdict, Failure> {
    let plan = &assignment.plan;
    let (app, run) = (&plan.app, plan.run);
    let _host_lock = beside_upgrades(layout).await?;
    let host = open(layout, app).await?;
    if let Some(docker) = &host.docker
        && plan.preflight.todo().is_some_and(|preflight| preflight.engine)
    {
        docker.ask_ahead();
    }
    let (journal, telling) = told(&host, run, also.clone());
    let begun = host.store.begin_run(run, app, plan.verb, &plan.by, Timestamp::now());
    begun.map_err(|error| unreadable(&error))?;
    let mut lock = match lock(&host, assignment).await {
        Ok(lock) => lock,
        // Nothing was touched, and the journal of the one that holds the lock is not this one's.
        Err(failure) => return Ok(refused(&host, &journal, plan, failure)),
    };
    let settled = settle_all(&host, app, Some(run), &mut lock, also.as_ref()).await;
    lock.name(&holder(app, run, &plan.by, plan.verb));
    if let Err(failure) = supersede(&host, app, settled).await {
        return Ok(refused(&host, &journal, plan, failure));
    }
    let locks = MigrationLocks::default();
    // A run of this id that was begun before is settled, not begun again (S9).
    let fresh = journal.entries().map_err(|error| unreadable(&error))?.is_empty();
    if fresh {
        let granted = Allowance::grant(&host.layout, run, deadline::whole(plan))
            .map_err(|error| unwritten("the run's deadline", &error));
        if let Err(failure) = granted {
            return Ok(refused(&host, &journal, plan, failure));
        }
        if let Err(failure) = admit(&host, plan).await {
            return Ok(refused(&host, &journal, plan, failure));
        }
        let written = journal.write(What::Planned { plan: Box::new(plan.clone()) });
        if let Err(error) = written {
            return Ok(refused(&host, &journal, plan, error.failure()));
        }
        tell_what_was_lost(&host, &journal);
        let act = Act {
            ports: &host.ports,
            journal: &journal,
            layout: &host.layout,
            store: &host.store,
            locks: &locks,
            plan,
        };
        let change = EnvChange { unset: assignment.unset.clone(), keep: assignment.keep_env };
        carry_out(&act, &change).await;
    }
    let eyes = Eyes { host: &host, app };
    let settling = Settling {
        ports: &host.ports,
        journal: &journal,
        layout: &host.layout,
        store: &host.store,
        locks: &locks,
        app,
        look: &eyes,
    };
    let verdict = settle(&settling).await;
    drop(telling);
    discard_when_over(&host, run);
    drop(lock);
    Ok(verdict)
}

/// Records that were lost are told once: by the first run that goes on without them.
fn tell_what_was_lost(host: &Host, journal: &Journal) {
    let Some(text) = crate::store::untold(&host.layout) else { return };
    if journal.write(What::Warning { stage: Stage::Lock, text }).is_ok()
        && let Err(error) = crate::store::told(&host.layout)
    {
        tracing::warn!(%error, "what was lost will be told again");
    }
}

/// A run that was given up may still be brought to its end, with what it was given.
fn discard_when_over(host: &Host, run: RunId) {
    match host.store.is_over(run) {
        Ok(true) => discard(&host.layout, run),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "a run's folder stays"),
    }
}

/// What the client sent for the env file has been kept or is not wanted any more.
fn discard(layout: &Layout, run: RunId) {
    let folder = layout.run_folder(run);
    if let Err(error) = std::fs::remove_dir_all(&folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "a run's folder stays");
    }
}

fn journal(layout: &Layout, store: &Arc<Store>, run: RunId, also: Option<Also>) -> Journal {
    let events = EventFile::open(layout, run);
    let heard: Listener = Box::new(move |entry| {
        events.append(entry);
        if let Some(also) = &also {
            also(entry);
        }
    });
    Journal::new(store.clone(), run, heard)
}

/// The journal of a run that this process works on, and what tells how far its long acts are.
fn told(host: &Host, run: RunId, also: Option<Also>) -> (Journal, Telling) {
    let telling = Telling::begin(host.ports.meter.clone(), &host.layout, run);
    let last = telling.last();
    let also: Also = Arc::new(move |entry| {
        last.fetch_max(entry.seq, Ordering::Relaxed);
        if let Some(also) = &also {
            also(entry);
        }
    });
    (journal(&host.layout, &host.store, run, Some(also)), telling)
}

fn holder(app: &AppId, run: RunId, by: &str, verb: Verb) -> LockHolder {
    LockHolder {
        app: app.clone(),
        run,
        by: by.to_owned(),
        verb,
        since: Timestamp::now(),
        pid: std::process::id(),
    }
}

async fn lock(host: &Host, assignment: &Assignment) -> Result<AppLock, Failure> {
    let plan = &assignment.plan;
    let holder = holder(&plan.app, plan.run, &plan.by, plan.verb);
    let in_the_way = |by: &LockHolder| {
        if plan.verb != Verb::MigrateRehearse {
            end_rehearsal(&host.store, by, &format!("{} by {}", plan.verb.as_str(), plan.by));
        }
    };
    let mut taken = if assignment.wait {
        let waiting = AppLock::wait(&host.layout, &plan.app, &holder, in_the_way);
        match tokio::time::timeout(defaults::LOCK_WAIT, waiting).await {
            Ok(taken) => taken,
            Err(_) => AppLock::take(&host.layout, &plan.app, &holder),
        }
    } else {
        AppLock::take(&host.layout, &plan.app, &holder)
    };
    // What watch and a backup do takes moments, and is nobody's run; nor is a run that has told that it is done. A rehearsal ends when it is asked to.
    let is_passing = |holder: &LockHolder| {
        holder.by == crate::watch::HOLDER
            || holder.by == crate::backup::HOLDER
            || has_told(&host.store, holder.run)
            || holder.verb == Verb::MigrateRehearse && plan.verb != Verb::MigrateRehearse
    };
    if matches!(&taken, Err(LockError::Busy { holder: Some(holder) }) if is_passing(holder)) {
        let waiting = AppLock::wait(&host.layout, &plan.app, &holder, in_the_way);
        taken = match tokio::time::timeout(defaults::GATE, waiting).await {
            Ok(taken) => taken,
            // By now it may be somebody else who has it.
            Err(_) => AppLock::take(&host.layout, &plan.app, &holder),
        };
    }
    taken.map_err(|error| locked(plan, &error))
}

/// A rehearsal that holds the lock somebody else waits for is asked to end: it touches nothing live, and what only tries something is in nobody's way.
pub(crate) fn end_rehearsal(store: &Store, holder: &LockHolder, by: &str) {
    if holder.verb != Verb::MigrateRehearse {
        return;
    }
    if let Err(error) = store.ask_cancel(holder.run, by) {
        tracing::warn!(%error, run = %holder.run, "a rehearsal was not asked to end");
    }
}

fn locked(plan: &HostPlan, error: &LockError) -> Failure {
    let failure = Failure::new(Exit::Locked, format!("another run works on {}", plan.app))
        .because(error.to_string())
        .next("`cutover attach` follows it; the same command with `--wait` begins once it has ended");
    match error {
        // Who goes back is in a hurry, and waiting would let live what is to go.
        LockError::Busy { holder: Some(holder) }
            if plan.verb == Verb::Rollback && holder.verb == Verb::Deploy =>
        {
            failure.next("`cutover cancel` ends it, with what served before it")
        }
        LockError::Busy { holder: Some(holder) } if holder.verb == Verb::MigrateRehearse => {
            failure.next("`cutover cancel` ends the rehearsal, which touches nothing live")
        }
        _ => failure,
    }
}

/// The one who takes the lock first settles what earlier runs left (S9), each once; `own` is his own run.
async fn settle_all(
    host: &Host,
    app: &AppId,
    own: Option<RunId>,
    lock: &mut AppLock,
    also: Option<&Also>,
) -> Result<Vec<Verdict>, Failure> {
    let unfinished = host.store.all_unfinished().map_err(|error| unreadable(&error))?;
    let mut given_up = Vec::new();
    for (of, run) in unfinished {
        if of != *app || Some(run) == own {
            continue;
        }
        if host.store.has_begun(run).map_err(|error| unreadable(&error))? {
            let verdict = settle_run(host, app, run, lock, also).await;
            if !host.store.is_over(run).map_err(|error| unreadable(&error))? {
                given_up.push(verdict);
            }
        } else {
            // One that waits for the lock has written nothing yet, and is not to be settled by another.
            end_unbegun(host, run, also)?;
        }
    }
    Ok(given_up)
}

/// Runs that could not be settled are over when the next one goes on from what they left. It does not while one of them is in the way: a
/// database that waits to be put back is not built upon.
async fn supersede(host: &Host, app: &AppId, given_up: Result<Vec<Verdict>, Failure>) -> Result<(), Failure> {
    let given_up = given_up?;
    if given_up.is_empty() {
        return Ok(());
    }
    let found = observe_again(host, app).await?;
    for verdict in given_up {
        let entries = host.store.entries(verdict.run, 1).map_err(|error| unreadable(&error))?;
        if !is_out_of_the_way(&entries, &found) {
            return Err(in_the_way(&verdict, &entries, &found));
        }
        host.store.finish_run(&verdict).map_err(|error| unreadable(&error))?;
        discard(&host.layout, verdict.run);
    }
    Ok(())
}

/// A run whose process died before it wrote a word, or that never had one: it is not begun any more. One that was just set going is left.
fn end_unbegun(host: &Host, run: RunId, also: Option<&Also>) -> Result<(), Failure> {
    let row = host.store.run(run).map_err(|error| unreadable(&error))?;
    let age = row.map_or(defaults::WATCH, |row| Timestamp::now().duration_since(row.started).unsigned_abs());
    if age < defaults::WATCH || RunLock::is_held(&host.layout, run) {
        return Ok(());
    }
    let taken = RunLock::take(&host.layout, run).map_err(|error| unopened(&error))?;
    let begun = host.store.has_begun(run).map_err(|error| unreadable(&error))?;
    let Some(_alone) = taken.filter(|_| !begun) else { return Ok(()) };
    let failure = Failure::new(Exit::Failed, "the run ended before it began").next("start it again");
    never_began(&host.layout, &host.store, run, failure, also.cloned()).map(drop)
}

fn in_the_way(verdict: &Verdict, journal: &[Entry], found: &HostState) -> Failure {
    let verb = verdict.verb.as_str();
    let mut failure = Failure::new(Exit::Person, format!("an earlier {verb} is not settled"))
        .while_serving(cutover_core::recover::standing_text(journal, found));
    if let Outcome::Failed { failure: earlier } = &verdict.outcome {
        failure.cause.push(earlier.what.clone());
        failure.cause.extend(earlier.cause.iter().cloned());
        failure.next.extend(earlier.next.iter().cloned());
    }
    failure
        .next(format!("`cutover attach {}` shows what was tried; it is tried again by itself", verdict.run))
}

async fn settle_run(
    host: &Host,
    app: &AppId,
    run: RunId,
    lock: &mut AppLock,
    also: Option<&Also>,
) -> Verdict {
    lock.name(&holder_of(host, app, run));
    // Its own deadline is past, perhaps: that is why it is settled.
    if let Err(error) = Allowance::grant(&host.layout, run, defaults::LOOK * (defaults::RECOVERIES + 1)) {
        tracing::warn!(%error, "the deadline of a settlement could not be written");
    }
    let (journal, telling) = told(host, run, also.cloned());
    let eyes = Eyes { host, app };
    let settling = Settling {
        ports: &host.ports,
        journal: &journal,
        layout: &host.layout,
        store: &host.store,
        locks: &MigrationLocks::default(),
        app,
        look: &eyes,
    };
    let verdict = settle(&settling).await;
    drop(telling);
    discard_when_over(host, run);
    verdict
}

/// This process, as it works on a run that is on record.
fn holder_of(host: &Host, app: &AppId, run: RunId) -> LockHolder {
    let row = host.store.run(run).ok().flatten();
    let (by, verb) = row.map_or((String::new(), Verb::Deploy), |row| (row.by, row.verb));
    holder(app, run, &by, verb)
}

/// Under the lock the host looks again, and refuses if the world moved on, or a rule refuses what it received.
async fn admit(host: &Host, plan: &HostPlan) -> Result<(), Failure> {
    let found = observe_again(host, &plan.app).await?;
    let serving = cutover_core::recover::serving_text(found.live.as_ref());
    if found.fingerprint() != plan.fingerprint {
        return Err(Failure::new(Exit::Refused, "the host has changed since the plan was made")
            .because("another run, a crash or a person changed what is live, its instances or its variables")
            .untouched(&serving)
            .next("run the command again: the plan is made anew"));
    }
    // A proxy that is silent still has the app's routes: a plan without them would leave them behind. (Where preflight asks the proxy, that
    // tells more of what is wrong with it.)
    let is_asked = plan.preflight.todo().is_some_and(|preflight| preflight.proxy);
    let routed = || crate::observe::live_in_table_on_disk(&host.layout, &plan.app);
    if !is_asked && found.table.is_none() && plan.switch.todo().is_some() && !matches!(routed(), Ok(None)) {
        return Err(Failure::new(Exit::Refused, "the proxy does not answer")
            .because(format!("its table on the disk has routes of {}, which this would change", plan.app))
            .while_serving(serving)
            .next("`cutover-host up` starts it; its log says what keeps it from running"));
    }
    match rules::recheck(plan, &found) {
        Ok(()) => Ok(()),
        Err(refusals) => Err(cutover_core::plan::Refusals(refusals).failure().untouched(&serving)),
    }
}

/// A run that touched nothing.
fn refused(host: &Host, journal: &Journal, plan: &HostPlan, failure: Failure) -> Verdict {
    let now = Timestamp::now();
    let live = crate::observe::live(host, &plan.app, None).ok().flatten();
    let failure = failure.untouched(&cutover_core::recover::serving_text(live.as_ref()));
    let verdict = Verdict {
        run: plan.run,
        app: plan.app.clone(),
        verb: plan.verb,
        release: plan.release.as_ref().map(|release| release.id.clone()),
        serving: live.map(|live| live.release),
        outcome: Outcome::Failed { failure },
        allowed: plan.allowed.iter().copied().collect(),
        by: plan.by.clone(),
        started: now,
        finished: now,
        switched_ms: None,
        freed: None,
        warnings: Vec::new(),
    };
    end(&host.layout, &host.store, journal, &verdict);
    verdict
}

/// A run that has nothing but its row in the records: no plan that can be read, no host that can be looked at.
fn never_began(
    layout: &Layout,
    store: &Arc<Store>,
    run: RunId,
    failure: Failure,
    also: Option<Also>,
) -> Result<Verdict, Failure> {
    let Some(row) = store.run(run).map_err(|error| unreadable(&error))? else { return Err(failure) };
    let verdict = Verdict {
        run,
        app: row.app,
        verb: row.verb,
        release: None,
        serving: None,
        outcome: Outcome::Failed { failure },
        allowed: Vec::new(),
        by: row.by,
        started: row.started,
        finished: Timestamp::now(),
        switched_ms: None,
        freed: None,
        warnings: Vec::new(),
    };
    end(layout, store, &journal(layout, store, run, also), &verdict);
    Ok(verdict)
}

/// Writes the verdict of a run that touched nothing.
fn end(layout: &Layout, store: &Store, journal: &Journal, verdict: &Verdict) {
    journal.go_back();
    if let Err(error) = store.finish_run(verdict) {
        tracing::warn!(%error, "the verdict could not be recorded");
    }
    let written = journal.write(What::Verdict { verdict: Box::new(verdict.clone()) });
    if let Err(error) = written {
        tracing::warn!(?error, stage = %Stage::Lock, "the verdict could not be written");
    }
    discard(layout, verdict.run);
}
