//! A small disk of a test's own, that can be filled to the last byte, and be made read-only.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Room for some releases of the example.
const SIZE: &str = "768m";
/// What a file takes room in.
const BLOCK: usize = 4096;

/// A disk in memory, mounted on a folder. Dropped, it is gone, whatever still has files of it open.
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts one on an empty folder.
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn mount(folder: &Path) -> std::result::Result<Self, String> {
        Self::mount_of(folder, SIZE)
    }

    /// The same with so much room, as `mount` reads it.
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn mount_of(folder: &Path, size: &str) -> std::result::Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a disk is mounted by root only".to_owned());
        }
        let folder = folder.to_owned();
        let options = format!("size={size},mode=0755");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder))
            .map_err(|error| error.to_string())?;
        Ok(Self { folder })
    }

    /// Takes all the room there is.
    ///
    /// # Errors
    /// What keeps it from that, but the full disk.
    pub fn fill(&self) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler())?;
        loop {
            // What others give up meanwhile is taken, too.
            let figures = statvfs(&self.folder)?;
            let (length, free) = (file.metadata()?.len(), figures.f_bavail * figures.f_frsize);
            if free > 0 && fallocate(&file, FallocateFlags::empty(), length, free).is_ok() {
                continue;
            }
            match file.write_all(&[1; BLOCK]).and_then(|()| file.flush()) {
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                other => other?,
            }
        }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.filler())
    }

    /// Nothing below can be written from now on but by who has it open.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn read_only(&self) -> Result<()> {
        run(Command::new("mount").arg("--bind").arg(&self.folder).arg(&self.folder))?;
        run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&self.folder))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// What `umount` said.
    pub fn writable(&self) -> Result<()> {
        run(Command::new("umount").arg("--lazy").arg(&self.folder))
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that fails may have left two of them.
        while is_mounted(&self.folder) {
            if let Err(error) = self.writable() {
                assert!(std::thread::panicking(), "left behind: {error}");
                return;
            }
        }
    }
}

fn is_mounted(folder: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|place| Path::new(place) == folder))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Takes what others keep for such a day: as if the disk had been full once before.
///
/// # Errors
/// When it cannot be taken.
pub fn take_ballast(layout: &cutover_core::layout::Layout) -> Result<()> {
    for file in [layout.ballast(), layout.proxy().join("ballast")] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
