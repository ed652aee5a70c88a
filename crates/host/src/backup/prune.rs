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
    let went: Vec<&Listed> =
        before.iter().filter(|it| is_verified(it) && !kept.iter().any(|kept| kept.id == it.id)).collect();
    let broken = unverified(&kept).into_iter().chain(without_backup(&dumps, &stay, &went));
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

/// Dumps whose backup is not there: it went just now, or was never finished. On this host nobody else works on backups of this app; where it moved
/// from somebody may, and that host may be called as this one is.
fn without_backup<'a>(dumps: &'a [Listed], stay: &[&Listed], went: &[&Listed]) -> Vec<&'a Listed> {
    let is_of = |dump: &Listed, backups: &[&Listed]| {
        dump.tags.iter().any(|tag| is_mark(tag) && backups.iter().any(|it| it.tags.contains(tag)))
    };
    let is_over = |dump: &&Listed| is_of(dump, went) || Timestamp::now().duration_since(dump.time) > ANOTHERS;
    dumps.iter().filter(|dump| !is_of(dump, stay)).filter(is_over).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, mark: &str, age: SignedDuration) -> Listed {
        Listed {
            id: id.to_owned(),
            time: Timestamp::now() - age,
            paths: Vec::new(),
            tags: vec![mark.to_owned()],
            original: None,
        }
    }

    #[test]
    fn a_dump_goes_with_its_backup_and_one_without_any_when_nobody_can_be_at_it_any_more() {
        let marks: [String; 3] = std::array::from_fn(|_| super::super::restic::new_mark());
        let hour = SignedDuration::from_hours(1);
        let (stays, went) = (listed("stays", &marks[0], hour), listed("went", &marks[1], hour));
        let dumps = [
            listed("of what stays", &marks[0], ANOTHERS + hour),
            listed("of what went", &marks[1], hour),
            listed("on its way", &marks[2], ANOTHERS - hour),
            listed("left", &marks[2], ANOTHERS + hour),
        ];

        let gone = without_backup(&dumps, &[&stays], &[&went]);

        let gone: Vec<&str> = gone.iter().map(|dump| dump.id.as_str()).collect();
        assert_eq!(gone, ["of what went", "left"]);
    }
}
