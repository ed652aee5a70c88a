//! Carries the changes out, one after the other, and looks again.

use std::collections::BTreeSet;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{self, Act, Change, Decision, EngineEffect, Record, Wanted, place};

use super::apart::{self, Order};
use super::system::{ask, failed, run};
use super::{files, handover, look, packages, program, record, trial, units};
use crate::lock::ProcessLock;
use crate::session::change_environment;
use crate::stages::environment::generated;

/// What is told while it is carried out.
pub enum SetupEvent {
    /// This was done.
    Changed(Change),
    /// This is on trial: it is taken back after so many seconds unless it is confirmed.
    Trial {
        /// To confirm it by.
        token: String,
        /// Until it is taken back.
        seconds: u64,
        /// What is on trial.
        changes: Vec<Change>,
    },
}

/// One setup of this server: alone.
pub struct Setup<'a> {
    layout: &'a Layout,
    wanted: &'a Wanted,
}

impl<'a> Setup<'a> {
    /// For an app.
    ///
    /// # Errors
    /// Where we are not root, or on a system that is not known.
    pub fn new(layout: &'a Layout, wanted: &'a Wanted) -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new(Exit::Refused, "setup needs root on the server")
                .because("the session runs as another user")
                .next("let that user use sudo without a password, or name root in `hosts`"));
        }
        setup::refuse_unsupported(&look::distribution())?;
        Ok(Self { layout, wanted })
    }

    /// What is to be done.
    ///
    /// # Errors
    /// When what is there cannot be told.
    pub async fn decide(&self) -> Result<Decision, Failure> {
        apart::over(self.layout).await?;
        Ok(setup::decide(self.wanted, &look::look(self.layout, &self.wanted.app).await?))
    }

    /// Does it. What changes while it goes on (a package that brings a service) is decided anew, once.
    ///
    /// # Errors
    /// At the first change that fails; what was changed before stays.
    pub async fn carry_out(
        &self,
        mut tell: impl AsyncFnMut(SetupEvent) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let _alone = alone(self.layout)?;
        apart::over(self.layout).await?;
        trial::clear(self.layout).await?;
        // What serves as this begins, or served last.
        let old = program::way_back(self.layout);
        let untold = |error: std::io::Error| failed("go on").because(format!("nobody listens: {error}"));
        let mut tried = Vec::new();
        for round in 0..2 {
            let decision = self.decide().await?;
            for change in decision.changes {
                if change.is_on_trial() {
                    if round == 1 {
                        tried.push(change);
                    }
                    continue;
                }
                self.act(&change, old.as_deref()).await?;
                tell(SetupEvent::Changed(change)).await.map_err(untold)?;
            }
        }
        handover::proved_elsewhere(self.layout);
        let record = record::read(self.layout)?;
        if record.with(self.wanted) != record {
            record::write(self.layout, &record.with(self.wanted))?;
        }
        if tried.is_empty() {
            return Ok(());
        }
        self.note(|record| record.files.extend(tried.iter().flat_map(files_of)))?;
        let token = trial::begin(self.layout, tried.clone()).await?;
        let trial = SetupEvent::Trial { token, seconds: trial::PATIENCE.as_secs(), changes: tried };
        tell(trial).await.map_err(untold)
    }

    /// Intent first: what teardown must undo stands in the record before it is there.
    fn note(&self, change: impl FnOnce(&mut Record)) -> Result<(), Failure> {
        let mut record = record::read(self.layout)?;
        change(&mut record);
        record::write(self.layout, &record)
    }

    async fn act(&self, change: &Change, old: Option<&str>) -> Result<(), Failure> {
        match &change.act {
            Act::Program { folder } => program::install(self.layout, folder),
            Act::Packages { names } => {
                self.note(|record| record.packages.extend(names.iter().cloned()))?;
                packages::install(names).await
            }
            Act::File { path, text, mode } => {
                self.note(|record| record.files.extend(files_of(change)))?;
                files::write(path, text, *mode)
            }
            Act::EngineFile { text, added, effect } => {
                self.note(|record| record.engine_keys.extend(added.clone()))?;
                let before = files::read(place::ENGINE);
                files::write(place::ENGINE, text, files::mode(place::ENGINE).unwrap_or(0o644))?;
                let Err(failure) = renew_engine(*effect).await else { return Ok(()) };
                put_engine_back(before).await?;
                self.note(|record| record.engine_keys.retain(|key, _| !added.contains_key(key)))?;
                Err(failure
                    .while_serving("the engine's file is as it was, and the engine was started with it"))
            }
            Act::Engine => run("start Docker Engine", &["systemctl", "enable", "--now", "docker.service"])
                .await
                .map(drop),
            Act::Units { names } => {
                self.note(|record| record.units.extend(names.iter().cloned()))?;
                let order = Order::Start { units: names.clone(), old: old.map(str::to_owned) };
                apart::carry_out(self.layout, &order).await
            }
            Act::Renew => {
                let new = self.wanted.program.clone();
                apart::carry_out(self.layout, &Order::Renew { old: old.map(str::to_owned), new }).await
            }
            Act::Secrets { names } => {
                let mut values = cutover_core::secret::Secrets::new();
                for name in names {
                    let value =
                        generated().map_err(|trouble| failed("make values").because(trouble.message))?;
                    values.insert(name.clone(), value);
                }
                change_environment(self.layout, &self.wanted.app, &values, &BTreeSet::new(), "setup")
            }
            Act::Firewall { .. } | Act::Sshd { .. } => Ok(()),
        }
    }
}

