//! Record: the release, its migrations, and what nothing needs any more. Retention is best effort, only ours, and never what rollback needs.

use std::collections::BTreeSet;

use cutover_core::journal::{Step, StepResult, What};
use cutover_core::names::ReleaseId;
use cutover_core::plan::{DatabasePlace, Direction, HeldDatabase, RecordPlan, Stage, Verb};
use cutover_core::recover::{migration_records, restored, undone};
use cutover_core::release::{RuntimeKind, images_to_remove};
use cutover_core::retention::{Kind, Leftover};

use super::drain::Drained;
use super::environment::EnvChange;
use super::start::retire;
use super::{Act, located, password};
use crate::assignment::Assignment;
use crate::journal::{StageError, Trouble};
use crate::leftovers::{self, Going, Needed, Place, remove_folder};
use crate::lock::RetentionLock;
use crate::runtime::process::artifact::Artifacts;

/// The records say what is so.
pub(crate) struct Recorded(());

pub(crate) async fn record(
    act: &Act<'_>,
    plan: &RecordPlan,
    change: &EnvChange,
    _: Drained,
) -> Result<Recorded, StageError> {
    // A rehearsal makes nothing live.
    if act.plan.direction == Direction::Forward && act.plan.verb != Verb::MigrateRehearse {
        let recorded = async { lived(act, change).map(|()| ((), StepResult::Done)) };
        act.journal.act(Stage::Record, Step::Record, recorded).await?;
    }
    if act.plan.direction == Direction::Forward && act.plan.verb == Verb::Deploy {
        let_kept_databases_go(act).await;
    }
    for candidate in &plan.candidates {
        if let Err(error) = retire(act, Stage::Record, candidate).await {
            act.journal.write(What::Warning { stage: Stage::Record, text: error.failure().to_string() })?;
        }
    }
    for release in &plan.forget {
        let forget = async { forget(act, release).await.map(|()| ((), StepResult::Done)) };
        act.journal
            .best_effort(Stage::Record, Step::Discard { what: format!("release {release}") }, forget)
            .await;
    }
    for network in &plan.networks {
        let runtime = act.ports.runtime(RuntimeKind::Container);
        let remove = async { runtime?.remove_network(network).await.map(|()| ((), StepResult::Done)) };
        act.journal
            .best_effort(Stage::Record, Step::Discard { what: format!("network {network}") }, remove)
            .await;
    }
    for volume in &plan.volumes {
        let runtime = act.ports.runtime(volume.runtime);
        let remove = async { runtime?.remove_volume(volume).await.map(|()| ((), StepResult::Done)) };
        act.journal
            .best_effort(Stage::Record, Step::Discard { what: format!("volume {}", volume.name) }, remove)
            .await;
    }
    if let Some(keep) = plan.snapshots {
        let_snapshots_go(act, keep).await?;
    }
    prune(act, &plan.leftovers).await?;
    if plan.forget_app {
        let forget = async { forget_app(act, plan).map(|()| ((), StepResult::Done)) };
        act.journal
            .act(Stage::Record, Step::Discard { what: format!("records of {}", act.app()) }, forget)
            .await?;
        match crate::setup::app_removed(act.layout, act.app()) {
            Ok(told) => told.map_or(Ok(()), |text| act.journal.note(Stage::Record, text))?,
            Err(failure) => {
                act.journal.write(What::Warning { stage: Stage::Record, text: failure.to_string() })?;
            }
        }
    }
    Ok(Recorded(()))
}

/// Databases of servers that restores which nobody asked for have kept: what was migrated now is good.
async fn let_kept_databases_go(act: &Act<'_>) {
    let direct = act.plan.migrate.todo().into_iter().flat_map(|migrate| &migrate.direct);
    let held = act.plan.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    let held = held.filter_map(|held| match held {
        HeldDatabase::Migrate { migration } => Some(migration.as_ref()),
        HeldDatabase::Restore { .. } | HeldDatabase::Password { .. } | HeldDatabase::Settle { .. } => None,
    });
    for migration in direct.chain(held) {
        let Some(DatabasePlace::Server(place)) = &migration.place else { continue };
        let looked = async {
            let server = located::server(act, place).await?;
            let kept = act.ports.database.kept(&server).await?;
            Ok::<_, Trouble>((server, kept))
        };
        let Ok((server, kept)) = looked.await else { continue };
        for name in kept {
            let step = Step::Discard { what: format!("database {name}") };
            let gone = async {
                act.ports.database.drop_kept(&server, &name).await?;
                Ok::<_, Trouble>(((), StepResult::Done))
            };
            act.journal.best_effort(Stage::Record, step, gone).await;
        }
    }
}

fn lived(act: &Act<'_>, change: &EnvChange) -> Result<(), Trouble> {
    let Some(release) = &act.plan.release else { return Ok(()) };
    act.env_files().keep(change)?;
    let entries = act.journal.entries()?;
    let goal = cutover_core::recover::goal(&entries).unwrap_or(act.plan);
    let (migrated, restored) = (migration_records(&entries, goal), restored(&entries, goal));
    act.store.undo_migrations(act.app(), &undone(&entries, goal))?;
    act.store.mark_live(act.app(), &release.id, &migrated, &restored)?;
    password::carry_back(act, goal)
}

