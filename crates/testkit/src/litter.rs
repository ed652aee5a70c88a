//! What crashes and clients that went away leave on a host, laid where they would have left it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cutover_core::hash::ContentHash;
use cutover_core::layout::{Layout, in_snapshots};
use cutover_core::names::AppId;
use cutover_core::retention::{Kind, Leftover};

/// Longer than anybody is waited for.
const LONG_AGO: Duration = Duration::from_hours(30);
/// Two more than are kept of a database.
const SNAPSHOTS: u32 = cutover_core::defaults::SNAPSHOTS + 2;

/// All of it, and what lies beside it and is somebody's.
#[derive(Debug, Clone, Default)]
pub struct Litter {
    gone: Vec<(Leftover, PathBuf)>,
    stays: Vec<PathBuf>,
}

impl Litter {
    /// One of each kind, for an app.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn lay(layout: &Layout, app: &AppId) -> io::Result<Self> {
        let mut litter = Self::default();
        let artifact = ContentHash::of(b"an artifact that no release has");
        let of_artifact = layout.artifact(&artifact);
        put(&of_artifact.join("web/server"), 300_000)?;
        litter.goes(Kind::Artifact, artifact.as_str(), of_artifact);
        let release = layout.release(app, &"0123456".parse().map_err(io::Error::other)?);
        put(&release.join("env"), 10)?;
        litter.goes(Kind::Release, "0123456", release);
        for number in 10..10 + SNAPSHOTS {
            let name = format!("main_20261126T0405{number}000Z_7f3c9e1.sqlite");
            let file = layout.snapshots(app).join(&name);
            put(&file, 1_000)?;
            if number < 12 {
                litter.goes(Kind::Snapshot, &in_snapshots(app, &name), file);
            } else {
                litter.stays.push(file);
            }
        }
        let run = "018f3c9e-0000-7000-8000-000000000001";
        let events = layout.events(run.parse().map_err(io::Error::other)?);
        put(&events, 1_000)?;
        long_ago(&events)?;
        litter.goes(Kind::Run, run, events);
        let instance = "web-blue-1-gone";
        let log = layout.instance_log(app, &instance.parse().map_err(io::Error::other)?);
        put(&log, 1_000)?;
        litter.goes(Kind::Log, instance, log);
        litter.lay_staged(layout, app)?;
        litter.stays.push(layout.snapshots(app).join("notes of mine.txt"));
        litter.stays.push(layout.artifacts().join(".writing.0123"));
        litter.stays.push(layout.contexts().join("another.local.web"));
        litter.stays.iter().filter(|path| !path.exists()).try_for_each(|path| put(path, 1_000))?;
        Ok(litter)
    }

    fn lay_staged(&mut self, layout: &Layout, app: &AppId) -> io::Result<()> {
        let hash = ContentHash::of(b"of an artifact that is gone");
        let staged = [
            ("layers", layout.layers(), hash.as_str().to_owned()),
            ("parcels", layout.parcels(), ".pack.0123".to_owned()),
            ("parcels", layout.parcels(), format!("{}.list", hash.as_str())),
            ("contexts", layout.contexts(), ".torn.0123".to_owned()),
            // Of a service that no release has.
            ("contexts", layout.contexts(), format!("{}.{}.gone", app.app, app.environment)),
            ("contexts", layout.contexts(), format!("{}.{}.gone.list", app.app, app.environment)),
            ("artifacts", layout.artifacts(), ".torn.0123".to_owned()),
        ];
        for (area, folder, name) in staged {
            let path = folder.join(&name);
            put(&path, 2_000)?;
            if name.starts_with(".torn") {
                long_ago(&path)?;
            }
            self.goes(Kind::Staged, &format!("{area}/{name}"), path);
        }
        Ok(())
    }

    fn goes(&mut self, kind: Kind, name: &str, path: PathBuf) {
        self.gone.push((Leftover { kind, name: name.to_owned(), bytes: 1 }, path));
    }

    /// As a look finds it.
    pub fn leftovers(&self) -> Vec<Leftover> {
        let mut all: Vec<_> = self.gone.iter().map(|(leftover, _)| leftover.clone()).collect();
        all.sort_by_key(|one| one.kind);
        all
    }

    /// What of it is still there.
    pub fn left(&self) -> Vec<&Path> {
        self.gone.iter().map(|(_, path)| path.as_path()).filter(|path| path.exists()).collect()
    }

    /// What went that is somebody's.
    pub fn missing(&self) -> Vec<&Path> {
        self.stays.iter().map(PathBuf::as_path).filter(|path| !path.exists()).collect()
    }
}

fn put(path: &Path, bytes: usize) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, vec![7; bytes])
}

fn long_ago(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now() - LONG_AGO)
}
