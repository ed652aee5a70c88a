//! The record of what setup did, in the folder of the state.

use std::path::PathBuf;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{RECORD_VERSION, Record};

use super::system::failed;
use crate::files;

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
    use cutover_core::setup::{Ingress, SetupSettings, Wanted};

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
