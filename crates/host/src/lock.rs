//! Who works: kernel locks on files that are never unlinked (S7). A lock is held by an open file, so it goes with its process, however
//! that ends. What stands in the file is for people; only the lock itself proves anything.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::journal::LockHolder;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};

use crate::files::{self, FileError};

/// Between two tries of one who waits.
const AGAIN: Duration = Duration::from_millis(50);
/// Tries, [`BLINK`] apart, before a lock counts as held: one who only looks holds it for a moment.
const TRIES: u32 = 10;
/// See [`TRIES`].
const BLINK: Duration = Duration::from_millis(3);

/// Why a lock was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("{}", busy(holder.as_ref()))]
    Busy {
        /// Who, as far as the file says.
        holder: Option<LockHolder>,
    },
    /// Another process of this kind runs.
    #[error("another `{process}` of this installation runs{}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Running {
        /// Which kind.
        process: String,
        /// Its number, as far as the file says.
        pid: Option<u32>,
    },
    /// cutover itself is being upgraded, or runs hold the host.
    #[error("the host is locked by {by}")]
    Host {
        /// By what.
        by: &'static str,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

fn busy(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(
        || "another run holds the lock".to_owned(),
        |holder| {
            format!(
                "{} of {} by {} holds the lock since {}",
                holder.verb.as_str(),
                holder.app,
                holder.by,
                holder.since
            )
        },
    )
}

/// The right to change one app in one environment. Dropped, it is free.
#[derive(Debug)]
pub struct AppLock {
    file: File,
    path: PathBuf,
}

impl AppLock {
    /// Takes the lock, or tells who holds it.
    ///
    /// # Errors
    /// [`LockError::Busy`] when another holds it.
    pub fn take(layout: &Layout, app: &AppId, holder: &LockHolder) -> Result<Self, LockError> {
        let path = layout.lock(app);
        match claim(&path, Mode::Exclusive, TRIES)? {
            Some(file) => Ok(Self::held(file, path, holder)),
            None => Err(LockError::Busy { holder: read_holder(&path) }),
        }
    }

    /// Waits for the lock; `waits` is told who holds it, once for each holder.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub async fn wait(
        layout: &Layout,
        app: &AppId,
        holder: &LockHolder,
        mut waits: impl FnMut(&LockHolder),
    ) -> Result<Self, LockError> {
        let path = layout.lock(app);
        let mut told = None;
        loop {
            if let Some(file) = claim(&path, Mode::Exclusive, 1)? {
                return Ok(Self::held(file, path, holder));
            }
            let by = read_holder(&path);
            if let Some(by) = by.as_ref().filter(|by| told.as_ref() != Some(*by)) {
                waits(by);
                told = Some(by.clone());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Who holds the lock now. Nobody, when nothing is locked, even where an old name still stands in the file.
    pub fn peek(layout: &Layout, app: &AppId) -> Option<LockHolder> {
        let path = layout.lock(app);
        is_held(&path).then(|| read_holder(&path)).flatten()
    }

    /// Says for whom its holder works now: he settles the runs of others before his own.
    pub fn name(&mut self, holder: &LockHolder) {
        // The lock holds without the words: a disk that is full does not keep a recovery out.
        if let Err(error) = write_words(&mut self.file, &serde_json::to_vec(holder).unwrap_or_default()) {
            tracing::warn!(file = %self.path.display(), %error, "the lock is held, its file does not say by whom");
        }
    }

    fn held(file: File, path: PathBuf, holder: &LockHolder) -> Self {
        let mut lock = Self { file, path };
        lock.name(holder);
        lock
    }
}

/// The right to carry a run out. Of two processes of one id the second leaves without a word (S12).
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes it; `None`: another process carries the run out.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn take(layout: &Layout, run: RunId) -> Result<Option<Self>, FileError> {
        let file = claim(&layout.run_lock(run), Mode::Exclusive, TRIES)?;
        Ok(file.map(|file| Self { _file: file }))
    }

    /// Whether a process carries the run out.
    pub fn is_held(layout: &Layout, run: RunId) -> bool {
        is_held(&layout.run_lock(run))
    }
}

/// The host itself: shared by runs, held alone by an upgrade (S23).
#[derive(Debug)]
pub struct HostLock {
    _file: File,
}

impl HostLock {
    /// Beside other runs.
    ///
    /// # Errors
    /// When an upgrade holds it.
    pub fn shared(layout: &Layout) -> Result<Self, LockError> {
        Self::claim(layout, Mode::Shared, "an upgrade of cutover")
    }

    /// Alone.
    ///
    /// # Errors
    /// When a run or an upgrade holds it.
    pub fn exclusive(layout: &Layout) -> Result<Self, LockError> {
        Self::claim(layout, Mode::Exclusive, "runs that go on, or an upgrade")
    }

    fn claim(layout: &Layout, mode: Mode, by: &'static str) -> Result<Self, LockError> {
        let file = claim(&layout.host_lock(), mode, TRIES)?;
        file.map(|file| Self { _file: file }).ok_or(LockError::Host { by })
    }
}

/// The right to take away what nobody needs, and to say what one needs: held for moments.
#[derive(Debug)]
pub(crate) struct RetentionLock {
    _file: File,
}

impl RetentionLock {
    /// Waits for it. It blocks.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub(crate) fn take(layout: &Layout) -> Result<Self, FileError> {
        loop {
            if let Some(file) = claim(&layout.retention_lock(), Mode::Exclusive, TRIES)? {
                return Ok(Self { _file: file });
            }
        }
    }
}

/// The right to be the one `proxy`, `watch` or `up` of an installation.
#[derive(Debug)]
pub struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Takes it, or tells which process has it.
    ///
    /// # Errors
    /// [`LockError::Running`] when another has it.
    pub fn take(layout: &Layout, process: &str) -> Result<Self, LockError> {
        let path = layout.process_lock(process);
        let Some(mut file) = claim(&path, Mode::Exclusive, TRIES)? else {
            return Err(LockError::Running { process: process.to_owned(), pid: read_pid(&path) });
        };
        if let Err(error) = write_words(&mut file, std::process::id().to_string().as_bytes()) {
            tracing::warn!(file = %path.display(), %error, "the lock is held, its file does not say by whom");
        }
        Ok(Self { _file: file })
    }

    /// Whether a process has it now, whatever its file says of it.
    pub fn is_held(layout: &Layout, process: &str) -> bool {
        is_held(&layout.process_lock(process))
    }

    /// The process that has it now, by its number; `None`: there is none, or its number could not be written.
    pub fn peek(layout: &Layout, process: &str) -> Option<u32> {
        let path = layout.process_lock(process);
        is_held(&path).then(|| read_pid(&path)).flatten()
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Shared,
    Exclusive,
}

/// The locked file; none when another holds it after all tries. The standard library opens files so that no child inherits them.
fn claim(path: &Path, mode: Mode, tries: u32) -> Result<Option<File>, FileError> {
    let failed = |error: io::Error| FileError::new("lock", path, &error);
    files::ensure_folder(files::folder_of(path), 0o700)?;
    let mut left = tries;
    loop {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = open.map_err(failed)?;
        let locked = match mode {
            Mode::Shared => file.try_lock_shared(),
            Mode::Exclusive => file.try_lock(),
        };
        match locked {
            // Somebody may have removed the file between opening and locking it: then the lock locks nothing.
            Ok(()) if is_at(&file, path).map_err(failed)? => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                left -= 1;
                if left == 0 {
                    return Ok(None);
                }
                std::thread::sleep(BLINK);
            }
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

/// Whether anybody holds the lock alone. The look itself locks for a moment, shared.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The holder writes his name after he has locked: for a moment the file names nobody, or who held it before.
fn read_holder(path: &Path) -> Option<LockHolder> {
    let read = || serde_json::from_slice::<LockHolder>(&words(path)?).ok();
    let named = settle(|| read().filter(|holder| is_alive(holder.pid)));
    named.or_else(read)
}

fn read_pid(path: &Path) -> Option<u32> {
    settle(|| std::str::from_utf8(&words(path)?).ok()?.trim().parse().ok().filter(|pid| is_alive(*pid)))
}

fn settle<T>(read: impl Fn() -> Option<T>) -> Option<T> {
    (0..TRIES).find_map(|_| {
        let found = read();
        if found.is_none() {
            std::thread::sleep(BLINK);
        }
        found
    })
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn words(path: &Path) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(64 * 1024).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Over what stands there, then cut: on a full disk the room that the file has is enough. A loss of power takes the holder with it, so that
/// his name need not last.
fn write_words(file: &mut File, words: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(words)?;
    file.set_len(words.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::plan::Verb;

    fn app(name: &str) -> AppId {
        format!("{name}/local").parse().unwrap()
    }

    fn holder(app: &AppId, by: &str) -> LockHolder {
        LockHolder {
            app: app.clone(),
            run: RunId::new(uuid::Uuid::now_v7()),
            by: by.to_owned(),
            verb: Verb::Deploy,
            since: "2026-11-21T12:00:00Z".parse().unwrap(),
            pid: std::process::id(),
        }
    }

    fn root() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        (folder, layout)
    }

    #[test]
    fn a_second_taker_is_told_who_holds_it_and_gets_it_when_he_is_gone() {
        let (_folder, layout) = root();
        let (shop, first) = (app("shop"), holder(&app("shop"), "ann"));
        let lock = AppLock::take(&layout, &shop, &first).unwrap();

        let error = AppLock::take(&layout, &shop, &holder(&shop, "ben")).unwrap_err();

        assert!(matches!(&error, LockError::Busy { holder: Some(by) } if *by == first), "{error}");
        assert_eq!(
            error.to_string(),
            "deploy of shop/local by ann holds the lock since 2026-11-21T12:00:00Z"
        );
        AppLock::take(&layout, &app("other"), &holder(&app("other"), "ben")).unwrap();
        drop(lock);
        AppLock::take(&layout, &shop, &holder(&shop, "ben")).unwrap();
    }

    #[test]
    fn a_look_sees_the_holder_and_nobody_where_only_the_name_is_left() {
        let (_folder, layout) = root();
        let shop = app("shop");
        assert_eq!(AppLock::peek(&layout, &shop), None, "there is no file yet");
        let first = holder(&shop, "ann");
        let lock = AppLock::take(&layout, &shop, &first).unwrap();

        assert_eq!(AppLock::peek(&layout, &shop), Some(first));
        drop(lock);
        assert_eq!(AppLock::peek(&layout, &shop), None);
        assert!(!fs::read(layout.lock(&shop)).unwrap().is_empty());
    }

    #[test]
    fn whatever_stands_in_the_file_is_written_over() {
        let (_folder, layout) = root();
        let shop = app("shop");
        files::ensure_folder(&layout.locks(), 0o700).unwrap();
        fs::write(layout.lock(&shop), vec![b'x'; 9_000]).unwrap();
        let first = holder(&shop, "ann");

        let _lock = AppLock::take(&layout, &shop, &first).unwrap();

        assert_eq!(AppLock::peek(&layout, &shop), Some(first));
    }

    #[test]
    fn looking_on_does_not_keep_anybody_from_taking_it() {
        let (_folder, layout) = root();
        let shop = app("shop");
        drop(AppLock::take(&layout, &shop, &holder(&shop, "ann")).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);

        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    AppLock::peek(&layout, &shop);
                }
            });
            let taken: Vec<_> =
                (0..50).map(|_| AppLock::take(&layout, &shop, &holder(&shop, "ben")).is_ok()).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken.iter().all(|taken| *taken));
        });
    }

    #[tokio::test]
    async fn one_who_waits_is_told_the_holder_once_and_gets_the_lock() {
        let (_folder, layout) = root();
        let shop = app("shop");
        let first = holder(&shop, "ann");
        let lock = AppLock::take(&layout, &shop, &first).unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();

        let waiting = tokio::spawn({
            let (layout, shop) = (layout.clone(), shop.clone());
            async move {
                AppLock::wait(&layout, &shop, &holder(&shop, "ben"), |by| tell.send(by.clone()).unwrap())
                    .await
            }
        });
        let by = tokio::time::timeout(Duration::from_secs(5), told.recv()).await.unwrap().unwrap();
        drop(lock);
        let mine = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().unwrap();

        assert_eq!(by, first);
        assert!(told.try_recv().is_err());
        assert_eq!(AppLock::peek(&layout, &shop).unwrap().by, "ben");
        drop(mine);
    }

    #[test]
    fn runs_share_the_host_and_an_upgrade_does_not() {
        let (_folder, layout) = root();
        let (one, two) = (HostLock::shared(&layout).unwrap(), HostLock::shared(&layout).unwrap());
        assert!(matches!(HostLock::exclusive(&layout), Err(LockError::Host { .. })));
        drop((one, two));

        let _upgrade = HostLock::exclusive(&layout).unwrap();

        assert!(matches!(HostLock::shared(&layout), Err(LockError::Host { .. })));
    }

    #[test]
    fn there_is_one_process_of_a_kind() {
        let (_folder, layout) = root();
        assert_eq!(ProcessLock::peek(&layout, "watch"), None);
        let lock = ProcessLock::take(&layout, "watch").unwrap();

        let error = ProcessLock::take(&layout, "watch").unwrap_err();

        let expected = format!("another `watch` of this installation runs (process {})", std::process::id());
        assert_eq!(error.to_string(), expected);
        assert_eq!(ProcessLock::peek(&layout, "watch"), Some(std::process::id()));
        ProcessLock::take(&layout, "proxy").unwrap();
        drop(lock);
        ProcessLock::take(&layout, "watch").unwrap();
    }
}
