//! What lies ready goes into the repository.

use std::ffi::OsString;
use std::path::Path;

use cutover_core::wire::Extent;
use serde::Deserialize;

use super::gather::Gathered;
use super::restic::{Restic, ResticError, WORDS};

/// What restic says of a backup that it made.
#[derive(Debug, Deserialize)]
pub(super) struct Summary {
    pub(super) snapshot_id: String,
    pub(super) data_added: u64,
    pub(super) total_files_processed: u64,
    pub(super) total_bytes_processed: u64,
}

#[derive(Deserialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
enum Line {
    Status {
        #[serde(default)]
        bytes_done: u64,
        #[serde(default)]
        total_bytes: u64,
    },
    Summary(Summary),
}

/// Lets restic take what was gathered. What went away meanwhile, as files of a live volume do, is no error.
pub(super) async fn store(
    restic: &Restic,
    gathered: &Gathered,
    tags: &[String],
) -> Result<Summary, ResticError> {
    let mut words: Vec<OsString> = ["backup", "--json"].map(Into::into).into();
    for tag in tags {
        words.extend(["--tag".into(), tag.into()]);
    }
    for path in &gathered.exclude {
        let mut word = OsString::from("--exclude=");
        word.push(literal(path));
        words.push(word);
    }
    words.push("--".into());
    words.extend(gathered.paths.iter().map(|path| path.clone().into_os_string()));
    restic.waiting(async || once(restic, &words).await).await
}

async fn once(restic: &Restic, words: &[OsString]) -> Result<Summary, ResticError> {
    let mut found = None;
    let passing = restic.meter.begin("stored", Extent::Not);
    let ended = restic
        .run_hearing(words, |line| match serde_json::from_str::<Line>(line) {
            Ok(Line::Summary(summary)) => found = Some(summary),
            // It goes on looking for files while it stores the first ones.
            Ok(Line::Status { bytes_done, total_bytes }) => {
                passing.set(bytes_done, Extent::About { bytes: total_bytes });
            }
            Err(_) => {}
        })
        .await?;
    if ended.code != Some(0) && !(ended.code == Some(3) && only_gone(&ended.said)) {
        return Err(ended.error());
    }
    found.ok_or_else(|| ended.error())
}

/// The summary among the lines that restic wrote.
pub(super) fn summary(out: &str) -> Option<Summary> {
    out.lines().find_map(|line| match serde_json::from_str(line) {
        Ok(Line::Summary(summary)) => Some(summary),
        Ok(Line::Status { .. }) | Err(_) => None,
    })
}

/// A path as a pattern that means it alone.
fn literal(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if b"*?[\\".contains(byte) {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    OsString::from_vec(bytes)
}

/// Whether all that could not be read is gone.
fn only_gone(said: &str) -> bool {
    #[derive(Deserialize)]
    struct Trouble {
        item: String,
    }
    let troubles = said.lines().filter_map(|line| serde_json::from_str::<Trouble>(line).ok());
    // What was said beyond what is kept may have been worse.
    if said.len() as u64 >= WORDS {
        return false;
    }
    let mut all =
        troubles.map(|trouble| !Path::new(&trouble.item).exists() && !trouble.item.is_empty()).peekable();
    all.peek().is_some() && all.all(|gone| gone)
}
