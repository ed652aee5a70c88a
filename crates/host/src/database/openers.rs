//! Who has a file open, as the kernel tells it. Processes of other users stay unseen to an unprivileged one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Names and numbers of the processes that have the file open.
pub(super) fn openers(file: &Path) -> Vec<String> {
    let Ok(wanted) = fs::metadata(file) else { return Vec::new() };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let is_wanted = |link: &fs::DirEntry| {
        // What the descriptor leads to, not its name: the file may have been renamed since.
        fs::metadata(link.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    };
    let has_it_open = |process: &Path| {
        let links = fs::read_dir(process.join("fd"));
        links.is_ok_and(|mut links| links.any(|link| link.is_ok_and(|link| is_wanted(&link))))
    };
    processes
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|entry| has_it_open(&entry.path()))
        .map(|entry| named(&entry.path(), &entry.file_name().to_string_lossy()))
        .collect()
}

fn named(process: &Path, number: &str) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    format!("{} (process {number})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_names_its_process_and_a_closed_one_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let file = fs::File::create(&path).unwrap();
        let renamed = folder.path().join("moved.db");
        fs::rename(&path, &renamed).unwrap();

        let found = openers(&renamed);

        let us = format!("(process {})", std::process::id());
        assert!(found.iter().any(|process| process.ends_with(&us)), "{found:?}");
        drop(file);
        // A process that another test starts has a copy of every descriptor until it becomes its program.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !openers(&renamed).is_empty() {
            assert!(std::time::Instant::now() < end, "{:?}", openers(&renamed));
            std::thread::yield_now();
        }
        assert_eq!(openers(&path), Vec::<String>::new());
    }
}
