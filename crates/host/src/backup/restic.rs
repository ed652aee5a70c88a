//! The program `restic`, as a child: the only way to a repository. Its password and credentials go into the child's environment, and nowhere else.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cutover_core::backup::{BackupSettings, Target};
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::VariableName;
use cutover_core::secret::{Secret, Secrets};
use cutover_core::template::Template;
use cutover_core::wire::Extent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::Instant;

use super::locks::{LET_GO, Own};
use super::prose::{Trouble, last_words, trouble};
use crate::images::Values;
use crate::meter::{self, Meter};

/// The program's name, looked for as a shell would.
const PROGRAM: &str = "restic";
/// Starts a program that ends with the thread that started it.
const SETPRIV: &str = "/usr/bin/setpriv";
/// Whoever started it may have ended before that held: it is begun only where its parent still is who it was.
const STILL_WITH_US: &str = r#"[ "$PPID" = "$0" ] || exit 1; exec "$@""#;
/// For a repository to say that it is there: restic itself goes on trying for a quarter of an hour.
const ANSWER: Duration = Duration::from_mins(2);
/// What is kept of its words, in bytes.
pub(super) const WORDS: u64 = 64 * 1024;

/// One repository.
pub(super) struct Restic {
    to: Target,
    environment: Vec<(&'static str, Secret)>,
    values: Secrets,
    cache: PathBuf,
    /// For files that it makes while it works.
    temporary: PathBuf,
    /// Those of its processes that may hold a lock.
    pub(super) own: Own,
    /// What counts the bytes that go in and out.
    pub(super) meter: Meter,
}

/// What of a program's bytes is counted, where it does not say by itself how far it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// What becomes of them: `read`.
    pub(super) what: &'static str,
    /// By whom.
    pub(super) by: Kernel,
    /// Of how many.
    pub(super) of: Extent,
}

/// A count of the kernel's, of all that a process has done since it began.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kernel {
    /// What it has read, from files and connections.
    Read,
    /// What it has written, to files and connections.
    Written,
}

impl Kernel {
    /// The count of a process; `None`: it is over, or not ours to look at.
    fn count(self, pid: u32) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        let word = match self {
            Self::Read => "rchar: ",
            Self::Written => "wchar: ",
        };
        text.lines().find_map(|line| line.strip_prefix(word)?.parse().ok())
    }
}

/// Why it could not be done.
#[derive(Debug, Clone)]
pub(super) struct ResticError {
    pub(super) trouble: Trouble,
    pub(super) words: String,
}

/// A backup in the repository, as restic lists it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) time: jiff::Timestamp,
    pub(super) paths: Vec<PathBuf>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    pub(super) original: Option<String>,
}

impl Restic {
    /// A repository by its settings; `values` fill their references.
    pub(super) fn new(
        settings: &BackupSettings,
        values: &Secrets,
        layout: &Layout,
        temporary: PathBuf,
        meter: Meter,
    ) -> Result<Self, Failure> {
        let mut environment = vec![("RESTIC_PASSWORD", fill(&settings.password, values)?)];
        if let Some(access) = &settings.access {
            environment.push(("AWS_ACCESS_KEY_ID", fill(&access.key, values)?));
            environment.push(("AWS_SECRET_ACCESS_KEY", fill(&access.secret, values)?));
        }
        // What was filled is kept from everybody's eyes, wherever it came from.
        let mut all = values.clone();
        for (name, value) in &environment {
            if let Ok(name) = name.parse() {
                all.insert(name, value.clone());
            }
        }
        let (to, cache) = (settings.to.clone(), layout.backup_cache());
        let own = Own::of(layout, &to);
        Ok(Self { to, environment, values: all, cache, temporary, own, meter })
    }

    pub(super) fn without_secrets(&self, error: &ResticError) -> ResticError {
        ResticError { trouble: error.trouble, words: self.values.redact(&error.words) }
    }

    pub(super) fn target(&self) -> &Target {
        &self.to
    }

