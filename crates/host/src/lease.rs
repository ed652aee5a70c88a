//! What was brought for a run is not taken away before that run ends (S26). A lease is a file that its session holds locked; from when the run
//! is known until its verdict, the run itself stands for it. Retention reads all leases that hold, under a lock that nobody takes one beside.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};

use cutover_core::hash::ContentHash;
use cutover_core::layout::Layout;
use cutover_core::names::RunId;
use cutover_core::release::BuiltImage;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::lock::RetentionLock;

/// What a run needs of what lies on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leased {
    /// Names and ids of images.
    pub(crate) images: BTreeSet<String>,
    /// Artifacts.
    pub(crate) artifacts: BTreeSet<ContentHash>,
}

impl Leased {
    /// Whether somebody needs an image.
    pub(crate) fn has_image(&self, image: &BuiltImage) -> bool {
        self.images.contains(&image.id) || self.images.contains(&image.name)
    }
}

/// A lease that holds. Dropped before its run is known, it ends.
#[derive(Debug)]
pub(crate) struct Lease {
    _file: File,
}

impl Lease {
    /// Takes one for a run, in place of an earlier one of it. Whoever looks after that finds what will stay.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn take(layout: &Layout, run: RunId, leased: &Leased) -> Result<Self, FileError> {
        let _alone = RetentionLock::take(layout)?;
        let path = layout.lease(run);
        files::ensure_folder(&layout.leases(), 0o700)?;
        let next = files::beside(&path);
        let write = || -> io::Result<File> {
            let mut file = files::private(&next)?;
            file.lock()?;
            file.write_all(&serde_json::to_vec(leased)?)?;
            fs::rename(&next, &path)?;
            Ok(file)
        };
        match write() {
            Ok(file) => Ok(Self { _file: file }),
            Err(error) => {
                files::discard(&next);
                Err(FileError::new("write the lease", &path, &error))
            }
        }
    }

    /// All that is leased, by sessions that go on and by runs that have not ended: `unfinished`; but for what the run `own` has brought, whose session
    /// may still follow it. Leases that hold no more go.
    ///
    /// # Errors
    /// When one cannot be read: then it is not known what is needed.
    pub(crate) fn all(
        _: &RetentionLock,
        layout: &Layout,
        unfinished: &BTreeSet<RunId>,
        own: Option<RunId>,
    ) -> Result<Leased, FileError> {
        let folder = layout.leases();
        let unreadable = |error: io::Error| FileError::new("read the leases in", &folder, &error);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Leased::default()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut all = Leased::default();
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let path = entry.path();
            let run = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if run.is_some() && run == own {
                continue;
            }
            let held = File::open(&path).is_ok_and(|file| file.try_lock_shared().is_err());
            if !held && run.is_none_or(|run| !unfinished.contains(&run)) {
                files::discard(&path);
                continue;
            }
            let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Leased>(&bytes)?));
            let leased = read.map_err(|error| FileError::new("read the lease", &path, &error))?;
            all.images.extend(leased.images);
            all.artifacts.extend(leased.artifacts);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u8) -> RunId {
        format!("018f3c9e-0000-7000-8000-0000000000{number:02}").parse().unwrap()
    }

    fn leased(image: &str) -> Leased {
        Leased { images: BTreeSet::from([image.to_owned()]), artifacts: BTreeSet::new() }
    }

    fn all(layout: &Layout, unfinished: &[RunId]) -> Vec<String> {
        let alone = RetentionLock::take(layout).unwrap();
        let unfinished = unfinished.iter().copied().collect();
        Lease::all(&alone, layout, &unfinished, None).unwrap().images.into_iter().collect()
    }

    #[test]
    fn a_lease_holds_while_its_session_or_its_run_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        assert!(all(&layout, &[]).is_empty());

        let (one, two) = (
            Lease::take(&layout, run(1), &leased("one")).unwrap(),
            Lease::take(&layout, run(2), &leased("two")).unwrap(),
        );
        assert_eq!(all(&layout, &[]), ["one", "two"]);
        let alone = RetentionLock::take(&layout).unwrap();
        let others = Lease::all(&alone, &layout, &BTreeSet::new(), Some(run(1))).unwrap();
        assert_eq!(others, leased("two"), "what the run itself has brought is its own to take away");
        drop(alone);

        drop(one);
        drop(two);
        assert_eq!(all(&layout, &[run(1)]), ["one"], "its run has begun");
        assert!(all(&layout, &[]).is_empty(), "its run has ended");
        assert_eq!(fs::read_dir(layout.leases()).unwrap().count(), 0, "nothing is left of it");
    }

    #[test]
    fn a_lease_that_is_taken_anew_says_the_new_things() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let first = Lease::take(&layout, run(1), &leased("one")).unwrap();
        let second = Lease::take(&layout, run(1), &leased("other")).unwrap();
        drop(first);
        assert_eq!(all(&layout, &[]), ["other"]);
        drop(second);
    }
}
