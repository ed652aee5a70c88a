//! Backups beyond what `keep` says go, and those that never came to be verified. Only those of the app; what another app keeps in the same
//! repository stays.

use cutover_core::backup::{Keep, KnownBackup};
use cutover_core::names::AppId;
use jiff::{SignedDuration, Timestamp};

use super::restic::{Listed, Restic, ResticError, VERIFIED, dumps_tag, is_mark, tag};

/// What was done.
pub(super) struct Pruned {
    pub(super) gone: Vec<KnownBackup>,
    pub(super) stay: usize,
}

/// Takes away what is beyond `keep`, with the dumps that belong to it. The one of the mark `newest` was just made, whatever the clock says.
pub(super) async fn prune(
    restic: &Restic,
    app: &AppId,
    keep: Keep,
    newest: Option<&str>,
) -> Result<Pruned, ResticError> {
    let before = restic.list(&tag(app)).await?;
    let verified = format!("{},{VERIFIED}", tag(app));
    let mut words =
        vec!["forget".to_owned(), "--tag".to_owned(), verified, "--group-by".to_owned(), String::new()];
    for (kind, count) in [("daily", keep.daily), ("weekly", keep.weekly), ("monthly", keep.monthly)] {
        if count > 0 {
            words.extend([format!("--keep-{kind}"), count.to_string()]);
        }
    }
    // The newest stays whatever the clock says.
    words.extend(["--keep-last", "1"].map(str::to_owned));
    if let Some(mark) = newest {
        words.extend(["--keep-tag", mark].map(str::to_owned));
    }
    restic.run_alone(&words).await?;
    let kept = restic.list(&tag(app)).await?;
    let dumps = restic.list(&dumps_tag(app)).await?;
    let stay: Vec<&Listed> = {
        let broken: Vec<&str> = unverified(&kept).iter().map(|backup| backup.id.as_str()).collect();
        kept.iter().filter(|backup| !broken.contains(&backup.id.as_str())).collect()
    };
    let broken = unverified(&kept).into_iter().chain(without_backup(&dumps, &stay));
    let mut words: Vec<&str> = vec!["forget", "--prune"];
    words.extend(broken.map(|backup| backup.id.as_str()));
    if words.len() > 2 {
        restic.run_alone(&words).await?;
    } else if kept.len() < before.len() {
        restic.run_alone(&["prune"]).await?;
    }
    let stays = |backup: &&Listed| stay.iter().any(|stays| stays.id == backup.id);
    Ok(Pruned { gone: before.iter().filter(|backup| !stays(backup)).map(known).collect(), stay: stay.len() })
}

/// Another host of the same app may be at a backup for so long.
const ANOTHERS: SignedDuration = SignedDuration::from_hours(48);

/// Dumps whose backup is not there: it went, or was never finished. On this host nobody else works on backups of this app; where it moved from
/// somebody may.
fn without_backup<'a>(dumps: &'a [Listed], stay: &[&Listed]) -> Vec<&'a Listed> {
    let has_backup = |dump: &&Listed| {
        dump.tags.iter().any(|tag| is_mark(tag) && stay.iter().any(|it| it.tags.contains(tag)))
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let is_over =
        |dump: &&Listed| dump.hostname == host || Timestamp::now().duration_since(dump.time) > ANOTHERS;
    dumps.iter().filter(|dump| !has_backup(dump)).filter(is_over).collect()
}

/// Those that were not verified, where a newer one was: nobody works on them any more.
fn unverified(all: &[Listed]) -> Vec<&Listed> {
    // The newest comes first.
    let newest = all.iter().find(|backup| is_verified(backup)).map(|backup| backup.time);
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
