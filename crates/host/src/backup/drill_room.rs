//! Room for a database that comes back beside the live one for a trial, on the disk where its server keeps them: asked before, and watched while it
//! fills. A server whose disk is full takes the live database with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::backup::ServerItem;
use cutover_core::failure::Failure;
use cutover_core::plan::Reached;
use cutover_core::release::RuntimeKind;
use cutover_core::rules::size;

use super::gather::{failed, trouble};
use crate::files::{self, FileError};
use crate::host::Host;

/// So much of a server's log stays at most before it is written over, where nothing keeps it.
const LOG: u64 = 1 << 30;
/// What stays free whatever comes: more than a disk takes between two looks.
const RESERVE: u64 = 512 << 20;
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(200);

/// How a drill is called, and begun.
pub(super) const DRILL: (&str, &str) = ("the drill", "cutover backup drill");

/// Where a database's server keeps its data, as far as that is on this host. Of a server by its URL it is not known.
pub(super) async fn data_of(host: &Host, item: &ServerItem) -> Option<PathBuf> {
    let Reached::Backing { runtime, .. } = &item.place.reached else { return None };
    let state = || host.layout.state().to_owned();
    match runtime {
        RuntimeKind::Container => {
            let engine = host.ports.runtime(*runtime).ok()?;
            Some(engine.data_folder().await.unwrap_or_else(state))
        }
        RuntimeKind::Process => Some(state()),
    }
}

/// What a database takes that is made of a dump of so many bytes, where the live one has so many; all of it goes through the server's log.
pub(crate) fn needed(live: u64, dump: u64) -> u64 {
    let bytes = live.max(dump);
    bytes.saturating_add(bytes.min(LOG)).saturating_add(RESERVE)
}

/// There is room for it.
pub(super) fn refuse_without(folder: &Path, live: u64, dump: u64) -> Result<(), Failure> {
    let free = files::free(folder).map_err(|error| trouble(&error))?;
    let needed = needed(live, dump);
    if free >= needed {
        return Ok(());
    }
    Err(failed("there is no room for the drill")
        .because(format!(
            "{} free at {}, where the database comes back beside the live one, {} needed",
            size(free),
            folder.display(),
            size(needed)
        ))
        .next("make room on that disk (`cutover prune`, `docker image prune`), then `cutover backup drill`"))
}

/// Ends when there is hardly any room left; never, where the disk is not seen from here. `free` tells how much there is, and the words what is broken
/// off and how it is begun again.
pub(crate) async fn filled_up(
    folder: Option<&Path>,
    free: impl Fn(&Path) -> Result<u64, FileError>,
    (what, again): (&str, &str),
) -> Failure {
    let Some(folder) = folder else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK).await;
        let left = match free(folder) {
            Ok(left) if left >= RESERVE => continue,
            Ok(left) => size(left),
            Err(error) => return trouble(&error),
        };
        return failed(&format!("{what} was broken off: the disk of the live database fills up"))
            .because(format!("{left} free at {}", folder.display()))
            .next(format!("make room on that disk, then `{again}`"));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn room_is_wanted_for_the_larger_of_the_live_one_and_the_dump_and_for_the_log() {
        assert_eq!(needed(20 * GIB, 3 * GIB), 21 * GIB + RESERVE);
        assert_eq!(needed(GIB / 2, 30 * GIB), 31 * GIB + RESERVE);
        assert_eq!(needed(10, 20), 40 + RESERVE);
        let here = tempfile::tempdir().unwrap();
        let refused = refuse_without(here.path(), 0, u64::MAX / 2).unwrap_err();
        assert!(refused.cause[0].contains(&here.path().display().to_string()), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_disk_is_looked_at_while_it_fills() {
        let left = Cell::new(GIB);
        let free = |_: &Path| {
            left.set(left.get() - (128 << 20));
            Ok(left.get())
        };

        let failure = filled_up(Some(Path::new("/data")), free, DRILL).await;

        assert!(left.get() < RESERVE && left.get() > 0);
        assert!(failure.cause[0].contains("/data"), "{failure:?}");
        let unseen = tokio::time::timeout(Duration::from_hours(1), filled_up(None, |_| Ok(0), DRILL)).await;
        assert!(unseen.is_err());
    }
}
