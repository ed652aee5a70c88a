//! The password of a role in a backing service's server, changed while nobody who is told it runs. The server is asked which one it has, before and
//! after: whatever an earlier run left, the role has in the end the password that its release is told.

use std::collections::BTreeSet;
use std::time::Duration;

use cutover_core::config::settings::ServerKind;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::hash::ContentHash;
use cutover_core::journal::{Step, StepResult};
use cutover_core::names::{ReleaseId, VariableName};
use cutover_core::plan::{HeldDatabase, HostPlan, PasswordChange, Reached, Stage, password_variable};
use cutover_core::release::{Release, RuntimeKind};
use cutover_core::secret::{Secret, Secrets};
use cutover_core::template::Template;

use tokio::time::Instant;

use super::{Act, environment, located};
use crate::files;
use crate::images::Values;
use crate::journal::{StageError, Trouble};
use crate::ports::{Account, Server};
use crate::store::{Store, StoreError};

/// For a server to start.
const STARTS: Duration = Duration::from_secs(30);
/// Between two tries to ask it.
const AGAIN: Duration = Duration::from_millis(500);

/// The server, and the role with the password that it had and the one that it gets.
struct Place {
    server: Server,
    before: Account,
    after: Account,
}

/// Which of two passwords a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Before,
    After,
    Neither,
    /// It asks for none.
    Any,
}

impl Place {
    async fn of(act: &Act<'_>, change: &PasswordChange) -> Result<Self, Trouble> {
        let server = located::server(act, &change.place).await?;
        let (host, port) = address(act, change).await?;
        let account = |release: &ReleaseId| {
            let values = environment::read(&act.layout.release_env(act.app(), release))?;
            let filled = |template: &Template| {
                let text = template.resolve(&Values(&values));
                text.map_err(|open| Trouble::plain(format!("release {release}: {open}")))
            };
            let (role, host) = (filled(&change.role)?, host.clone());
            Ok::<_, Trouble>(Account { role, password: Secret::new(filled(&change.password)?), host, port })
        };
        Ok(Self { before: account(&change.from)?, after: account(&change.to)?, server })
    }

    async fn has(&self, act: &Act<'_>, change: &PasswordChange) -> Result<Has, Trouble> {
        let database = &act.ports.database;
        // Where one is refused the server is asked why by whoever has the other.
        let before = database.admits(&self.with(change, &self.after), &self.before).await?;
        let after = database.admits(&self.with(change, &self.before), &self.after).await?;
        Ok(match (before, after) {
            (true, false) => Has::Before,
            (false, true) => Has::After,
            (false, false) => Has::Neither,
            (true, true) => Has::Any,
        })
    }

    /// The server as it is come into with the password that it has at present. Who we come as may be that very role.
    fn with(&self, change: &PasswordChange, present: &Account) -> Server {
        let mut server = self.server.clone();
        if let Reached::Backing { password: Some(own), .. } = &change.place.reached
            && *own == change.password
        {
            server.password = Some(present.password.clone());
        }
        server
    }

    /// Gives the role its password.
    async fn give(&self, act: &Act<'_>, change: &PasswordChange, present: &Account) -> Result<(), Trouble> {
        let server = self.with(change, present);
        // A session that an earlier run left could give it another one yet (S9).
        act.ports.database.end_sessions(&server).await?;
        act.ports.database.set_password(&server, &self.before, &self.after).await?;
        Ok(())
    }
}

/// Where the server is reached by its apps: a container by its name, a plain process at its address.
async fn address(act: &Act<'_>, change: &PasswordChange) -> Result<(String, Option<u16>), Trouble> {
    let Reached::Backing { service, runtime, .. } = &change.place.reached else {
        return Err(Trouble::plain("the server is not of this app"));
    };
    if *runtime == RuntimeKind::Container {
        return Ok((service.to_string(), change.port));
    }
    let found = located::backing(act.ports, act.app(), service, *runtime).await?;
    let address = found.address.ok_or_else(|| Trouble::plain(format!("`{service}` has no address")))?;
    Ok((address.ip().to_string(), Some(address.port())))
}

