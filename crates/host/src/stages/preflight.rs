//! Preflight: what must be there before anything is touched, and the release's own env file and record.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::journal::{Step, StepResult};
use cutover_core::plan::{
    DatabasePlace, EnvSource, HeldDatabase, HostPlan, Planned, PreflightPlan, Stage, Verb, WantedImage,
};
use cutover_core::release::{Release, RuntimeKind};
use cutover_core::secret::Secrets;

use std::time::Duration;

use tokio::time::Instant;

use super::check::unless_cancelled;
use super::environment::EnvChange;
use super::{Act, environment, password, room, snapshot};
use crate::assignment;
use crate::backup;
use crate::files;
use crate::images::Fetcher;
use crate::journal::{StageError, Trouble};
use crate::lock::ProcessLock;

/// For a backup's dump to end.
const A_DUMP: Duration = Duration::from_secs(10);
/// Between two looks at it.
const AGAIN: Duration = Duration::from_millis(100);

/// Everything the plan counts on is there.
pub(crate) struct Admitted(());

pub(crate) async fn preflight(
    act: &Act<'_>,
    plan: &Planned<PreflightPlan>,
    change: &EnvChange,
) -> Result<Admitted, StageError> {
    let (Planned::Do(plan), Some(release)) = (plan, &act.plan.release) else { return Ok(Admitted(())) };
    let mut missing = absent(act, plan).await;
    missing.extend(taken(plan));
    missing.extend(low_disk(act, plan).await?);
    missing.extend(dumped(act).await);
    missing.extend(backup::half(act.layout, act.app()));
    missing.extend(images(act, plan, release).await?);
    if let Some(mut failure) = missing.pop() {
        failure.cause.extend(missing.into_iter().map(|other| other.what));
        return Err(failure.into());
    }
    for held in act.plan.handover.todo().into_iter().flat_map(|handover| &handover.databases) {
        // Somebody asked for it. Whether it fits is asked of its server, which the next stage may have to start.
        if let HeldDatabase::Restore { database, snapshot: Some(file), present: Some(_), .. } = held {
            Box::pin(snapshot::unchanged(act, Stage::Preflight, database, file)).await?;
        }
    }
    let admitted = async { admit(act, plan, release, change).map(|()| ((), StepResult::Done)) };
    act.journal.act(Stage::Preflight, Step::Admit, admitted).await?;
    password::can_change(act).await?;
    Ok(Admitted(()))
}

async fn low_disk(act: &Act<'_>, plan: &PreflightPlan) -> Result<Option<Failure>, StageError> {
    room::refuse_low(act, plan).await.map_err(|trouble| {
        Failure::new(Exit::Refused, "the free room on a disk cannot be told").because(trouble.message).into()
    })
}

/// A dump for a backup holds every table: a migration would wait for it, and behind the migration all who only want to read. None begins while a run
/// has the app's lock.
async fn dumped(act: &Act<'_>) -> Option<Failure> {
    if !changes_a_server(act.plan) {
        return None;
    }
    let end = Instant::now() + A_DUMP;
    while let Some(pid) = ProcessLock::peek(act.layout, &backup::dump_lock(act.app())) {
        if Instant::now() >= end {
            return Some(
                Failure::new(Exit::Locked, "a backup dumps the database that would be changed")
                    .because(format!(
                        "process {pid} works on it; what changes it would wait, and everybody behind that"
                    ))
                    .next("deploy again once it is over: `cutover status` tells"),
            );
        }
        tokio::time::sleep(AGAIN).await;
    }
    None
}

/// Whether a database of a server is migrated, or a snapshot of it put back.
fn changes_a_server(plan: &HostPlan) -> bool {
    let is_server = |place: &DatabasePlace| matches!(place, DatabasePlace::Server(_));
    let migrated = plan.migrate.todo().is_some_and(|migrate| {
        let mut all = migrate.direct.iter().chain(&migrate.rehearse);
        all.any(|migration| migration.place.as_ref().is_some_and(is_server))
    });
    let mut held = plan.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    let restored = held.any(|held| match held {
        HeldDatabase::Restore { place, .. } => is_server(place),
        HeldDatabase::Migrate { .. } | HeldDatabase::Password { .. } | HeldDatabase::Settle { .. } => false,
    });
    migrated || restored
}

