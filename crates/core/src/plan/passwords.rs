//! The passwords of roles in backing services' servers. An image reads its password variable where its volume is new, and never again: who logs in
//! with another value is refused until the role is given it, too. `secrets rotate` changes both together.

use std::collections::BTreeSet;

use crate::config::settings::{DatabaseEngine, RunSettings, ServerKind};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::names::{ServiceName, VariableName};
use crate::plan::{HeldDatabase, PasswordChange, Refusals, ServerPlace};
use crate::release::{BackingRelease, Live, Release, RuntimeKind};
use crate::request::Request;
use crate::state::{FoundInstance, HostState, Role};
use crate::template::{Piece, Template};

/// By what an image is told the password of a role.
struct Told {
    /// The image's own variable.
    by: &'static str,
    kind: ServerKind,
    role: Whose,
}

/// Whose password it is.
#[derive(Clone, Copy)]
enum Whose {
    /// Of the role that another variable of the image names, or of this one.
    Named(&'static str, Option<&'static str>),
    /// Of this one.
    Always(&'static str),
}

const TOLD: [Told; 5] = [
    Told {
        by: "POSTGRES_PASSWORD",
        kind: ServerKind::Postgres,
        role: Whose::Named("POSTGRES_USER", Some("postgres")),
    },
    Told { by: "MARIADB_ROOT_PASSWORD", kind: ServerKind::Mariadb, role: Whose::Always("root") },
    Told { by: "MARIADB_PASSWORD", kind: ServerKind::Mariadb, role: Whose::Named("MARIADB_USER", None) },
    Told { by: "MYSQL_ROOT_PASSWORD", kind: ServerKind::Mysql, role: Whose::Always("root") },
    Told { by: "MYSQL_PASSWORD", kind: ServerKind::Mysql, role: Whose::Named("MYSQL_USER", None) },
];

/// What an image is told of one password, and whose it is.
struct Found<'a> {
    /// The image's own variable.
    by: &'static str,
    password: &'a Template,
    role: Template,
    kind: ServerKind,
}

/// The variable by which a release tells the server's image the password that is changed, where it is told by a variable alone. Releases from before
/// may have had another name for it.
pub fn password_variable<'a>(release: &'a Release, change: &PasswordChange) -> Option<&'a VariableName> {
    let found = told(release.backing.get(&change.service)?).find(|found| found.role == change.role)?;
    match found.password.pieces() {
        [Piece::Variable { name, .. }] => Some(name),
        _ => None,
    }
}

/// The passwords that a backing service's image is told by references, so that a variable can change them.
fn told(backing: &BackingRelease) -> impl Iterator<Item = Found<'_>> {
    let environment = &backing.settings.run.environment;
    let value = |name: &str| environment.iter().find(|(known, _)| known.as_str() == name).map(|(_, of)| of);
    TOLD.iter().filter_map(move |told| {
        let password = value(told.by).filter(|password| !password.variables().is_empty())?;
        let role = match told.role {
            Whose::Named(by, otherwise) => value(by).cloned().or_else(|| otherwise.map(Template::text))?,
            Whose::Always(role) => Template::text(role),
        };
        Some(Found { by: told.by, password, role, kind: told.kind })
    })
}

/// The password of who comes into a server from within: `root`'s, where an image of `MariaDB` or `MySQL` has one that it is told, else its user's.
pub(super) fn own(backing: &BackingRelease, kind: ServerKind) -> Option<&Template> {
    let environment = &backing.settings.run.environment;
    let value = |wanted: &str| {
        environment.iter().find(|(name, _)| name.as_str() == wanted).map(|(_, password)| password)
    };
    let either = |name: &str| value(&format!("MARIADB_{name}")).or_else(|| value(&format!("MYSQL_{name}")));
    let password = match kind {
        ServerKind::Postgres => {
            let is_another = value("PGUSER").is_some_and(|user| value("POSTGRES_USER") != Some(user));
            value("POSTGRES_PASSWORD").filter(|_| !is_another)
        }
        ServerKind::Mysql | ServerKind::Mariadb => {
            // From a file, or none at all: then it is root who comes, too.
            let is_root = ["ROOT_PASSWORD_FILE", "ALLOW_EMPTY_ROOT_PASSWORD", "ALLOW_EMPTY_PASSWORD"]
                .into_iter()
                .any(|name| either(name).is_some());
            let user = either("PASSWORD").filter(|_| !is_root && either("USER").is_some());
            either("ROOT_PASSWORD").or(user)
        }
    }?;
    (!password.variables().is_empty()).then_some(password)
}

/// Whether a variable says passwords of this backing service's image, and nothing else of it: what is told it by another name, a health check or a
/// configuration that is made from it, has the value that the container was made with for as long as that is there.
pub(super) fn is_password(backing: &BackingRelease, variable: &VariableName) -> bool {
    told(backing).any(|found| found.password.variables().contains(variable))
        && elsewhere(&backing.settings.run, variable).is_none()
}

