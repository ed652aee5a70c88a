//! A client program of a server, started inside the server's instance or on this host, with its streams.
//!
//! Passwords reach it as variables of its own, set by a shell that takes them from the instance's variables: no command line has them (P6).

use std::process::Stdio;
use std::time::Duration;

use cutover_core::state::ExitStatus;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::url::{Dialect, Url};
use crate::meter::Meter;
use crate::ports::{Attached, Certainty, DatabaseError, RuntimeError, Server, Way};
use crate::runtime::process::piped;

/// The program takes the shell's place.
const PLAIN: &str = r#"exec "$@""#;

/// The program ends with whoever asked for it: it is told so by the end of its input. That all of its output came is told by a mark after it.
///
/// Every child is waited for. One that is left becomes a child of the instance's first process, which is often the server itself: `PostgreSQL`
/// takes a stranger's end by a signal for a crash of its own, and ends all sessions. So the shell outlives its children also where the engine, whose
/// client is gone, tells it to end: it hears that with a trap, which children do not inherit, and waits on. A child that has only just begun still
/// hears it in its parent's way: the guard is ended by what nobody can hear.
const GUARDED: &str = r#"trap : TERM
exec 3<&0
"$@" 3<&- </dev/null &
program=$!
(while read -r _; do :; done <&3; kill "$program") >/dev/null 2>&1 &
guard=$!
wait "$program"
code=$?
while kill -0 "$program" 2>/dev/null; do wait "$program"; code=$?; done
kill -KILL "$guard" 2>/dev/null
wait "$guard" 2>/dev/null
while kill -0 "$guard" 2>/dev/null; do wait "$guard"; done
[ "$code" = 0 ] && printf %s "$CUTOVER_WHOLE"
exit "$code""#;

/// The password of who we come as is read before anything else.
const OWN: &str = "IFS= read -r CUTOVER_OWN\n";

/// What comes after the output of a guarded program that ended well. Sixteen bytes that are in nobody's way: only the very end is compared.
pub(super) const WHOLE: &[u8] = b"cutover-all-of-it";

/// Of a program's output so much is kept, from its beginning.
const KEPT: usize = 4 * 1024 * 1024;
/// Of what it says of its failure, up to its end.
const SAID: usize = 8 * 1024;

/// How a program is carried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// It reads what it is given.
    Plain,
    /// It reads nothing, and ends with us.
    Guarded,
}

/// What a program said.
pub(super) struct Said {
    pub(super) exit: ExitStatus,
    pub(super) output: Vec<u8>,
    /// There was more output than is kept.
    pub(super) cut: bool,
    pub(super) errors: String,
}

/// By what an engine's client programs are told where and who.
pub(super) struct Login {
    /// A shell's words, which find out who it is where nothing else says so, and shift the first word, a database's name, away. `CUTOVER_CLIENT` is
    /// what we are called in the server's list of its clients; `CUTOVER_OWN` is the password, where it is other than the instance was told.
    pub(super) identity: &'static str,
    pub(super) dialect: &'static Dialect,
    pub(super) variables: fn(&Url) -> Vec<(&'static str, String)>,
}

/// Client programs for one server.
pub(super) struct Client<'a> {
    pub(super) server: &'a Server,
    pub(super) login: &'static Login,
    pub(super) meter: &'a Meter,
}

