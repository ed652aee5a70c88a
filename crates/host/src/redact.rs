//! What instances write goes to people without the values of their env files (P6).

use cutover_core::env_file;
use cutover_core::gate::Finding;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, ReleaseId};
use cutover_core::secret::Secrets;

use crate::probe::facts::redacted;

/// Every value that instances of these releases can know.
pub(crate) fn values<'a>(
    layout: &Layout,
    app: &AppId,
    releases: impl IntoIterator<Item = &'a ReleaseId>,
) -> Vec<Secrets> {
    let own = releases.into_iter().map(|release| layout.release_env(app, release));
    // One that cannot be read has no values that anything was started with.
    let read = |path| env_file::parse(&std::fs::read_to_string(path).unwrap_or_default()).unwrap_or_default();
    std::iter::once(layout.env_file(app)).chain(own).map(read).collect()
}

/// `text` without any of the values.
pub(crate) fn redact(values: &[Secrets], text: &str) -> String {
    values.iter().fold(text.to_owned(), |text, values| values.redact(&text))
}

/// A finding without any of the values.
pub(crate) fn finding(values: &[Secrets], finding: Finding) -> Finding {
    values.iter().fold(finding, redacted)
}
