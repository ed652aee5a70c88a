//! One piece of work on an app's backups, handed to a process of its own: it goes on when whoever asked has left. What is secret of it goes through
//! a pipe.

use std::io::{self, Write as _};
use std::process::{Child, Stdio};

use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::secret::Secrets;
use cutover_core::wire::BackupOrder;
use serde::{Deserialize, Serialize};

use crate::stages::environment;
use crate::{observe, program, setup};

/// What the process reads first, on a line of its input.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) order: BackupOrder,
    /// The text of an env file.
    pub(crate) env: String,
}

impl Job {
    pub(crate) fn new(order: BackupOrder, values: &Secrets) -> Self {
        Self { order, env: values.to_env_file() }
    }

    pub(super) fn values(&self) -> Secrets {
        env_file::parse(&self.env).unwrap_or_default()
    }
}

/// Who hears what the process has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A session, for as long as it lives.
    ByUs,
    /// Nobody: what became of it stands in the records.
    ByNobody,
}

/// Starts the process.
pub(crate) fn begin(layout: &Layout, job: &Job, heard: Heard) -> io::Result<Child> {
    std::fs::create_dir_all(layout.logs())?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(layout.process_log("backup"))?;
    let unit = format!("cutover-backup-{}", uuid::Uuid::now_v7());
    let mut command = setup::scope(layout, &unit, &program::own());
    let out = if heard == Heard::ByUs { Stdio::piped() } else { Stdio::null() };
    command.arg("backup").stdin(Stdio::piped()).stdout(out).stderr(log);
    let mut child = command.spawn()?;
    let mut text = serde_json::to_vec(job).map_err(io::Error::other)?;
    text.push(b'\n');
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(&text)?;
    }
    Ok(child)
}

/// The values that fill the references of an app's backups: those of the host's env file, and over them what is live was given.
pub(crate) fn values(layout: &Layout, app: &AppId) -> Result<Secrets, Failure> {
    let unreadable = |why: String| {
        Failure::new(Exit::Configuration, format!("the env files of {app} cannot be read"))
            .because(why)
            .while_serving("what was serving goes on")
            .next("mend the lines named above")
    };
    let host = environment::read(&layout.env_file(app)).map_err(|error| unreadable(error.to_string()))?;
    let Some(live) = observe::live_on_disk(layout, app)? else { return Ok(host) };
    let release = environment::read(&layout.release_env(app, &live.release));
    Ok(release.map_err(|error| unreadable(error.to_string()))?.overlaid(&host))
}
