//! Taking away what nothing needs. Each looks again at the moment it goes: somebody may need it by now.

use std::fs;
use std::io;
use std::path::Path;

use cutover_core::hash::ContentHash;
use cutover_core::layout::{Layout, rotated};
use cutover_core::names::{AppId, InstanceName, ReleaseId, RunId};
use cutover_core::release::{BuiltImage, RuntimeKind};
use cutover_core::retention::{HeldImage, ImageNeeds, Kind, Leftover, unneeded_images};

use super::Needed;
use super::disk::{old_contexts, room, staged_path};
use crate::events;
use crate::files::{self, FileError};
use crate::journal::Trouble;
use crate::lock::RetentionLock;
use crate::parcels;
use crate::runtime::process::artifact::{Artifacts, open_up};
use crate::stages::Act;
use crate::store::Store;

/// Takes it away; the bytes that it took, none where it stays or was gone.
pub(crate) async fn remove(act: &Act<'_>, leftover: &Leftover) -> Result<u64, Trouble> {
    let (layout, app, name) = (act.layout, act.app(), leftover.name.as_str());
    match leftover.kind {
        Kind::Release => release(act, &parsed(name)?),
        Kind::Image => image(act, leftover).await,
        Kind::Artifact => artifact(act, name),
        Kind::Snapshot => {
            files::remove(&layout.snapshot(name))?;
            act.store.forget_snapshot(name)?;
            Ok(leftover.bytes)
        }
        Kind::Run => {
            let run: RunId = parsed(name)?;
            // The record goes last: until then the next prune finds it again.
            events::forget(layout, run)?;
            act.store.forget_run(run)?;
            Ok(leftover.bytes)
        }
        Kind::Log => log(layout, app, &parsed(name)?),
        Kind::Staged => staged(act, name),
    }
}

fn parsed<T>(name: &str) -> Result<T, Trouble>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    name.parse().map_err(|error| Trouble::plain(format!("`{name}`: {error}")))
}

fn release(act: &Act<'_>, id: &ReleaseId) -> Result<u64, Trouble> {
    // What is live is needed, whatever the plan says.
    if act.plan.live.as_ref().is_some_and(|live| live.release == *id) {
        return Ok(0);
    }
    let bytes = room(&act.layout.release(act.app(), id));
    forget_release(act.layout, act.store, act.app(), id)?;
    Ok(bytes)
}

/// Takes away what images were built from that no release has any more.
pub(crate) fn forget_contexts(layout: &Layout, app: &AppId, needed: &Needed) -> Result<(), FileError> {
    let names = old_contexts(layout, app, needed)?;
    names.iter().try_for_each(|name| files::remove(&layout.contexts().join(name)))
}

/// Forgets a release: its folder with its env file, and its record.
pub(crate) fn forget_release(
    layout: &Layout,
    store: &Store,
    app: &AppId,
    id: &ReleaseId,
) -> Result<(), Trouble> {
    store.forget_release(app, id)?;
    Ok(remove_folder(&layout.release(app, id))?)
}

async fn image(act: &Act<'_>, leftover: &Leftover) -> Result<u64, Trouble> {
    let runtime = act.ports.runtime(RuntimeKind::Container)?;
    let Some(found) = runtime.image(&leftover.name).await? else { return Ok(0) };
    let alone = RetentionLock::take(act.layout)?;
    let needed = Needed::under(&alone, act.layout, act.store, Some(act.journal.run()))?;
    let built = BuiltImage { id: found.id, name: leftover.name.clone() };
    let held = HeldImage {
        id: built.id.clone(),
        names: vec![built.name.clone()],
        layers: Vec::new(),
        users: Vec::new(),
    };
    let needs = ImageNeeds { app: act.app(), releases: &needed.releases, leased: &needed.leased.images };
    if unneeded_images(&[held], needs).gone.is_empty() {
        return Ok(0);
    }
    runtime.remove_image(&built).await?;
    // A container that was made meanwhile keeps it.
    let stays = runtime.image(&leftover.name).await?.is_some();
    Ok(if stays { 0 } else { leftover.bytes })
}

fn artifact(act: &Act<'_>, name: &str) -> Result<u64, Trouble> {
    let Some(hash) = ContentHash::from_hex(name) else { return Ok(0) };
    let alone = RetentionLock::take(act.layout)?;
    let needed = Needed::under(&alone, act.layout, act.store, Some(act.journal.run()))?;
    if needed.artifacts().is_none_or(|needed| needed.contains(&hash)) {
        return Ok(0);
    }
    let bytes = room(&act.layout.artifact(&hash));
    Artifacts::new(act.layout.clone()).remove(&hash)?;
    Ok(bytes)
}

fn log(layout: &Layout, app: &AppId, instance: &InstanceName) -> Result<u64, Trouble> {
    if layout.instance(app, instance).exists() {
        return Ok(0);
    }
    let first = layout.instance_log(app, instance);
    let mut bytes = 0;
    for number in 0..=cutover_core::defaults::LOG_FILES {
        let file = rotated(&first, number);
        bytes += room(&file);
        files::remove(&file)?;
    }
    Ok(bytes)
}

fn staged(act: &Act<'_>, name: &str) -> Result<u64, Trouble> {
    let Some(path) = staged_path(act.layout, act.app(), name) else { return Ok(0) };
    let alone = RetentionLock::take(act.layout)?;
    let needed = Needed::under(&alone, act.layout, act.store, Some(act.journal.run()))?;
    if needed.is_leased() && (name.starts_with("layers/") || name.starts_with("parcels/.")) {
        return Ok(0);
    }
    if name.starts_with("parcels/.") && parcels::is_written(&path) {
        return Ok(0);
    }
    let bytes = room(&path);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => remove_folder(&path)?,
        _ => files::remove(&path)?,
    }
    Ok(bytes)
}

/// Removes a folder with all that is in it, also where its folders may not be written to; absent: nothing.
pub(crate) fn remove_folder(path: &Path) -> Result<(), FileError> {
    match open_up(path).and_then(|()| fs::remove_dir_all(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, &error)),
        _ => Ok(()),
    }
}