/// What of it is told a variable besides its image's own variables of passwords.
fn elsewhere<'a>(run: &'a RunSettings, variable: &VariableName) -> Option<&'a VariableName> {
    let is_own = |name: &VariableName| TOLD.iter().any(|told| told.by == name.as_str());
    let mut others = run.environment.iter().filter(|(name, _)| !is_own(name));
    others.find(|(_, text)| text.variables().contains(variable)).map(|(name, _)| name)
}

/// The change of the password that is asked for, to what the release that comes is told.
pub(super) fn change(
    state: &HostState,
    live: &Live,
    release: &Release,
    request: &Request,
) -> Result<HeldDatabase, Refusals> {
    let Some(variable) = request.overlay.keys().next() else {
        return Err(Failure::new(Exit::Usage, "no variable is named").into());
    };
    let all = release.backing.iter().flat_map(|(service, backing)| {
        told(backing)
            .filter(|found| found.password.variables().contains(variable))
            .map(move |found| (service, backing, found))
    });
    let mut all: Vec<_> = all.collect();
    let Some((service, backing, found)) = all.pop() else { return Err(of_none(release, variable).into()) };
    if let Some((other, ..)) = all.first() {
        return Err(Failure::new(Exit::Refused, format!("{variable} is more than one password"))
            .because(format!("the images of backing services {other} and {service} are told it for different roles"))
            .next("give each password a variable of its own in cutover.yml: deploy that with both set to the present value, then rotate one after the other")
            .into());
    }
    refuse_other_users(release, variable, service)?;
    refuse_health_check(service, backing, found.by)?;
    refuse_stopped(state, service)?;
    let kind = kind(release, service).unwrap_or(found.kind);
    let change = PasswordChange {
        variable: variable.clone(),
        service: service.clone(),
        place: ServerPlace { kind, reached: super::databases::within(service, backing, kind), name: None },
        port: backing.settings.port,
        role: found.role,
        password: found.password.clone(),
        from: live.release.clone(),
        to: release.id.clone(),
    };
    if change.from == change.to {
        return Err(Failure::new(Exit::Usage, format!("{variable} has that value already"))
            .next("give another one, or none: then one is made")
            .into());
    }
    Ok(HeldDatabase::Password { change: Box::new(change) })
}

/// Which engine it is, as far as a database says so.
fn kind(release: &Release, service: &ServiceName) -> Option<ServerKind> {
    release.databases.values().find_map(|database| match &database.engine {
        DatabaseEngine::Server { kind, service: Some(of), .. } if of == service => Some(*kind),
        _ => None,
    })
}

/// Why it cannot be rotated, and what can be done.
fn of_none(release: &Release, variable: &VariableName) -> Failure {
    let url = release.databases.iter().find(|(_, database)| match &database.engine {
        DatabaseEngine::Server { url: Some(url), .. } => url.variables().contains(variable),
        _ => false,
    });
    if let Some((name, _)) = url {
        return Failure::new(Exit::Refused, format!("the password of database `{name}` is not changed by cutover"))
            .because("it is reached by `url`: its server, and who may log in there, are not of this app")
            .next(format!(
                "make a second role in it with the same rights and another password, `cutover env set {variable}` to that, and drop the first role once the release is live"
            ));
    }
    let told = release
        .backing
        .iter()
        .find(|(_, backing)| texts(&backing.settings.run).any(|text| text.variables().contains(variable)));
    if let Some((name, _)) = told {
        return Failure::new(Exit::Refused, format!("{variable} is not changed in backing service `{name}` by cutover"))
            .because("it is told it, and not as a password of PostgreSQL, MariaDB or MySQL which cutover knows how to change")
            .next(format!(
                "by hand: `cutover env set {variable}`, then `cutover backing apply {name}`; who uses it is refused in between"
            ));
    }
    Failure::new(Exit::Usage, format!("{variable} is no password of a backing service's database"))
        .because("no image of a backing service is told it as POSTGRES_PASSWORD, MARIADB_PASSWORD, MYSQL_PASSWORD or the like")
        .next(format!("`cutover env set {variable}` changes any other variable"))
}

/// What is told the password and is not made anew by this would be refused from then on.
fn refuse_other_users(
    release: &Release,
    variable: &VariableName,
    service: &ServiceName,
) -> Result<(), Failure> {
    for (name, backing) in &release.backing {
        let uses = texts(&backing.settings.run).any(|text| text.variables().contains(variable));
        let refused = match elsewhere(&backing.settings.run, variable) {
            Some(other) if name == service => {
                Failure::new(
                    Exit::Refused,
                    format!("backing service `{name}` is told {variable} for something else as well"),
                )
                .because(format!("its variable {other} has it, too: the container is not made anew by this, and would go on with the password from before there"))
                .next(format!("take it out of {other} in cutover.yml (a health check needs none: `pg_isready`, `mariadb-admin ping`, `mysqladmin ping`), deploy, `cutover backing apply {name}`, then rotate"))
            }
            _ if uses && name != service => {
                Failure::new(Exit::Refused, format!("backing service `{name}` is told {variable}, too"))
                    .because("a backing service is not made anew by this: it would go on with the password from before")
                    .next(format!(
                        "give `{name}` a role of its own in the server; or change it by hand: the password in the server, `cutover env set {variable}`, `cutover backing apply {name}`"
                    ))
            }
            _ => continue,
        };
        return Err(refused);
    }
    Ok(())
}