/// Refuses a password that could not be changed, before anybody is held for it.
pub(super) async fn can_change(act: &Act<'_>) -> Result<(), StageError> {
    let held = act.plan.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    for held in held {
        let HeldDatabase::Password { change } = held else { continue };
        let found = async {
            let place = Place::of(act, change).await?;
            let is_line = |account: &Account| !account.password.expose().contains(['\n', '\r', '\0']);
            let fits = is_line(&place.before) && is_line(&place.after);
            let fits = fits && !place.after.password.expose().is_empty();
            let has = place.has(act, change).await?;
            Ok::<_, Trouble>((fits, has, place))
        };
        let (fits, has, place) = found.await.map_err(|trouble| unasked(act, change, &trouble))?;
        if !fits {
            return Err(refused(change)
                .because("a password is one line of text, and is not empty")
                .next("give another one")
                .into());
        }
        if let Some(other) = said_elsewhere(act, change).map_err(|trouble| unasked(act, change, &trouble))? {
            return Err(refused(change)
                .because(format!("{other} has it in its value, too, and would go on with the old one"))
                .next(format!(
                    "let it refer to the password in cutover.yml (`{other}: …${{{}}}…`), deploy, then rotate",
                    change.variable
                ))
                .into());
        }
        match has {
            Has::Before => may(act, change, &place).await?,
            Has::After => {
                return Err(refused(change)
                    .because("the server has the new password already: it was changed by hand")
                    .next(format!("`cutover env set {}` gives it to the services", change.variable))
                    .into());
            }
            Has::Neither => {
                let mut failure = refused(change)
                    .because(format!(
                        "the server refuses the password that {} says now: it was changed in one place and not in the other",
                        change.variable
                    ))
                    .next(format!(
                        "put the value that the server has there first: `cutover env set {}`",
                        change.variable
                    ));
                // Or its role does not come by a password at all.
                if let Err(why) = may(act, change, &place).await {
                    failure.cause.extend(why.failure().cause);
                }
                return Err(failure.into());
            }
            Has::Any => {
                return Err(refused(change)
                    .because("the server lets everybody in, whatever the password: a change of it would change nothing")
                    .next("let it ask for passwords: for PostgreSQL that is `POSTGRES_HOST_AUTH_METHOD`, or its pg_hba.conf")
                    .into());
            }
        }
    }
    Ok(())
}

/// Whether who we come as may change it. Told is what shares the name and would stay as it is, or gets it although nobody can see what it had.
async fn may(act: &Act<'_>, change: &PasswordChange, place: &Place) -> Result<(), StageError> {
    let server = place.with(change, &place.before);
    let tried = act.ports.database.can_set_password(&server, &place.before, &place.after).await;
    let told = tried.map_err(|error| {
        let next = match change.place.kind {
            ServerKind::Postgres => {
                "see that `POSTGRES_USER`, as whom cutover comes into the server from within, is a superuser and may write: nobody else keeps a password out of the server's log"
            }
            ServerKind::Mysql | ServerKind::Mariadb => {
                "tell the image root's password (`MARIADB_ROOT_PASSWORD`, `MYSQL_ROOT_PASSWORD`): then cutover comes as root, from within, who needs CREATE USER"
            }
        };
        let message = Trouble::from(error).message;
        refused(change)
            .because(format!("the server does not let it be changed: {}", redact(act, change, &message)))
            .next(next)
    })?;
    for told in told {
        act.journal.note(Stage::Preflight, format!("in the server of `{}` {told}", change.service))?;
    }
    Ok(())
}

/// Another variable that a service of the live release is told, and that has the password in its value as it is, or as a url has it.
fn said_elsewhere(act: &Act<'_>, change: &PasswordChange) -> Result<Option<VariableName>, Trouble> {
    let values = environment::read(&act.layout.release_env(act.app(), &change.from))?;
    let Some(password) = values.get(&change.variable).map(Secret::expose) else { return Ok(None) };
    let encoded: String = password
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    let live = act.store.releases(act.app())?.into_iter().find(|record| record.release.id == change.from);
    let told: BTreeSet<VariableName> = live
        .iter()
        .flat_map(|live| live.release.released())
        .flat_map(|part| part.run.environment.values())
        .flat_map(Template::variables)
        .cloned()
        .collect();
    let has = |name: &&VariableName| {
        **name != change.variable
            && values.get(name).is_some_and(|value| {
                value.expose().contains(password) || value.expose().contains(encoded.as_str())
            })
    };
    Ok(told.iter().find(has).cloned())
}

