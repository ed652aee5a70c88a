//! Programs of the system, run to their end. Their words are data; what they say is shown where they fail.

use std::process::Stdio;
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use tokio::process::Command;

/// For a program that only looks or sets.
const SHORT: Duration = Duration::from_secs(60);
/// Lines of a failed program's output that are shown.
const SHOWN: usize = 12;

/// What a program said.
pub(super) struct Said {
    pub(super) ok: bool,
    pub(super) out: String,
    err: String,
}

/// Runs it and hears what it says; a program that is not there says nothing and fails.
pub(super) async fn ask(words: &[&str]) -> Said {
    ask_within(words, SHORT).await
}

async fn ask_within(words: &[&str], limit: Duration) -> Said {
    let failed = |err: String| Said { ok: false, out: String::new(), err };
    let Some((program, rest)) = words.split_first() else { return failed(String::new()) };
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).kill_on_drop(true);
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").env("PATH", PATH);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => Said {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Ok(Err(error)) => failed(format!("{program}: {error}")),
        Err(_) => failed(format!("{program} did not end in {} s", limit.as_secs())),
    }
}

/// What a login by ssh may lack.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it; when it fails, `what` was not done.
pub(super) async fn run(what: &str, words: &[&str]) -> Result<String, Failure> {
    run_within(what, words, SHORT).await
}

/// The same, for what takes longer.
pub(super) async fn run_within(what: &str, words: &[&str], limit: Duration) -> Result<String, Failure> {
    let said = ask_within(words, limit).await;
    if said.ok { Ok(said.out) } else { Err(said.failure(what, words)) }
}

impl Said {
    fn failure(&self, what: &str, words: &[&str]) -> Failure {
        // What goes well is told on the other stream.
        let text = if self.err.trim().is_empty() { &self.out } else { &self.err };
        let said: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let shown = said.len().saturating_sub(SHOWN);
        let mut failure = failed(what).because(format!("`{}` failed", words.join(" ")));
        failure.cause.extend(said.into_iter().skip(shown).map(str::to_owned));
        failure
    }
}

/// `what` was not done; what serves goes on, and the next run begins where this one ended.
pub(super) fn failed(what: &str) -> Failure {
    Failure::new(Exit::Failed, format!("setup could not {what}"))
        .while_serving("what was serving goes on; what was changed before stays, and the next `cutover setup` goes on from there")
}
