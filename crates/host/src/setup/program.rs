//! `cutover-host` in its place: a folder for each version, and a link to the newest. The one before stays, so that what runs goes on with
//! what it began with (S23).

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{self, place};
use serde::{Deserialize, Serialize};

use super::record;
use super::system::failed;
use crate::files;
use crate::lock::{HostLock, LockError};
use crate::program;
use crate::settle::{PUT_AWAY, is_putting_away};
use crate::snapshots;
use crate::store::Store;
use crate::up;

/// Between two tries to be alone on the host.
const AGAIN: Duration = Duration::from_millis(20);
/// Digits of a sum that tell programs apart.
const SHORT: usize = 12;
/// Older ones that stay beside the newest and the one before.
const KEPT: usize = 1;

/// The folder the link leads to.
pub(super) fn linked() -> Option<String> {
    let target = fs::read_link(place::LINK).ok()?;
    let folder = target.parent()?;
    let is_there = target.is_file() && folder.parent() == Some(Path::new(place::PROGRAMS));
    is_there.then(|| folder.file_name()?.to_str().map(str::to_owned))?
}

/// The folder for one that somebody put where the link is to be: it serves, perhaps, and is the way back. By its sum, since it would have to be
/// executed to say its version; `None`: there is none.
fn by_hand(link: &Path) -> io::Result<Option<String>> {
    if !link.is_file() {
        return Ok(None);
    }
    let sum = snapshots::hash(link)?;
    Ok(Some(format!("by-hand-{}", sum.as_str().get(..SHORT).unwrap_or_default())))
}

/// What served before the link was moved: written before that, and there until what the link leads to is known to serve. Whoever breaks off in
/// between leaves the way back here.
#[derive(Serialize, Deserialize)]
struct Replaced {
    folder: String,
    /// `cutover-host up` kept proxy and watch then. No unit starts it again: whoever goes on from here does.
    #[serde(default)]
    up: Option<KeptUp>,
}

/// A `cutover-host up` that kept proxy and watch.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeptUp {
    /// Its `CUTOVER_HTTP`.
    pub(super) http: Option<String>,
}

fn replaced_file(layout: &Layout) -> PathBuf {
    record::folder(layout).join("upgrade.json")
}

/// The folder of the program that served before one of which it is not known whether it serves; `None`: it is known.
pub(super) fn replaced(layout: &Layout) -> Option<String> {
    read_replaced(layout).map(|replaced| replaced.folder)
}

/// The `cutover-host up` that kept proxy and watch as the upgrade began that broke off.
pub(super) fn kept_up(layout: &Layout) -> Option<KeptUp> {
    read_replaced(layout)?.up
}

fn read_replaced(layout: &Layout) -> Option<Replaced> {
    serde_json::from_slice(&fs::read(replaced_file(layout)).ok()?).ok()
}

/// Where the way back leads: to what served last as far as it is known. Who put a program there by hand did so after any upgrade.
pub(super) fn way_back(layout: &Layout) -> Option<String> {
    match linked() {
        Some(linked) => replaced(layout).or(Some(linked)),
        None => by_hand(Path::new(place::LINK)).ok().flatten().or_else(|| replaced(layout)),
    }
}

fn note_replaced(layout: &Layout, folder: &str) -> Result<(), Failure> {
    let what = || failed("write down which cutover-host served before");
    let up =
        if up::is_up(layout) { Some(KeptUp { http: up::http_variable(layout) }) } else { kept_up(layout) };
    let text = serde_json::to_vec(&Replaced { folder: folder.to_owned(), up })
        .map_err(|error| what().because(error.to_string()))?;
    files::ensure_folder(&record::folder(layout), 0o700)
        .and_then(|()| files::replace(&replaced_file(layout), &text, 0o600))
        .map_err(|error| what().because(error.to_string()))
}

/// What the link leads to serves.
pub(super) fn proved(layout: &Layout) {
    if let Err(error) = files::remove(&replaced_file(layout)) {
        tracing::warn!(%error, "the next upgrade restarts proxy and watch without need");
    }
}

/// A run that has told that it is done and only puts something away is waited for.
fn alone(layout: &Layout) -> Result<HostLock, LockError> {
    let end = Instant::now() + PUT_AWAY;
    loop {
        let taken = HostLock::exclusive(layout);
        let is_passing = || {
            let Ok(store) = Store::open(layout) else { return false };
            let apps = store.apps().unwrap_or_default();
            apps.iter().any(|app| is_putting_away(layout, &store, app))
        };
        if taken.is_ok() || Instant::now() >= end {
            return taken;
        }
        // Whoever had it may have let go since.
        if !is_passing() {
            return HostLock::exclusive(layout);
        }
        std::thread::sleep(AGAIN);
    }
}