impl Client<'_> {
    /// Starts a program of the server's own; `database` in the place of the usual one.
    pub(super) async fn start(
        &self,
        database: Option<&str>,
        words: &[String],
        carried: Carried,
    ) -> Result<Attached, DatabaseError> {
        let body = if carried == Carried::Guarded { GUARDED } else { PLAIN };
        let (mark, identity) = (String::from_utf8_lossy(WHOLE), self.login.identity);
        let own = if self.server.password.is_some() { OWN } else { "" };
        let script =
            format!("CUTOVER_WHOLE={mark}\nCUTOVER_CLIENT={}\n{own}{identity}{body}", self.server.client);
        let name = database.or(self.server.name.as_deref()).unwrap_or_default();
        let shell = ["sh", "-c", &script, "sh", name].map(str::to_owned);
        let words: Vec<String> = shell.into_iter().chain(words.iter().cloned()).collect();
        match &self.server.way {
            Way::Inside { runtime, app, instance } => {
                let attached = runtime.attach(app, instance, &words, None).await;
                let mut attached = attached.map_err(|error| from_runtime(&error))?;
                if let Some(password) = &self.server.password {
                    // Where it has ended that shows by its exit.
                    let line = format!("{}\n", password.expose());
                    attached.input.write_all(line.as_bytes()).await.unwrap_or_default();
                }
                Ok(attached)
            }
            Way::Outside { url } => {
                let url = Url::parse(url.expose(), self.login.dialect)?;
                let mut command = Command::new("/bin/sh");
                command.args(words.iter().skip(1)).env_clear().env("PATH", PATH);
                command.envs((self.login.variables)(&url)).process_group(0).stdin(Stdio::piped());
                piped(command)
                    .map_err(|error| DatabaseError::plain(format!("a shell cannot be started: {error}")))
            }
        }
    }

    /// Runs a program to its end; `input` is all that it reads.
    pub(super) async fn run(
        &self,
        database: Option<&str>,
        words: &[String],
        input: &str,
        timeout: Duration,
    ) -> Result<Said, DatabaseError> {
        let running = async {
            let Attached { output, input: mut reads, exit, .. } =
                self.start(database, words, Carried::Plain).await?;
            let feeding = async move {
                // It may have ended, and its input with it.
                if reads.write_all(input.as_bytes()).await.is_ok() {
                    reads.shutdown().await.unwrap_or_default();
                }
            };
            let ((), said) = tokio::join!(feeding, said(output, exit));
            said
        };
        let late = |_| DatabaseError {
            full: false,
            certainty: Certainty::Unknown,
            message: format!("`{}` did not end within {} s", program(words), timeout.as_secs()),
        };
        tokio::time::timeout(timeout, running).await.map_err(late)?
    }
}

/// Where this host's programs lie.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn from_runtime(error: &RuntimeError) -> DatabaseError {
    DatabaseError::plain(format!("the database's instance: {}", error.message))
}

pub(super) type Output = std::pin::Pin<Box<dyn futures_util::Stream<Item = crate::ports::Written> + Send>>;
type Exit = futures_util::future::BoxFuture<'static, Result<ExitStatus, RuntimeError>>;

/// What it wrote, once it has ended.
pub(super) async fn said(mut output: Output, exit: Exit) -> Result<Said, DatabaseError> {
    let (mut wrote, mut cut, mut errors) = (Vec::new(), false, Vec::new());
    let reading = async {
        while let Some(piece) = output.next().await {
            if piece.error {
                errors.extend_from_slice(&piece.bytes);
                let over = errors.len().saturating_sub(SAID);
                errors.drain(..over);
            } else {
                let room = KEPT.saturating_sub(wrote.len()).min(piece.bytes.len());
                wrote.extend_from_slice(&piece.bytes[..room]);
                cut |= room < piece.bytes.len();
            }
        }
    };
    let (exit, ()) = tokio::join!(exit, reading);
    let errors = String::from_utf8_lossy(&errors).trim().to_owned();
    Ok(Said { exit: exit.map_err(|error| from_runtime(&error))?, output: wrote, cut, errors })
}

/// The name of a program that was to be run.
pub(super) fn program(words: &[String]) -> &str {
    words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word))
}

/// How a program ended that did not end well, in its own words.
pub(super) fn badly(words: &[String], exit: &ExitStatus, errors: &str) -> DatabaseError {
    let said =
        errors.lines().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("; ");
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    DatabaseError::plain(format!("`{}` {exit}{said}", program(words)))
}