/// Which password the server has. On the way back it may have just begun to start, with its host.
async fn asked(act: &Act<'_>, change: &PasswordChange) -> Result<(Place, Has), Trouble> {
    let end = Instant::now() + STARTS;
    loop {
        let asked = async {
            let place = Place::of(act, change).await?;
            let has = place.has(act, change).await?;
            Ok::<_, Trouble>((place, has))
        };
        match asked.await {
            Ok((place, has)) if has != Has::Neither || !act.goes_back() => return Ok((place, has)),
            Err(trouble) if !act.goes_back() => return Err(trouble),
            ended if Instant::now() >= end => return ended,
            Ok(_) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Gives the role the password that the release that comes is told. Where it has that already nothing is done.
pub(super) async fn change(act: &Act<'_>, change: &PasswordChange) -> Result<(), StageError> {
    let step = Step::Password { service: change.service.clone(), variable: change.variable.clone() };
    let changed = async {
        let (place, mut has) = asked(act, change).await?;
        // The statement of a run that was killed may not have come to its end: what the server has now it might not have in a moment.
        if act.goes_back() && has == Has::After {
            act.ports.database.end_sessions(&place.with(change, &place.after)).await?;
            has = place.has(act, change).await?;
        }
        match has {
            Has::After => return Ok((false, StepResult::Already)),
            Has::Any => return Err(Trouble::plain("the server lets everybody in, whatever the password")),
            // Who comes as another role, or by a socket that asks for nothing, can still set it right.
            Has::Before | Has::Neither => place.give(act, change, &place.before).await?,
        }
        match place.has(act, change).await? {
            Has::After => Ok((true, StepResult::Done)),
            Has::Before => Err(Trouble::plain("the server goes on with the password from before")),
            Has::Neither => Err(Trouble::plain("the server refuses the password that it was given")),
            Has::Any => Err(Trouble::plain("the server lets everybody in, whatever the password")),
        }
    };
    let redacted = async { changed.await.map_err(|trouble: Trouble| without_values(act, change, &trouble)) };
    let is_changed = act.journal.act(Stage::Handover, step, redacted).await?;
    let server = &change.service;
    let text = match (act.goes_back(), is_changed) {
        (false, _) => format!("`{server}` has the new password: the one from before is refused"),
        (true, true) => format!("`{server}` has the password from before again: the new one is refused"),
        (true, false) => format!("`{server}` has the password from before"),
    };
    act.journal.note(Stage::Handover, text)
}

/// A role has one password: releases from before that are told it get the new one, so that they can go live again.
pub(super) fn carry_back(act: &Act<'_>, goal: &HostPlan) -> Result<(), Trouble> {
    for (change, hash) in changed(goal) {
        let value = environment::read(&act.layout.release_env(act.app(), &change.to))?;
        let Some(value) = value.get(&change.variable) else { continue };
        for record in act.store.releases(act.app())? {
            let release = record.release;
            let Some(name) = told_by(&release, change) else { continue };
            if release.variables.get(name) == Some(hash) {
                continue;
            }
            let own = act.layout.release_env(act.app(), &release.id);
            // One that has lost its env file cannot go live again in any case.
            if own.exists() {
                let mut values = environment::read(&own)?;
                values.insert(name.clone(), value.clone());
                // Of the release that made the server's instance cutover itself is told by the name of today.
                if values.get(&change.variable).is_none() {
                    values.insert(change.variable.clone(), value.clone());
                }
                files::replace(&own, values.to_env_file().as_bytes(), 0o600)?;
            }
            act.store.set_variable(act.app(), &release.id, name, hash)?;
        }
    }
    Ok(())
}

/// The same of records that are made anew: env files are as they were left.
pub(crate) fn carry_hashes_back(store: &Store, goal: &HostPlan) -> Result<(), StoreError> {
    for (change, hash) in changed(goal) {
        for record in store.releases(&goal.app)? {
            if let Some(name) = told_by(&record.release, change) {
                store.set_variable(&goal.app, &record.release.id, name, hash)?;
            }
        }
    }
    Ok(())
}

/// The passwords that a run changes, with the hash of what each becomes.
fn changed(goal: &HostPlan) -> impl Iterator<Item = (&PasswordChange, &ContentHash)> {
    let held = goal.handover.todo().into_iter().flat_map(|handover| &handover.databases);
    held.filter_map(|held| {
        let HeldDatabase::Password { change } = held else { return None };
        Some((&**change, goal.release.as_ref()?.variables.get(&change.variable)?))
    })
}

/// By which variable a release tells that server's image that password: the same, or another one that is the password alone, as it is today.
fn told_by<'a>(release: &'a Release, change: &'a PasswordChange) -> Option<&'a VariableName> {
    let backing = release.backing.get(&change.service)?;
    if backing.settings.run.environment.values().any(|told| *told == change.password) {
        return Some(&change.variable);
    }
    password_variable(release, change).filter(|_| matches!(change.password.pieces(), [_]))
}

fn refused(change: &PasswordChange) -> Failure {
    Failure::new(Exit::Refused, format!("the password {} was not changed", change.variable))
}

fn unasked(act: &Act<'_>, change: &PasswordChange, trouble: &Trouble) -> Failure {
    refused(change).because(redact(act, change, &trouble.message)).next(format!(
        "see that `{}` runs and is healthy (`cutover status`); then do the same again",
        change.service
    ))
}

fn without_values(act: &Act<'_>, change: &PasswordChange, trouble: &Trouble) -> Trouble {
    let message = redact(act, change, &trouble.message);
    Trouble { message, ..*trouble }
}

/// A client program may say what it was told.
fn redact(act: &Act<'_>, change: &PasswordChange, text: &str) -> String {
    let values = |release: &ReleaseId| environment::read(&act.layout.release_env(act.app(), release));
    let redacted = |text: &str, values: Result<Secrets, Trouble>| values.map(|values| values.redact(text));
    redacted(text, values(&change.from)).and_then(|text| redacted(&text, values(&change.to))).unwrap_or_else(
        |_| "what its client program said is not shown: an env file cannot be read".to_owned(),
    )
}
