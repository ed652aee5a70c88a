//! A line of the instance's output, written since its newest start.

use cutover_core::gate::Finding;

use super::failed;
use crate::ports::{LogQuery, ProbeTarget, Runtime, Scope};

/// Passes when a line has the text in it.
pub(crate) async fn shows(runtime: &dyn Runtime, target: &ProbeTarget, text: &str) -> Result<(), Finding> {
    let query = LogQuery { scope: Scope::ThisStart, ..LogQuery::default() };
    let lines = runtime.logs(&target.app, &target.instance, &query).await.map_err(|error| failed(&error))?;
    if lines.iter().any(|line| line.text.contains(text)) { Ok(()) } else { Err(Finding::NotYet) }
}