/// Forgets a release: record, env file, and artifacts, built images and what they were built from that no other release of any app refers to (S26).
async fn forget(act: &Act<'_>, id: &ReleaseId) -> Result<(), Trouble> {
    let records = act.store.releases(act.app())?;
    let Some(gone) = records.into_iter().find(|record| record.release.id == *id) else { return Ok(()) };
    // What went live in between is no rehearsal's any more.
    if act.plan.verb == Verb::MigrateRehearse && gone.lived {
        return Ok(());
    }
    let gone = gone.release;
    leftovers::forget_release(act.layout, act.store, act.app(), id)?;
    // Nobody says that he needs something while it is taken away.
    let alone = RetentionLock::take(act.layout)?;
    let needed = Needed::under(&alone, act.layout, act.store, Some(act.journal.run()))?;
    let store = Artifacts::new(act.layout.clone());
    if let Some(needed) = needed.artifacts() {
        for artifact in gone.artifacts().difference(&needed) {
            store.remove(artifact)?;
        }
    }
    leftovers::forget_contexts(act.layout, act.app(), &needed)?;
    let images = images_to_remove(&gone, needed.releases.iter(), &fetched(act)?);
    for image in images.into_iter().filter(|image| !needed.leased.has_image(image)) {
        act.ports.runtime(RuntimeKind::Container)?.remove_image(&image).await?;
    }
    Ok(())
}

/// What a rehearsal has had fetched, by name: nothing else is taken away for coming from a registry.
fn fetched(act: &Act<'_>) -> Result<BTreeSet<String>, Trouble> {
    if act.plan.verb != Verb::MigrateRehearse {
        return Ok(BTreeSet::new());
    }
    let run = act.journal.run();
    let mut fetched = Assignment::load(act.layout, run).map(|assigned| assigned.fetched).unwrap_or_default();
    let entries = act.journal.entries()?;
    fetched.extend(entries.into_iter().filter_map(|entry| match entry.what {
        What::Intent { step: Step::Fetch { image }, .. } => Some(image),
        _ => None,
    }));
    Ok(fetched)
}

/// Snapshots beyond those that stay. What cannot be looked at stays, and is told; and so does what is on no record, since nobody is asked: a
/// person may have put it there.
async fn let_snapshots_go(act: &Act<'_>, keep: u32) -> Result<(), StageError> {
    let old = || {
        let known = act.store.snapshots(act.app())?;
        let old = leftovers::old_snapshots(act.layout, act.store, act.app(), &BTreeSet::new(), keep)?;
        Ok::<_, Trouble>(old.into_iter().filter(|one| known.contains_key(&one.name)).collect::<Vec<_>>())
    };
    let old = match old() {
        Ok(old) => old,
        Err(trouble) => {
            let text = format!("old snapshots stay: {trouble}");
            return act.journal.write(What::Warning { stage: Stage::Record, text }).map(drop);
        }
    };
    for snapshot in &old {
        discard(act, snapshot).await;
    }
    Ok(())
}

/// What nothing needs: of what the plan names, that of which it is still true.
async fn prune(act: &Act<'_>, planned: &[Leftover]) -> Result<(), StageError> {
    let (releases, others): (Vec<_>, Vec<_>) = planned.iter().partition(|one| one.kind == Kind::Release);
    for release in releases {
        discard(act, release).await;
    }
    if others.is_empty() {
        return Ok(());
    }
    let place = Place { layout: act.layout, store: act.store, ports: act.ports, app: act.app() };
    let found = match place.look(&Going::default()).await {
        Ok(found) => found.gone,
        Err(trouble) => {
            let text = format!("the rest stays: it cannot be told what is needed: {trouble}");
            return act.journal.write(What::Warning { stage: Stage::Record, text }).map(drop);
        }
    };
    let is_planned =
        |one: &&Leftover| others.iter().any(|other| (other.kind, &other.name) == (one.kind, &one.name));
    for leftover in found.iter().filter(is_planned) {
        discard(act, leftover).await;
    }
    Ok(())
}

async fn discard(act: &Act<'_>, leftover: &Leftover) {
    let step = Step::Discard { what: format!("{} {}", leftover.kind.as_str(), leftover.name) };
    let gone = async {
        let bytes = leftovers::remove(act, leftover).await?;
        Ok::<_, Trouble>(((), StepResult::Freed { bytes }))
    };
    act.journal.best_effort(Stage::Record, step, gone).await;
}

fn forget_app(act: &Act<'_>, plan: &RecordPlan) -> Result<(), Trouble> {
    act.store.forget_app(act.app())?;
    let folder = act.layout.app(act.app());
    let removed = |name: &str| remove_folder(&folder.join(name));
    removed("releases")?;
    removed("instances")?;
    crate::parcels::forget_app(act.layout, act.app()).map_err(|error| Trouble::plain(error.to_string()))?;
    // Volumes of plain processes lie here: they stay unless they were asked for, and with any volume what its data was made with.
    if plan.data || !(plan.env_stays || folder.join("volumes").exists()) {
        remove_folder(&folder)?;
    }
    Ok(())
}