fn files_of(change: &Change) -> Vec<String> {
    match &change.act {
        Act::File { path, .. } => vec![path.clone()],
        Act::Firewall { .. } => vec![place::FIREWALL.to_owned()],
        Act::Sshd { .. } => vec![place::SSHD.to_owned()],
        _ => Vec::new(),
    }
}

/// A restart only where nothing stops with it. With live-restore read first, what runs goes on through the restart.
async fn renew_engine(effect: EngineEffect) -> Result<(), Failure> {
    if !units::is_systemd() || !ask(&["systemctl", "is-active", "docker.service"]).await.ok {
        return Ok(());
    }
    let what = "let the engine read its settings";
    match effect {
        EngineEffect::AtItsStart => Ok(()),
        EngineEffect::ReadAgain => run(what, &["systemctl", "reload", "docker.service"]).await.map(drop),
        EngineEffect::Restarted => run(what, &["systemctl", "restart", "docker.service"]).await.map(drop),
    }
}

/// The engine does not go on with what was written: it gets again what it went on with before.
async fn put_engine_back(before: Option<String>) -> Result<(), Failure> {
    match before {
        Some(text) => files::write(place::ENGINE, &text, files::mode(place::ENGINE).unwrap_or(0o644))?,
        None => files::remove(place::ENGINE)?,
    }
    // One that failed too often is not started any more.
    ask(&["systemctl", "reset-failed", "docker.service"]).await;
    run("start Docker Engine as it was", &["systemctl", "start", "docker.service"]).await.map(drop)
}

/// One at a time changes this server: who holds this.
///
/// # Errors
/// While another does.
pub(super) fn alone(layout: &Layout) -> Result<ProcessLock, Failure> {
    ProcessLock::take(layout, "setup").map_err(|error| {
        let mut failure = failed("begin").because(error.to_string());
        failure.exit = Exit::Locked;
        failure.next("wait for its end, then try again")
    })
}

/// Lets this program go on in the place of the one before; what serves drops nothing.
///
/// # Errors
/// When a run goes on, or the new one does not serve.
pub async fn upgrade(layout: &Layout, program: &str) -> Result<Vec<String>, Failure> {
    let _alone = alone(layout)?;
    apart::over(layout).await?;
    let old = program::way_back(layout);
    let is_there = program::linked().as_deref() == Some(program);
    if is_there && !handover::is_outdated(layout) && handover::is_at_work(layout).await {
        return Ok(vec![format!("cutover-host {program} is there already")]);
    }
    program::install(layout, program)?;
    apart::carry_out(layout, &Order::Renew { old: old.clone(), new: program.to_owned() }).await?;
    let old = old.filter(|old| old != program);
    let old = old.map(|old| format!("; {old} stays beside it")).unwrap_or_default();
    let goes_on = if handover::is_kept(layout) {
        "proxy and watch go on with it"
    } else {
        "nobody keeps proxy and watch here: `cutover-host up` on the server starts them with it, as the next deploy does"
    };
    Ok(vec![format!("cutover-host {program} is there{old}"), goes_on.to_owned()])
}
