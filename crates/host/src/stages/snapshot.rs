//! Snapshot: a restorable copy before a migration. SQLite's are taken inside the handover, while nothing has the file open (S16); no other
//! engine has snapshots yet, so the stage itself has nothing to do.

use cutover_core::journal::{Step, StepResult};
use cutover_core::names::DatabaseName;
use cutover_core::plan::Stage;

use super::Act;
use crate::files;
use crate::journal::{StageError, Trouble};

/// Takes a verified, durable snapshot of a file that is there.
pub(super) async fn take(
    act: &Act<'_>,
    stage: Stage,
    database: &DatabaseName,
    path: &std::path::Path,
    file: &str,
) -> Result<(), StageError> {
    let to = act.layout.snapshot(file);
    let step = Step::Snapshot { database: database.clone(), file: file.to_owned() };
    let snapshot = async {
        files::ensure_folder(to.parent().unwrap_or(&to), 0o700)?;
        let bytes = act.ports.database.snapshot(path, &to).await?;
        act.store.put_snapshot(act.app(), file)?;
        Ok::<_, Trouble>(((), StepResult::Snapshot { bytes }))
    };
    act.journal.act(stage, step, snapshot).await
}
