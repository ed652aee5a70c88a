//! Which kind of file system a path lies on. Kernel locks and shared memory are not to be trusted over a network (S7), so a root there
//! is refused before anything is written.

use std::path::{Path, PathBuf};

/// Kinds whose files lie on another machine, as the kernel's table of mounts names them. FUSE has one name a program.
const NETWORK: [&str; 18] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "coda",
    "afs",
    "ceph",
    "9p",
    "glusterfs",
    "lustre",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.rclone",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.davfs",
];

/// The kind of network file system that a path lies on; none where it lies on this machine's own disks.
///
/// A path that is not there yet lies where the nearest folder above it lies.
pub fn network_file_system(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let there = path.ancestors().find_map(|path| path.canonicalize().ok())?;
    let kind = kind_at(&mounts, &there)?;
    NETWORK.contains(&kind.as_str()).then_some(kind)
}

/// The kind mounted at or nearest above a path: the longest mount point wins, and of two alike the later one, which covers the other.
fn kind_at(mounts: &str, path: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(mount)
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, kind)| kind)
}

/// A line of `mountinfo`: its fifth word is the mount point, the first after ` - ` the kind.
fn mount(line: &str) -> Option<(PathBuf, String)> {
    let (place, kind) = line.split_once(" - ")?;
    let point = place.split(' ').nth(4)?;
    Some((unescape(point).into(), kind.split(' ').next()?.to_owned()))
}

/// Space, tab, line end and backslash stand in `mountinfo` as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
30 22 0:40 / /home rw,relatime shared:12 - nfs4 server:/home rw,vers=4.2
31 22 0:41 / /mnt/my\\040files rw - fuse.sshfs me@host: rw,user_id=0
32 30 254:2 / /home/local rw - xfs /dev/vdb rw
33 22 0:50 / /srv rw - nfs server:/srv rw
34 22 254:3 / /srv rw - btrfs /dev/vdc rw
";

    fn kind(path: &str) -> String {
        kind_at(MOUNTS, Path::new(path)).unwrap()
    }

    #[test]
    fn the_nearest_mount_says_what_a_path_lies_on() {
        assert_eq!(kind("/var/lib/cutover"), "ext4");
        assert_eq!(kind("/home/me/cutover"), "nfs4");
        assert_eq!(kind("/home/local/cutover"), "xfs");
        assert_eq!(kind("/mnt/my files/x"), "fuse.sshfs");
        assert_eq!(kind("/homes"), "ext4", "whole names only");
        assert_eq!(kind("/srv/x"), "btrfs", "the later mount covers the earlier one");
    }

    #[test]
    fn a_temporary_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();

        assert_eq!(network_file_system(&folder.path().join("not/there/yet")), None);
    }
}
