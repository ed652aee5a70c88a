//! Record: the release, its migrations, and what nothing needs any more. Retention is best effort, only ours, and never what rollback needs.

use std::collections::BTreeSet;

use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, StepResult};
use cutover_core::names::ReleaseId;
use cutover_core::plan::{Direction, RecordPlan, Stage};
use cutover_core::recover::{migration_records, restored};
use cutover_core::release::{Release, RuntimeKind, images_to_remove};

use super::Act;
use super::drain::Drained;
use super::environment::EnvChange;
use super::start::retire;
use crate::journal::{StageError, Trouble};
use crate::lease::Lease;
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
    if act.plan.direction == Direction::Forward {
        let recorded = async { lived(act, change).map(|()| ((), StepResult::Done)) };
        act.journal.act(Stage::Record, Step::Record, recorded).await?;
    }
    for candidate in &plan.candidates {
        if let Err(error) = retire(act, Stage::Record, candidate).await {
            act.journal.write(cutover_core::journal::What::Warning {
                stage: Stage::Record,
                text: error.failure().to_string(),
            })?;
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
    if plan.forget_app {
        let forget = async { forget_app(act, plan).map(|()| ((), StepResult::Done)) };
        act.journal
            .act(Stage::Record, Step::Discard { what: format!("records of {}", act.app()) }, forget)
            .await?;
    }
    Ok(Recorded(()))
}

fn lived(act: &Act<'_>, change: &EnvChange) -> Result<(), Trouble> {
    let Some(release) = &act.plan.release else { return Ok(()) };
    act.env_files().keep(change)?;
    let entries = act.journal.entries()?;
    let goal = cutover_core::recover::goal(&entries).unwrap_or(act.plan);
    let (migrated, restored) = (migration_records(&entries, goal), restored(&entries, goal));
    act.store.mark_live(act.app(), &release.id, &migrated, &restored)?;
    act.store.set_warm(act.app(), &release.id, None)?;
    Ok(())
}

/// Forgets a release: record, env file, and artifacts and built images that no other release of any app refers to (S26).
async fn forget(act: &Act<'_>, id: &ReleaseId) -> Result<(), Trouble> {
    let records = act.store.releases(act.app())?;
    let Some(gone) = records.into_iter().find(|record| record.release.id == *id) else { return Ok(()) };
    let gone = gone.release;
    act.store.forget_release(act.app(), id)?;
    remove_folder(&act.layout.release(act.app(), id))?;
    let mut stay: Vec<Release> = Vec::new();
    for app in act.store.apps()? {
        stay.extend(act.store.releases(&app)?.into_iter().map(|record| record.release));
    }
    // Nobody says that he needs something while it is taken away.
    let alone = RetentionLock::take(act.layout)?;
    let unfinished = act.store.all_unfinished()?.into_iter().map(|(_, run)| run);
    let unfinished = unfinished.filter(|run| *run != act.journal.run()).collect();
    let leased = Lease::all(&alone, act.layout, &unfinished)?;
    let mut needed: BTreeSet<ContentHash> = stay.iter().flat_map(Release::artifacts).collect();
    needed.extend(leased.artifacts.iter().cloned());
    let store = Artifacts::new(act.layout.clone());
    for artifact in gone.artifacts().difference(&needed) {
        store.remove(artifact)?;
    }
    let images = images_to_remove(&gone, stay.iter());
    for image in images.into_iter().filter(|image| !leased.has_image(image)) {
        act.ports.runtime(RuntimeKind::Container)?.remove_image(&image).await?;
    }
    Ok(())
}

fn forget_app(act: &Act<'_>, plan: &RecordPlan) -> Result<(), Trouble> {
    act.store.forget_app(act.app())?;
    let folder = act.layout.app(act.app());
    let removed = |name: &str| remove_folder(&folder.join(name));
    removed("releases")?;
    removed("instances")?;
    crate::parcels::forget_app(act.layout, act.app()).map_err(|error| Trouble::plain(error.to_string()))?;
    // Volumes of plain processes lie here: they stay unless they were asked for.
    if plan.volumes.iter().any(|volume| volume.runtime == RuntimeKind::Process)
        || !folder.join("volumes").exists()
    {
        remove_folder(&folder)?;
    }
    Ok(())
}

fn remove_folder(path: &std::path::Path) -> Result<(), Trouble> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::plain(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
