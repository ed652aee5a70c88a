//! A one-off instance to its end: a migration, its rehearsal, or a question. What it writes is read as it comes.

use std::collections::VecDeque;
use std::time::Duration;

use cutover_core::journal::What;
use cutover_core::plan::InstanceSpec;
use cutover_core::secret::Secrets;

use super::Act;
use crate::journal::Trouble;
use crate::ports::{Runtime, Scope};
use crate::tail::Tail;

/// Of what it wrote, so many of the last lines are kept for whoever tells why it failed.
const LAST_LINES: usize = 200;
/// So many lines go into the journal; a journal is not to grow without end.
const TOLD_LINES: usize = 2_000;
/// Between two looks for new lines.
const AGAIN: Duration = Duration::from_millis(250);

/// How a one-off instance ended that did not end well.
pub(super) struct Ended {
    /// In words.
    pub(super) why: String,
    /// The kernel ended it, or a process of it, for want of memory.
    pub(super) out_of_memory: bool,
    /// The end of what it wrote, redacted.
    pub(super) output: Vec<String>,
}

/// Runs a one-off instance to its end and removes it. An earlier one of the same name is ended first (S9).
pub(super) async fn run_once(
    act: &Act<'_>,
    spec: &InstanceSpec,
    timeout: Duration,
) -> Result<Result<(), Ended>, Trouble> {
    let runtime = act.ports.runtime(spec.runtime())?;
    let values = act.values(&spec.release).map_err(|error| Trouble::plain(error.failure().to_string()))?;
    let app = act.app();
    let reference = spec.reference();
    runtime.stop(app, &reference.name, &reference.stop).await?;
    runtime.remove(app, &reference.name).await?;
    runtime.create(spec, &values).await?;
    runtime.start(app, &spec.name).await?;
    let mut lines = Lines::of(act, spec, runtime.as_ref(), &values);
    let running = async {
        let mut exited = runtime.exited(app, &spec.name);
        loop {
            tokio::select! {
                exit = &mut exited => return exit.map_err(Trouble::from),
                () = tokio::time::sleep(AGAIN) => lines.hear().await?,
            }
        }
    };
    let ended = tokio::time::timeout(timeout, running).await;
    // Ended or late: nothing of it may be left when the database is looked at, opened or put back.
    runtime.stop(app, &reference.name, &reference.stop).await?;
    lines.hear().await?;
    let output = lines.last.into();
    runtime.remove(app, &spec.name).await?;
    let (why, out_of_memory) = match ended {
        Ok(exit) => {
            let exit = exit?;
            if exit.code == Some(0) {
                return Ok(Ok(()));
            }
            (exit.to_string(), exit.out_of_memory)
        }
        Err(_) => (format!("it did not end within {} s and was stopped", timeout.as_secs()), false),
    };
    Ok(Err(Ended { why, out_of_memory, output }))
}

/// What an instance writes, on its way into the journal.
struct Lines<'a> {
    act: &'a Act<'a>,
    spec: &'a InstanceSpec,
    runtime: &'a dyn Runtime,
    values: &'a Secrets,
    tail: Tail,
    told: usize,
    last: VecDeque<String>,
}

impl<'a> Lines<'a> {
    fn of(act: &'a Act<'a>, spec: &'a InstanceSpec, runtime: &'a dyn Runtime, values: &'a Secrets) -> Self {
        let tail = Tail::new(None, None, Scope::ThisStart);
        Self { act, spec, runtime, values, tail, told: 0, last: VecDeque::new() }
    }

    /// Those that came since. What cannot be read now is read at the next look.
    async fn hear(&mut self) -> Result<(), Trouble> {
        let read = self.tail.read(self.runtime, self.act.app(), &self.spec.name).await;
        let new = read.unwrap_or_else(|error| {
            tracing::warn!(%error, instance = %self.spec.name, "what it writes cannot be read");
            Vec::new()
        });
        for line in new {
            let line = self.values.redact(&line.text);
            match self.told {
                ..TOLD_LINES => self.tell(line.clone())?,
                TOLD_LINES => {
                    self.tell("(it writes more than is kept: of the rest only the end is)".to_owned())?;
                }
                _ => {}
            }
            self.told += 1;
            self.last.push_back(line);
            if self.last.len() > LAST_LINES {
                self.last.pop_front();
            }
        }
        Ok(())
    }

    fn tell(&self, line: String) -> Result<(), Trouble> {
        let written = self.act.journal.write(What::Output { of: self.spec.name.to_string(), line });
        written.map(drop).map_err(|error| Trouble::plain(error.failure().to_string()))
    }
}