/// What the plan counts on and is not there.
async fn absent(act: &Act<'_>, plan: &PreflightPlan) -> Vec<Failure> {
    let refused = |what: String| Failure::new(Exit::Refused, what);
    let mut missing = Vec::new();
    for artifact in &plan.artifacts {
        if !act.layout.artifact(artifact).exists() {
            missing.push(
                refused(format!("artifact {} is not on this host", artifact.short()))
                    .next("do the same again: it is sent anew"),
            );
        }
    }
    if plan.engine && act.ports.runtime(RuntimeKind::Container).is_err() {
        missing.push(
            refused("no container engine answers".to_owned())
                .because("the release has images, and neither Docker nor Podman answers on this host")
                .next("start it (`systemctl start docker`), or install it; then do the same again"),
        );
    }
    if plan.proxy
        && let Err(error) = act.ports.router.read().await
    {
        missing.push(refused("the proxy does not answer".to_owned()).because(error.to_string()).next(
            format!(
                "`cutover-host up` starts it; {} says what keeps it from answering",
                act.layout.process_log("proxy").display()
            ),
        ));
    }
    missing
}

/// Images that are not here: fetched again by digest, where they came from a registry.
async fn images(act: &Act<'_>, plan: &PreflightPlan, release: &Release) -> Result<Vec<Failure>, StageError> {
    let mut missing = Vec::new();
    let Ok(runtime) = act.ports.runtime(RuntimeKind::Container) else { return Ok(missing) };
    for (reference, wanted) in &plan.images {
        let found = runtime.image(reference).await.map_err(|error| {
            Failure::new(Exit::Failed, "the container engine does not answer").because(error.to_string())
        })?;
        if found.is_some_and(|found| found.identity == wanted.identity) {
            continue;
        }
        let fetched = async { fetch(act, plan, release, wanted).await.map(|lost| (lost, StepResult::Done)) };
        let image = wanted.name.clone().unwrap_or_else(|| reference.clone());
        let step = Step::Fetch { image };
        missing.extend(unless_cancelled(act, act.journal.act(Stage::Preflight, step, fetched)).await?);
    }
    Ok(missing)
}

/// Why it cannot be had; `None`: it is here.
async fn fetch(
    act: &Act<'_>,
    plan: &PreflightPlan,
    release: &Release,
    wanted: &WantedImage,
) -> Result<Option<Failure>, Trouble> {
    let name = wanted.name.clone().unwrap_or_else(|| "an image".to_owned());
    let gone =
        Failure::new(Exit::Refused, format!("{name} of release {} is not on this host any more", release.id));
    let Some(origin) = &wanted.origin else {
        let failure =
            gone.because("it came from no registry, and was removed from the container engine since");
        return Ok(Some(failure.next("deploy the commit again: the image is built anew")));
    };
    let runtime = act.ports.runtime(RuntimeKind::Container)?;
    let values = registry_values(act, plan, release)?;
    let fetcher = Fetcher { runtime: runtime.as_ref(), registry: release.registry.as_ref(), values: &values };
    Ok(match fetcher.fetch(origin, wanted.platform.as_deref(), &mut |_| ()).await {
        Ok(found) if found.identity == wanted.identity => None,
        Ok(_) => Some(gone.because(format!("{origin} is another image now")).next("deploy the commit again")),
        Err(failure) => Some(failure),
    })
}

/// What the release's env file holds or will hold, for the registry's credentials.
fn registry_values(act: &Act<'_>, plan: &PreflightPlan, release: &Release) -> Result<Secrets, Trouble> {
    let own = act.layout.release_env(act.app(), &release.id);
    if plan.env == EnvSource::Recorded && own.exists() {
        return environment::read(&own);
    }
    let sent = assignment::sent(act.layout, act.journal.run());
    Ok(environment::read(&act.layout.env_file(act.app()))?.overlaid(&sent))
}

/// Host ports that the plan publishes and somebody else has.
fn taken(plan: &PreflightPlan) -> Vec<Failure> {
    let busy = plan.ports.iter().filter(|address| {
        std::net::TcpListener::bind(**address)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    });
    busy.map(|address| {
        Failure::new(Exit::Refused, format!("port {address} is taken on this host"))
            .next("choose another host port under `ports:`, or stop what listens there")
    })
    .collect()
}

fn admit(act: &Act<'_>, plan: &PreflightPlan, release: &Release, change: &EnvChange) -> Result<(), Trouble> {
    // A rehearsal leaves every record as it is: this one may be that of what is live.
    if act.plan.verb == Verb::MigrateRehearse && is_on_record(act, release)? {
        return Ok(());
    }
    let own = act.layout.release_env(act.app(), &release.id);
    if !(plan.env == EnvSource::Recorded && own.exists()) {
        let values = act.env_files().of_release(plan, change)?;
        files::ensure_folder(own.parent().unwrap_or(&own), 0o700)?;
        files::replace(&own, values.to_env_file().as_bytes(), 0o600)?;
    }
    act.store.put_release(&environment::as_recorded(act.layout, plan, release)?)?;
    Ok(())
}

fn is_on_record(act: &Act<'_>, release: &Release) -> Result<bool, Trouble> {
    Ok(act.store.releases(act.app())?.iter().any(|record| record.release.id == release.id))
}
