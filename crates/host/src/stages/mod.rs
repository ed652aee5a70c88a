//! The stages of a deploy, one file each, in their order. Each gives the proof the next one needs; a proof comes from an act or a fresh
//! look, never from the journal.

mod alone;
pub(crate) mod backing;
pub(crate) mod bake;
pub(crate) mod check;
mod confined;
pub(crate) mod drain;
pub(crate) mod environment;
pub(crate) mod handover;
pub(crate) mod located;
pub(crate) mod migrate;
mod once;
pub(crate) mod password;
pub(crate) mod preflight;
pub(crate) mod record;
pub(crate) mod room;
mod scratch;
mod scratch_memory;
pub(crate) mod snapshot;
pub(crate) mod start;
pub(crate) mod switch;
mod told;
pub(crate) mod verify;

pub use alone::MigrationLocks;
pub use environment::EnvChange;

use std::future::Future;
use std::sync::Arc;

use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, ReleaseId};
use cutover_core::plan::{Direction, HostPlan};
use cutover_core::secret::Secrets;
use futures_util::{StreamExt, stream};

use crate::journal::{Journal, StageError};
use crate::ports::Ports;
use crate::store::Store;

/// Instances that are acted on at the same time: an engine takes a fifth of a second to start one, and an app up to its grace to stop.
const AT_ONCE: usize = 8;

/// Does the same for several at once, each to its end. The first trouble, in their order, is that of all.
pub(super) async fn at_once<F>(acts: Vec<F>) -> Result<(), StageError>
where
    F: Future<Output = Result<(), StageError>>,
{
    let ended: Vec<_> = stream::iter(acts).buffered(AT_ONCE).collect().await;
    ended.into_iter().collect()
}

/// What every stage works with.
pub struct Act<'a> {
    /// The ways to act.
    pub ports: &'a Ports,
    /// Where it is written.
    pub journal: &'a Journal,
    /// Where things lie.
    pub layout: &'a Layout,
    /// Records of releases.
    pub store: &'a Arc<Store>,
    /// What keeps others from migrating the databases that are worked on.
    pub locks: &'a MigrationLocks,
    /// The plan that is carried out.
    pub plan: &'a HostPlan,
}

impl Act<'_> {
    /// Whose deploy it is.
    pub(crate) fn app(&self) -> &AppId {
        &self.plan.app
    }

    /// The env files of the app, as this run changes them.
    pub(crate) fn env_files(&self) -> environment::EnvFiles<'_> {
        environment::EnvFiles { layout: self.layout, app: self.app(), run: self.journal.run() }
    }

    /// Whether the way goes back.
    pub(crate) fn goes_back(&self) -> bool {
        self.plan.direction == Direction::Back
    }

    /// The values of a release's own env file.
    pub(crate) fn values(&self, release: &ReleaseId) -> Result<Secrets, StageError> {
        Ok(values(self.layout, self.app(), release)?)
    }
}

/// The values of a release's own env file.
pub(crate) fn values(layout: &Layout, app: &AppId, release: &ReleaseId) -> Result<Secrets, Failure> {
    let path = layout.release_env(app, release);
    let unreadable =
        || Failure::new(Exit::Failed, format!("the env file of release {release} cannot be read"));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        unreadable().because(format!("{}: {error}", path.display())).next("deploy again: it is written anew")
    })?;
    env_file::parse(&text).map_err(|errors| {
        let mut failure = unreadable();
        failure.cause = errors.iter().map(|error| format!("{}: {error}", path.display())).collect();
        failure
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use cutover_core::exit::Exit;

    use super::*;

    #[tokio::test]
    async fn given_several_acts_then_each_goes_on_while_the_others_do() {
        let all_have_begun = tokio::sync::Barrier::new(AT_ONCE);
        let acts = (0..AT_ONCE).map(|_| async {
            all_have_begun.wait().await;
            Ok(())
        });

        let ended = tokio::time::timeout(Duration::from_secs(10), at_once(acts.collect())).await;

        assert!(ended.unwrap().is_ok());
    }

    #[tokio::test]
    async fn given_acts_of_which_two_fail_then_all_come_to_their_end_and_the_first_is_told() {
        let ended = AtomicUsize::new(0);
        let acts = (0..20).map(|number| {
            let ended = &ended;
            async move {
                tokio::task::yield_now().await;
                ended.fetch_add(1, Ordering::Relaxed);
                let fails = number == 7 || number == 3;
                if fails { Err(Failure::new(Exit::Failed, format!("act {number}")).into()) } else { Ok(()) }
            }
        });

        let trouble = at_once(acts.collect()).await.unwrap_err();

        assert_eq!(trouble.failure().what, "act 3");
        assert_eq!(ended.load(Ordering::Relaxed), 20);
    }
}
