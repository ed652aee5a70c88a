//! Who listens on a port: for the message when it is taken. What cannot be seen (another user's process) stays unnamed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// `name (process number)` of a process that listens on the TCP port.
pub(crate) fn holder(port: u16) -> Option<String> {
    let sockets: Vec<String> = sockets(port).iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|pid| has_one_of(&Path::new("/proc").join(pid.to_string()).join("fd"), &sockets)).map(named)
}

/// Inodes of the sockets that listen on the TCP port.
pub(crate) fn sockets(port: u16) -> BTreeSet<String> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok());
    tables.flat_map(|table| listening(&table, port)).collect()
}

/// Those that this table shows.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTENING: &str = "0A";
    let local = format!(":{port:04X}");
    let found = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let fits = fields.get(1)?.ends_with(&local) && *fields.get(3)? == LISTENING;
        fits.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    });
    found.collect()
}

fn has_one_of(descriptors: &Path, sockets: &[String]) -> bool {
    let Ok(entries) = fs::read_dir(descriptors) else { return false };
    entries.flatten().any(|entry| {
        fs::read_link(entry.path())
            .is_ok_and(|to| to.to_str().is_some_and(|to| sockets.iter().any(|socket| socket == to)))
    })
}

fn named(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => format!("process {pid}"),
        name => format!("{name} (process {pid})"),
    }
}
