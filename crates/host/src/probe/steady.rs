//! Up, and not started again for so long.

use std::time::Duration;

use cutover_core::gate::Finding;
use cutover_core::state::InstanceState;
use jiff::Timestamp;

use super::{failed, other};
use crate::ports::{ProbeTarget, Runtime};

/// Passes when the instance has been up for `duration` without a break.
pub(crate) async fn is(
    runtime: &dyn Runtime,
    target: &ProbeTarget,
    duration: Duration,
) -> Result<(), Finding> {
    let found = runtime.inspect(&target.app, &target.instance).await.map_err(|error| failed(&error))?;
    match found.map(|found| found.state) {
        // Every start moves `since`, so that restarts need no counting.
        Some(InstanceState::Running { since, .. }) if age(since) >= duration => Ok(()),
        Some(InstanceState::Running { .. } | InstanceState::Created) => Err(Finding::NotYet),
        Some(InstanceState::Restarting { exit, .. } | InstanceState::Exited { exit }) => {
            Err(other(format!("it {exit}")))
        }
        None => Err(other("the instance is gone")),
    }
}

/// Zero where the clock was set back meanwhile.
fn age(since: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
}