    /// The program with what it needs, and nothing else of our own environment.
    pub(super) fn command(&self) -> std::process::Command {
        let mut command = with_us();
        command.env_clear();
        for name in ["PATH", "HOME", "SSH_AUTH_SOCK", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in &self.environment {
            command.env(name, value.expose());
        }
        command
            .env("RESTIC_REPOSITORY", self.to.as_str())
            .env("RESTIC_CACHE_DIR", &self.cache)
            .env("RESTIC_PROGRESS_FPS", "1")
            .env("TMPDIR", &self.temporary)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end; gives what it wrote. `line` hears each line as it comes.
    pub(super) async fn run_hearing<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        line: impl FnMut(&str),
    ) -> Result<Ended, ResticError> {
        self.run_looking(words, line, async |_| std::future::pending().await).await
    }

    /// The same; `look` goes on beside it, with its number.
    async fn run_looking<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        mut line: impl FnMut(&str),
        look: impl AsyncFnOnce(Option<u32>) -> Infallible,
    ) -> Result<Ended, ResticError> {
        let mut command = tokio::process::Command::from(self.command());
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| not_started(&error))?;
        let pid = child.id();
        if let Some(pid) = pid {
            self.own.begins(pid);
        }
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(not_started(&io::ErrorKind::BrokenPipe.into()));
        };
        let heard = async {
            let mut lines = BufReader::new(out).lines();
            while let Some(text) = lines.next_line().await? {
                line(&text);
            }
            Ok::<_, io::Error>(())
        };
        let mut said = Vec::new();
        let complained = async {
            let mut err = err;
            (&mut err).take(WORDS).read_to_end(&mut said).await?;
            // What is beyond that is read, too: else it would wait for us.
            tokio::io::copy(&mut err, &mut tokio::io::sink()).await
        };
        let (heard, complained) = tokio::select! {
            both = async { tokio::join!(heard, complained) } => both,
            never = look(pid) => match never {},
        };
        let status = child.wait().await;
        let said = self.values.redact(&String::from_utf8_lossy(&said));
        heard.and(complained.map(drop)).map_err(|error| not_started(&error))?;
        let status = status.map_err(|error| not_started(&error))?;
        let ended = Ended { code: status.code(), said };
        if let Some(pid) = pid
            && ended.has_let_go()
        {
            self.own.ended(pid);
        }
        Ok(ended)
    }

    /// The same; an exit code other than 0 is an error. Gives all that it wrote.
    pub(super) async fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<String, ResticError> {
        let mut text = String::new();
        let ended = self
            .run_hearing(words, |line| {
                text.push_str(line);
                text.push('\n');
            })
            .await?;
        ended.good().map(|()| text)
    }

    /// The same, of what takes long; what it says is not wanted.
    pub(super) async fn run_counted<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        counted: Counted,
    ) -> Result<(), ResticError> {
        let Counted { what, by, of } = counted;
        let passing = self.meter.begin(what, of);
        let count = async |pid: Option<u32>| {
            let mut looks = meter::looks();
            loop {
                looks.tick().await;
                if let Some(bytes) = pid.and_then(|pid| by.count(pid)) {
                    passing.set(bytes, of);
                }
            }
        };
        self.run_looking(words, |_| (), count).await?.good()
    }

    /// The same, for what others keep from the repository, or what keeps them from it: they are waited for.
    pub(super) async fn run_alone<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<String, ResticError> {
        self.waiting(async || self.run(words).await).await
    }

    /// Does what others may keep from the repository: they are waited for, however long a backup of theirs takes.
    pub(super) async fn waiting<T>(
        &self,
        act: impl AsyncFn() -> Result<T, ResticError>,
    ) -> Result<T, ResticError> {
        let end = Instant::now() + LET_GO;
        loop {
            match act().await {
                // Another host may be quicker once more.
                Err(error) if error.trouble == Trouble::Locked && Instant::now() < end => {
                    self.alone().await?;
                }
                outcome => return outcome,
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, ResticError> {
        let text = self.run(words).await?;
        serde_json::from_str(&text).map_err(|error| ResticError {
            trouble: Trouble::Other,
            words: format!("its answer is not understood: {error}"),
        })
    }

    /// Whether there is a repository that the password opens.
    pub(super) async fn is_there(&self) -> Result<bool, ResticError> {
        let asked = tokio::time::timeout(ANSWER, self.run(&["cat", "--no-lock", "config"])).await;
        match asked {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if error.trouble == Trouble::NoRepository => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ResticError {
                trouble: Trouble::Unreachable,
                words: format!("no answer within {} s", ANSWER.as_secs()),
            }),
        }
    }

    pub(super) async fn init(&self) -> Result<(), ResticError> {
        self.run(&["init"]).await.map(drop)
    }

    /// What the files of a backup take once they are out of it.
    pub(super) async fn size(&self, id: &str) -> Result<u64, ResticError> {
        #[derive(Deserialize)]
        struct Stats {
            total_size: u64,
        }
        let stats: Stats = self.json(&["stats", "--no-lock", "--json", "--mode", "restore-size", id]).await?;
        Ok(stats.total_size)
    }

    /// Those of one app, the newest first.
    pub(super) async fn list(&self, tag: &str) -> Result<Vec<Listed>, ResticError> {
        let mut all: Vec<Listed> = self.json(&["snapshots", "--no-lock", "--json", "--tag", tag]).await?;
        newest_first(&mut all, jiff::Timestamp::now());
        Ok(all)
    }
}

/// One that a clock of the future made is not the newest for good: it comes after all others.
fn newest_first(all: &mut [Listed], now: jiff::Timestamp) {
    all.sort_by_key(|listed| (listed.time > now, std::cmp::Reverse(listed.time)));
}

/// The program, ended by the kernel when we are: one that goes on by itself would hold its lock of the repository. Whoever waits for it is the
/// thread that starts it.
fn with_us() -> std::process::Command {
    if !Path::new(SETPRIV).is_file() {
        return std::process::Command::new(PROGRAM);
    }
    let mut command = std::process::Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL", "--", "/bin/sh", "-c", STILL_WITH_US]);
    command.arg(std::process::id().to_string()).arg(PROGRAM);
    command
}

/// How the program ended.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    /// On the error stream, without secrets.
    pub(super) said: String,
}

