//! The file of events beside runs: what people, or their alerts, were told of an app, a line for each change. The file itself is what is remembered over a
//! restart of watch: an event that is in it was told, and one that could not be written is told at the next look. So each is told once, whenever watch
//! is killed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cutover_core::defaults::LOG_BYTES;
use cutover_core::event::{Condition, EVENT_VERSION, Event, Subject};
use cutover_core::layout::{Layout, rotated};
use cutover_core::names::AppId;
use jiff::Timestamp;

use crate::events::last_byte;
use crate::files;

/// What was told last, of each app and matter.
pub(super) struct Told {
    path: PathBuf,
    last: BTreeMap<(AppId, Subject), Event>,
}

impl Told {
    /// From the file, and the one before it. What a newer build wrote, or is only half there, was not told by this one.
    pub(super) fn read(layout: &Layout) -> Self {
        let path = layout.events_beside_runs();
        let mut last = BTreeMap::new();
        for file in [rotated(&path, 1), path.clone()] {
            let text = fs::read(&file).unwrap_or_else(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(file = %file.display(), %error, "what was told cannot be read: it is told again");
                }
                Vec::new()
            });
            let events =
                text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
            last.extend(
                events
                    .filter(|event: &Event| event.version <= EVENT_VERSION)
                    .map(|event| ((event.app.clone(), event.about), event)),
            );
        }
        Self { path, last }
    }

    /// What was told last of this.
    pub(super) fn last(&self, app: &AppId, about: Subject) -> Option<&Event> {
        self.last.get(&(app.clone(), about))
    }

    /// What something was told of besides these apps.
    pub(super) fn not_of(&self, apps: &[AppId]) -> Vec<(AppId, Subject)> {
        self.last.keys().filter(|(app, _)| !apps.contains(app)).cloned().collect()
    }

    /// Tells it, where it is news.
    pub(super) fn tell(&mut self, app: &AppId, about: Subject, condition: Condition, now: Timestamp) {
        if !condition.is_news(self.last(app, about).map(|told| &told.condition)) {
            return;
        }
        let event = Event { version: EVENT_VERSION, at: now, app: app.clone(), about, condition };
        match append(&self.path, &event) {
            Ok(()) if event.condition.is_bad() => {
                tracing::warn!(%app, ?about, condition = ?event.condition, "somebody is needed");
            }
            Ok(()) => tracing::info!(%app, ?about, condition = ?event.condition, "it has changed"),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, ?event, "an event cannot be written: it is tried again");
                return;
            }
        }
        self.last.insert((app.clone(), about), event);
    }
}

/// Durably. A file that has grown too large is begun anew, the old one kept once.
fn append(path: &Path, event: &Event) -> io::Result<()> {
    files::ensure_folder(files::folder_of(path), 0o700).map_err(io::Error::other)?;
    if fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES) {
        fs::rename(path, rotated(path, 1))?;
    }
    let is_new = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    // Whoever was let in to read it still is.
    if is_new && rotated(path, 1).exists() {
        files::like(path, &rotated(path, 1)).map_err(io::Error::other)?;
    }
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    // A line that was broken off stays alone.
    if file.metadata()?.len() > 0 && last_byte(&mut file)? != b'\n' {
        line.insert(0, b'\n');
    }
    file.write_all(&line)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppId {
        "shop/production".parse().unwrap()
    }

    fn failed(why: &str) -> Condition {
        Condition::Failed { why: why.to_owned() }
    }

    fn lines(layout: &Layout) -> Vec<String> {
        let text = fs::read_to_string(layout.events_beside_runs()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_change_is_told_once_also_by_a_watch_that_begins_anew_after_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, now) = (Layout::under(folder.path()), Timestamp::UNIX_EPOCH);
        let good = Condition::Good { newest: now };
        let mut told = Told::read(&layout);
        told.tell(&app(), Subject::Backup, good.clone(), now);
        assert_eq!(lines(&layout), [""; 0], "that all is well is no news");
        for why in ["no room", "no room", "no network"] {
            told.tell(&app(), Subject::Backup, failed(why), now);
        }
        assert_eq!(lines(&layout).len(), 1);
        let mut file = OpenOptions::new().append(true).open(layout.events_beside_runs()).unwrap();
        file.write_all(br#"{"version":1,"at":"19"#).unwrap();

        let mut told = Told::read(&layout);
        told.tell(&app(), Subject::Backup, failed("no room"), now);
        assert_eq!(lines(&layout).len(), 2, "one, and half a one");
        told.tell(&app(), Subject::Drill, failed("no room"), now);
        told.tell(&app(), Subject::Backup, good, now);

        let lines = lines(&layout);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[2].contains(r#""drill","is":"failed""#), "{lines:?}");
        assert!(lines[3].contains(r#""backup","is":"good""#), "{lines:?}");
        assert_eq!(Told::read(&layout).not_of(&[]).len(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_told_at_the_next_look_and_a_file_that_is_full_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, now) = (Layout::under(folder.path()), Timestamp::UNIX_EPOCH);
        let path = layout.events_beside_runs();
        let mut told = Told::read(&layout);
        fs::create_dir_all(&path).unwrap();
        told.tell(&app(), Subject::Backup, failed("no room"), now);
        fs::remove_dir(&path).unwrap();
        told.tell(&app(), Subject::Backup, failed("no room"), now);
        assert_eq!(lines(&layout).len(), 1);

        let old = fs::read_to_string(&path).unwrap();
        fs::write(&path, old + &"\n".repeat(usize::try_from(LOG_BYTES).unwrap())).unwrap();
        told.tell(&app(), Subject::Drill, Condition::Absent, now);

        assert_eq!(lines(&layout).len(), 1);
        let told = Told::read(&layout);
        assert!(told.last(&app(), Subject::Backup).is_some() && told.last(&app(), Subject::Drill).is_some());
    }
}