/// Puts this very program there. Alone on the host: a run that has not begun yet begins with the new one, and no run is in between.
pub(super) fn install(layout: &Layout, folder: &str) -> Result<(), Failure> {
    let _alone = alone(layout).map_err(|error| {
        let mut failure = failed("put the new cutover-host into its place").because(error.to_string());
        failure.exit = cutover_core::exit::Exit::Locked;
        failure.next("wait for their end (`cutover attach`), then try again")
    })?;
    let what = || failed("put cutover-host into its place");
    let because = |error: io::Error| {
        let failure = what().because(error.to_string());
        if error.kind() == io::ErrorKind::StorageFull {
            failure.next("make room on the disk of /usr/local")
        } else {
            failure
        }
    };
    let link = Path::new(place::LINK);
    let by_hand = if linked().is_none() { by_hand(link).map_err(because)? } else { None };
    let before = linked().or_else(|| by_hand.clone());
    let old = by_hand.clone().or_else(|| replaced(layout)).or_else(|| before.clone());
    place_program(&program::own(), folder).map_err(because)?;
    if let Some(by_hand) = &by_hand {
        // The link takes its place: kept first, it can be given back.
        place_program(link, by_hand).map_err(because)?;
    }
    if let Some(old) = &old {
        note_replaced(layout, old)?;
    }
    lead(folder).map_err(because)?;
    let stay: Vec<&str> = [Some(folder), before.as_deref(), old.as_deref()].into_iter().flatten().collect();
    tidy(Path::new(place::PROGRAMS), &stay);
    Ok(())
}

fn place_program(program: &Path, folder: &str) -> io::Result<()> {
    let target = PathBuf::from(setup::program(folder));
    let above = files::folder_of(&target);
    // With each folder above it on the disk, or the link would lead nowhere after a loss of power (S3).
    files::ensure_folder(above, 0o755).map_err(|error| {
        let kind = if error.full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        io::Error::new(kind, error.message)
    })?;
    let next = files::beside(&target);
    let placed = fs::copy(program, &next)
        .and_then(|_| fs::set_permissions(&next, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::File::open(&next)?.sync_all())
        .and_then(|()| fs::rename(&next, &target));
    if placed.is_err() {
        files::discard(&next);
    }
    placed?;
    fs::File::open(above)?.sync_all()
}

/// Lets the link lead to the program of this folder. To one that is not there it never leads: nothing would start any more.
pub(super) fn link(folder: &str) -> Result<(), Failure> {
    lead(folder).map_err(|error| {
        failed(&format!("let {} lead to cutover-host {folder}", place::LINK)).because(error.to_string())
    })
}

fn lead(folder: &str) -> io::Result<()> {
    let target = setup::program(folder);
    if !Path::new(&target).is_file() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{target} is not there")));
    }
    let link = Path::new(place::LINK);
    let next = files::beside(link);
    fs::create_dir_all(files::folder_of(link))?;
    files::discard(&next);
    symlink(target, &next)?;
    fs::rename(&next, link)?;
    fs::File::open(files::folder_of(link))?.sync_all()
}

/// The oldest go, but none of those that `stay` names: what the link led to is the way back, however old it is. Those that a process still
/// executes stay by that alone.
fn tidy(programs: &Path, stay: &[&str]) {
    let Ok(entries) = fs::read_dir(programs) else { return };
    let mut others: Vec<(std::time::SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| !stay.contains(&name) && !name.starts_with('.'))
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort();
    let surplus = others.len().saturating_sub(KEPT);
    for (_, path) in others.into_iter().take(surplus) {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "an old cutover-host stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_served_before_stays_however_many_were_tried_since() {
        let programs = tempfile::tempdir().unwrap();
        for (age, name) in (0..).zip(["d", "c", "b", "0.1", "0.0"]) {
            let folder = programs.path().join(name);
            fs::create_dir(&folder).unwrap();
            let made = std::time::SystemTime::now() - Duration::from_secs(60 * age);
            fs::File::open(&folder).unwrap().set_modified(made).unwrap();
        }

        tidy(programs.path(), &["d", "0.1"]);

        let mut left: Vec<_> =
            fs::read_dir(programs.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.1", "c", "d"], "0.1 serves, and is the way back");
    }

    #[test]
    fn what_served_before_is_known_until_the_next_one_serves() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        assert_eq!(replaced(&layout), None);

        note_replaced(&layout, "0.1").unwrap();

        assert_eq!((replaced(&layout), way_back(&layout)), (Some("0.1".to_owned()), Some("0.1".to_owned())));
        proved(&layout);
        assert_eq!(replaced(&layout), None);
    }

    #[test]
    fn who_kept_proxy_and_watch_is_known_until_the_next_one_serves() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        fs::create_dir_all(record::folder(&layout)).unwrap();
        // As earlier versions wrote it.
        fs::write(replaced_file(&layout), r#"{"folder":"0.1"}"#).unwrap();
        assert_eq!((replaced(&layout).as_deref(), kept_up(&layout).is_some()), (Some("0.1"), false));
        fs::write(replaced_file(&layout), r#"{"folder":"0.1","up":{"http":"127.0.0.1:8080"}}"#).unwrap();

        // Another try, when nobody is up any more.
        note_replaced(&layout, "0.1").unwrap();

        assert_eq!(kept_up(&layout).unwrap().http.as_deref(), Some("127.0.0.1:8080"));
    }

    #[test]
    fn one_that_was_put_there_by_hand_is_known_by_its_sum() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("cutover-host");
        assert_eq!(by_hand(&link).unwrap(), None, "there is none");
        fs::write(&link, "a program").unwrap();

        let named = by_hand(&link).unwrap();

        assert_eq!(named.as_deref(), Some("by-hand-d69ea8cda243"));
    }

    #[test]
    fn the_link_never_leads_to_a_program_that_is_not_there() {
        let failure = link("0.0.0-nowhere").unwrap_err();
        assert!(failure.cause[0].ends_with("0.0.0-nowhere/cutover-host is not there"), "{failure}");
    }
}