impl Ended {
    /// Whether it has left no lock in the repository: one that was killed has, and one that lost the connection may have.
    pub(super) fn has_let_go(&self) -> bool {
        self.code == Some(0) || self.error().trouble == Trouble::Locked
    }

    pub(super) fn good(self) -> Result<(), ResticError> {
        if self.code == Some(0) { Ok(()) } else { Err(self.error()) }
    }

    pub(super) fn error(&self) -> ResticError {
        // By a shell.
        if self.code == Some(127) {
            return not_started(&io::ErrorKind::NotFound.into());
        }
        ResticError { trouble: trouble(self.code, &self.said), words: last_words(&self.said) }
    }
}

fn not_started(error: &io::Error) -> ResticError {
    let absent = error.kind() == io::ErrorKind::NotFound;
    ResticError {
        trouble: if absent { Trouble::NoProgram } else { Trouble::Other },
        words: format!("{PROGRAM}: {error}"),
    }
}

/// A secret by its reference.
fn fill(template: &Template, values: &Secrets) -> Result<Secret, Failure> {
    let filled = template.resolve(&Values(values)).map_err(|open| {
        let names: Vec<&str> = template.variables().into_iter().map(VariableName::as_str).collect();
        Failure::new(Exit::Refused, "the repository of the backups cannot be opened")
            .because(open.to_string())
            .next(format!(
                "`cutover env set {} --no-deploy` asks for it and keeps it on the host; keep it elsewhere, too",
                names.join(" ")
            ))
    })?;
    if filled.is_empty() {
        return Err(Failure::new(Exit::Refused, "the repository of the backups cannot be opened")
            .because(format!("{template} is empty"))
            .next("give it a value"));
    }
    Ok(Secret::new(filled))
}