/// A container's own variables stay as they were made: a check that logs in by one of them would fail from then on.
fn refuse_health_check(
    service: &ServiceName,
    backing: &BackingRelease,
    by: &'static str,
) -> Result<(), Failure> {
    let checks = serde_json::to_string(&(&backing.settings.run.healthcheck, &backing.settings.gate));
    if !checks.unwrap_or_default().contains(by) {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("the health check of backing service `{service}` logs in by {by}"))
        .because("the container goes on with the value that it was made with, and its check would fail from then on")
        .next(format!(
            "let it ask without a password (`pg_isready`, `mariadb-admin ping`, `mysqladmin ping`), deploy, `cutover backing apply {service}`, then rotate"
        )))
}

fn refuse_stopped(state: &HostState, service: &ServiceName) -> Result<(), Failure> {
    let runs = |found: &FoundInstance| {
        found.role == Role::Backing && found.ours && found.service == *service && found.is_running()
    };
    if state.instances.iter().any(runs) {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("backing service `{service}` does not run"))
        .because("its server is what changes the password")
        .next(format!("`cutover backing restart {service}` starts it")))
}

/// The services that are told a variable: with another password they are made anew.
pub(super) fn users<'a>(
    release: &'a Release,
    variable: &'a VariableName,
) -> impl Iterator<Item = &'a ServiceName> {
    let uses = |run: &RunSettings| texts(run).any(|text| text.variables().contains(variable));
    release.services.iter().filter(move |(_, service)| uses(&service.settings.run)).map(|(name, _)| name)
}

/// Everything of an instance's settings that variables stand in.
fn texts(run: &RunSettings) -> impl Iterator<Item = &Template> {
    run.environment.values().chain(run.command.iter().flatten()).chain(run.entrypoint.iter().flatten())
}

/// Who opens a database of the server and is not told the variable goes on unasked, whoever it logs in as.
pub(super) fn notes(release: &Release, held: &HeldDatabase) -> Vec<String> {
    let HeldDatabase::Password { change } = held else { return Vec::new() };
    // Services do not come as root.
    if change.role.as_text() == Some("root") {
        return Vec::new();
    }
    let told: BTreeSet<&ServiceName> = users(release, &change.variable).collect();
    let of_server = release.databases.values().filter(|database| {
        matches!(&database.engine, DatabaseEngine::Server { service: Some(of), .. } if *of == change.service)
    });
    let openers: BTreeSet<ServiceName> =
        of_server.flat_map(|database| super::databases::openers(release, database)).collect();
    let others: Vec<String> =
        openers.iter().filter(|name| !told.contains(name)).map(|name| format!("`{name}`")).collect();
    if others.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{} is not told {}, and is left alone: if it logs in as the same role by a value of its own, the server refuses it from now on",
        others.join(", "),
        change.variable
    )]
}

/// A line for each password that a release says otherwise than the server has it.
pub(super) fn unheeded(state: &HostState, release: &Release) -> Vec<String> {
    let there = state.instances.iter().filter(|found| found.role == Role::Backing && found.ours);
    let mut notes = Vec::new();
    for found in there {
        let Some(backing) = release.backing.get(&found.service) else { continue };
        let made = state.releases.iter().find(|record| record.release.id == found.release);
        let Some(made) = made.map(|record| &record.release) else { continue };
        if !keeps_data(backing) {
            continue;
        }
        let variables: BTreeSet<&VariableName> =
            told(backing).flat_map(|found| found.password.variables()).collect();
        let differs = |name: &&&VariableName| {
            let (then, now) = (made.variables.get(**name), release.variables.get(**name));
            then.is_some() && now.is_some() && then != now
        };
        notes.extend(variables.iter().filter(differs).map(|name| {
            format!(
                "{name} is another value than the server of backing service `{0}` has: its image reads it only where the volume is new, so \
                 whoever logs in with this value is refused; put the present value back, then `cutover secrets rotate {name}` changes both",
                found.service
            )
        }));
    }
    notes
}

/// Whether it has its data from earlier ones of it: in volumes, or a plain process in the host's own files.
pub(super) fn keeps_data(backing: &BackingRelease) -> bool {
    backing.content.runtime() == RuntimeKind::Process || !backing.settings.run.mounts.is_empty()
}
