//! Backups beyond what `keep` says go, and those that never came to be verified. Only those of the app; what another app keeps in the same
//! repository stays.

use cutover_core::backup::{Keep, KnownBackup};
use cutover_core::names::AppId;

use super::restic::{Listed, Restic, ResticError, VERIFIED, tag};

/// What was done.
pub(super) struct Pruned {
    pub(super) gone: Vec<KnownBackup>,
    pub(super) stay: usize,
}

/// Takes away what is beyond `keep`.
pub(super) async fn prune(restic: &Restic, app: &AppId, keep: Keep) -> Result<Pruned, ResticError> {
    let before = restic.list(&tag(app)).await?;
    let broken = unverified(&before);
    for backup in &broken {
        restic.run_alone(&["forget", &backup.id]).await?;
    }
    let verified = format!("{},{VERIFIED}", tag(app));
    let mut words =
        vec!["forget".to_owned(), "--tag".to_owned(), verified, "--group-by".to_owned(), String::new()];
    for (kind, count) in [("daily", keep.daily), ("weekly", keep.weekly), ("monthly", keep.monthly)] {
        if count > 0 {
            words.extend([format!("--keep-{kind}"), count.to_string()]);
        }
    }
    // The newest stays whatever the clock says.
    words.extend(["--keep-last".to_owned(), "1".to_owned(), "--prune".to_owned()]);
    restic.run_alone(&words).await?;
    let after = restic.list(&tag(app)).await?;
    let stays = |backup: &&Listed| after.iter().any(|stays| stays.id == backup.id);
    Ok(Pruned { gone: before.iter().filter(|backup| !stays(backup)).map(known).collect(), stay: after.len() })
}

/// Those that were not verified, where a newer one was: nobody works on them any more.
fn unverified(all: &[Listed]) -> Vec<&Listed> {
    let newest = all.iter().filter(|backup| is_verified(backup)).map(|backup| backup.time).max();
    let older = |backup: &&Listed| newest.is_some_and(|newest| backup.time < newest);
    all.iter().filter(|backup| !is_verified(backup)).filter(older).collect()
}

pub(super) fn is_verified(backup: &Listed) -> bool {
    backup.tags.iter().any(|tag| tag == VERIFIED)
}

pub(super) fn known(backup: &Listed) -> KnownBackup {
    let id = backup.id[..backup.id.len().min(8)].to_owned();
    KnownBackup { id, at: backup.time, verified: is_verified(backup) }
}