impl ResticError {
    pub(super) fn other(words: String) -> Self {
        Self { trouble: Trouble::Other, words }
    }

    /// The four answers.
    pub(super) fn failure(&self, what: &str, to: &Target) -> Failure {
        let to = to.as_str();
        let failure = Failure::new(Exit::Failed, what).while_serving("what was serving goes on");
        let failure = match self.trouble {
            Trouble::NoProgram => failure
                .because("restic, which reads and writes the repository, is not installed on the host")
                .next("`cutover setup` installs it; by hand: `apt-get install restic`"),
            Trouble::NoRepository => failure
                .because(format!("there is no repository at {to}"))
                .next("see that its disk is mounted, and that `to` is right; the first `cutover backup run` makes one"),
            Trouble::WrongPassword => failure
                .because(format!("the password does not open the repository at {to}"))
                .next("give the host the password that the repository was made with (`cutover env set`)")
                .next("or let another repository begin: name another place in `backup.to`"),
            Trouble::Locked => failure
                .because(format!("another process works in the repository at {to}: {}", self.words))
                .next("wait for its end, then try again")
                .next(format!(
                    "a lock that a process on another machine has left counts for nothing after 30 minutes; at once, where none works there any more: `restic -r {to} unlock --remove-all`"
                )),
            Trouble::Unreachable => failure
                .because(format!("{to} cannot be reached: {}", self.words))
                .next("see that it is up and lets this host in, then `cutover backup run`"),
            Trouble::NotLetIn => failure
                .because(format!("{to} does not let this host in: {}", self.words))
                .next("see the variables that `key` and `secret` of `backup` name (`cutover env list`), then `cutover backup run`"),
            Trouble::ReadOnly => failure
                .because(format!("nothing can be written to {to}: {}", self.words))
                .next("see whose it is and how it is mounted, then `cutover backup run`"),
            Trouble::Full => failure
                .because(format!("there is no room left at {to} or on this host: {}", self.words))
                .next("make room there (`cutover backup prune` takes away those beyond `keep`), then `cutover backup run`"),
            Trouble::Damaged => failure
                .because(format!("what lies at {to} is not what was written: {}", self.words))
                .next("see that its disk is well; `cutover backup verify` tells what is good")
                .next("keep what is there, and let another repository begin: name another place in `backup.to`"),
            Trouble::Other => failure.because(format!("restic: {}", self.words)),
        };
        if failure.next.is_empty() {
            failure.next("`cutover backup verify` tells what is good")
        } else {
            failure
        }
    }
}

/// The mark of an app's backups in a repository.
pub(super) fn tag(app: &cutover_core::names::AppId) -> String {
    format!("{}/{}", app.app, app.environment)
}

/// The mark of the dumps that belong to an app's backups.
pub(super) fn dumps_tag(app: &cutover_core::names::AppId) -> String {
    format!("{}/{}/dump", app.app, app.environment)
}

/// What a backup and its dumps are told by, one for each time.
pub(super) fn new_mark() -> String {
    format!("{MADE}{}", uuid::Uuid::now_v7().simple())
}

/// Whether it is one.
pub(super) fn is_mark(tag: &str) -> bool {
    tag.starts_with(MADE)
}

const MADE: &str = "made-";

/// The mark of those that were read back and are good.
pub(super) const VERIFIED: &str = "verified";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_the_future_is_the_newest_only_where_there_is_no_other() {
        let listed = |time: &str| -> Listed {
            serde_json::from_value(serde_json::json!({ "id": time, "time": time, "paths": [] })).unwrap()
        };
        let mut all = ["2026-11-25T03:00:00Z", "2035-01-01T03:00:00Z", "2026-11-26T03:00:00Z"].map(listed);

        newest_first(&mut all, "2026-11-26T14:00:00Z".parse().unwrap());

        let times: Vec<&str> = all.iter().map(|listed| listed.id.as_str()).collect();
        assert_eq!(times, ["2026-11-26T03:00:00Z", "2026-11-25T03:00:00Z", "2035-01-01T03:00:00Z"]);
    }
}
