//! The record of what setup did, in the folder of the state.

use std::path::PathBuf;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::setup::{Ingress, RECORD_VERSION, Record};

use super::system::failed;
use crate::files;
use crate::store::{Store, StoreError, apps_on_disk};

/// Where setup keeps what it needs to know.
pub(super) fn folder(layout: &Layout) -> PathBuf {
    layout.state().join("setup")
}

fn path(layout: &Layout) -> PathBuf {
    folder(layout).join("record.json")
}

/// What was done so far; nothing, where there is no record.
pub(super) fn read(layout: &Layout) -> Result<Record, Failure> {
    let unreadable = |why: String| {
        failed("read what earlier setups did")
            .because(format!("{}: {why}", path(layout).display()))
            .next("move that file away, and run `cutover setup` for every app of this host again")
    };
    let text = match std::fs::read(path(layout)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let record: Record = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    if record.version > RECORD_VERSION {
        return Err(unreadable(format!("it is of version {}, newer than this cutover-host", record.version)));
    }
    Ok(record)
}

/// The same with every app that is deployed here: one needs this server whether or not it was ever set up for it.
pub(super) fn read_with_deployed(layout: &Layout) -> Result<Record, Failure> {
    let record = read(layout)?;
    Ok(deployed(layout)
        .into_iter()
        .fold(record, |record, (app, ingress)| record.with_deployed(&app, ingress)))
}

/// Apps with a release here. Where it cannot be told which those are: all that have a folder, as if each had routes.
fn deployed(layout: &Layout) -> Vec<(AppId, Ingress)> {
    let on_disk = apps_on_disk(layout);
    if on_disk.is_empty() {
        return Vec::new();
    }
    let known = || {
        let store = Store::open(layout)?;
        let apps = store.apps()?.into_iter().map(|app| Ok((app.clone(), ingress(&store, &app)?)));
        apps.collect::<Result<Vec<_>, StoreError>>()
    };
    known().unwrap_or_else(|error| {
        tracing::warn!(%error, "every app with a folder counts as deployed");
        on_disk.into_iter().map(|app| (app, Ingress::Routes)).collect()
    })
}

fn ingress(store: &Store, app: &AppId) -> Result<Ingress, StoreError> {
    let releases = store.releases(app)?;
    let mut services = releases.iter().flat_map(|record| record.release.services.values());
    let routed = services.any(|service| service.settings.route.is_some());
    Ok(if routed { Ingress::Routes } else { Ingress::None })
}

pub(super) fn write(layout: &Layout, record: &Record) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(record)
        .map_err(|error| failed("record what was done").because(error.to_string()))?;
    files::ensure_folder(&folder(layout), 0o700)
        .and_then(|()| files::replace(&path(layout), &text, 0o600))
        .map_err(|error| failed("record what was done").because(error.to_string()))
}

pub(super) fn forget(layout: &Layout) -> Result<(), Failure> {
    files::remove(&path(layout)).map_err(|error| failed("remove the record").because(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::names::RunId;
    use cutover_core::plan::Verb;
    use cutover_core::setup::{SetupSettings, Wanted};
    use jiff::Timestamp;

    #[test]
    fn an_app_that_is_deployed_counts_though_it_was_never_set_up() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        assert_eq!(read_with_deployed(&layout).unwrap(), Record::default());
        assert!(!layout.store().exists(), "a look makes no store");
        let blog: AppId = "blog/production".parse().unwrap();
        std::fs::create_dir_all(layout.app(&blog)).unwrap();
        assert_eq!(read_with_deployed(&layout).unwrap(), Record::default(), "a folder alone serves nobody");
        let (run, now) = (RunId::new(uuid::Uuid::now_v7()), Timestamp::now());
        Store::open(&layout).unwrap().begin_run(run, &blog, Verb::Deploy, "ci", now).unwrap();

        let known = read_with_deployed(&layout).unwrap();

        assert_eq!(known.apps[&blog.to_string()].ingress, Ingress::None, "no release of it has a route");
        assert_eq!(read(&layout).unwrap(), Record::default());
    }

    #[test]
    fn what_was_recorded_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        assert_eq!(read(&layout).unwrap(), Record::default());
        let wanted = Wanted {
            backups: false,
            app: "shop/production".parse().unwrap(),
            program: "0.1.0-aaaaaaaaaaaa".to_owned(),
            settings: SetupSettings::default(),
            ingress: Ingress::Routes,
            secrets: std::collections::BTreeSet::new(),
        };
        let record = Record::default().with(&wanted);

        write(&layout, &record).unwrap();

        assert_eq!(read(&layout).unwrap(), record);
        std::fs::write(path(&layout), "{\"version\": 2}").unwrap();
        assert!(read(&layout).unwrap_err().cause[0].contains("newer than this cutover-host"));
    }
}
