//! Databases: where each lies, and how it is migrated.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::mounts;
use super::problem::{Draft, ProblemKind};
use super::read::At;
use super::run::{self, Context};
use super::service::within;
use super::settings::{
    Command, Compatible, Database, DatabaseEngine, Migrate, Mount, OneOff, ServerKind, Service,
    SnapshotPolicy, Source,
};
use super::value;
use crate::defaults;
use crate::names::{DatabaseName, ServiceName};
use crate::template::Template;

/// Reads one database. `None` when it cannot be told where it lies: then that is among the problems.
pub(crate) fn database(
    name: &DatabaseName,
    at: &At<'_>,
    root: &At<'_>,
    services: &BTreeMap<ServiceName, Service>,
    context: &mut Context<'_>,
) -> Option<Database> {
    let Some(engine) = at.string("engine") else {
        if at.get("engine").is_none() {
            let draft =
                at.problem(ProblemKind::Missing, format!("database `{name}` does not say its `engine`"));
            context.issues.add(draft.allowed("", ["sqlite", "postgres", "mysql", "mariadb"]));
        }
        return None;
    };
    let migrating = at.get("migrate").map(|migrate| migrate.one_or_more()).unwrap_or_default();
    let of_file = engine == "sqlite";
    let migrate = migrating.iter().enumerate().filter_map(|(index, at)| {
        let name =
            if index == 0 { format!("migrate-{name}") } else { format!("migrate-{name}-{}", index + 1) };
        migrate(&name, at, (!of_file).then_some(root), context)
    });
    let migrate = migrate.collect();
    let engine = match engine.as_str() {
        "sqlite" => sqlite(name, at, context),
        "mysql" => server(ServerKind::Mysql, at, context),
        "mariadb" => server(ServerKind::Mariadb, at, context),
        _ => server(ServerKind::Postgres, at, context),
    };
    let (snapshot, keep) = snapshot(at, context);
    let database = Database { engine: engine?, migrate, snapshot, keep };
    for (migrate, at) in database.migrate.iter().zip(&migrating) {
        refuse_blind_migration(name, at, &database, migrate, services, context);
    }
    Some(database)
}

/// Whether one is taken before a migration, and how long it stays.
fn snapshot(at: &At<'_>, context: &mut Context<'_>) -> (SnapshotPolicy, Option<Duration>) {
    match at.get("snapshot") {
        None => (SnapshotPolicy::BeforeMigration, None),
        Some(given) if given.text().is_some() => (SnapshotPolicy::None, None),
        Some(given) => {
            let keep = given.get("keep");
            if keep.is_none() && !context.issues.has_at(&given.path) {
                let draft = given.problem(ProblemKind::Missing, "`snapshot` does not say which of them stay");
                context.issues.add(draft.remedy("snapshot: { keep: 7d }"));
            }
            (SnapshotPolicy::BeforeMigration, keep.and_then(|keep| kept(keep.text()?).ok()))
        }
    }
}

/// Reads how long snapshots stay.
pub(crate) fn kept(text: &str) -> Result<Duration, String> {
    let time = value::duration(text)?;
    let fits = (defaults::SNAPSHOT_KEEP_LEAST..=defaults::SNAPSHOT_KEEP_MOST).contains(&time);
    if fits { Ok(time) } else { Err(format!("`{text}` is not from 1h to 365d")) }
}

fn sqlite(name: &DatabaseName, at: &At<'_>, context: &mut Context<'_>) -> Option<DatabaseEngine> {
    for key in ["service", "url", "name"] {
        if at.get(key).is_some() {
            let what =
                format!("`{key}` is for engines with a server; SQLite takes `volume`, `file` and `services`");
            let draft = Draft::new(ProblemKind::Conflict, at.place(key), &at.path, what);
            context.issues.add(draft);
        }
    }
    let migrating = at.get("migrate").map(|migrate| migrate.one_or_more()).unwrap_or_default();
    for pending in migrating.iter().filter_map(|migrate| migrate.get("pending")) {
        let what = "what is pending for SQLite is told by a rehearsal on a copy";
        context.issues.add(pending.problem(ProblemKind::Conflict, what).remedy("leave `pending` out"));
    }
    let missing: Vec<&str> =
        ["volume", "file", "services"].into_iter().filter(|key| at.get(key).is_none()).collect();
    if !missing.is_empty() {
        if !context.issues.has_at(&at.path) {
            let what = format!("SQLite database `{name}` needs `{}`", missing.join("`, `"));
            let draft = at.problem(ProblemKind::Missing, what);
            context.issues.add(draft.remedy(format!(
                "{name}: {{ engine: sqlite, volume: data, file: {name}.db, services: [web] }}"
            )));
        }
        return None;
    }
    let volume = at.get("volume")?;
    let volume = match volume.text()?.parse::<crate::names::VolumeName>() {
        Ok(name) => name,
        Err(error) => {
            context.issues.add(volume.problem(ProblemKind::Value, error.to_string()));
            return None;
        }
    };
    context.volumes.insert(volume.clone());
    let services = services(at, context);
    let listed = at.get("services")?;
    if services.is_empty() && listed.node.items().is_empty() {
        let draft = listed.problem(ProblemKind::Missing, format!("no service opens database `{name}`"));
        context
            .issues
            .add(draft.remedy("name every service that opens the file: they are handed over together"));
    }
    Some(DatabaseEngine::Sqlite { volume, file: run::folder(&at.string("file")?), services })
}

fn server(kind: ServerKind, at: &At<'_>, context: &mut Context<'_>) -> Option<DatabaseEngine> {
    let engine = kind.as_str();
    for key in ["volume", "file"] {
        if at.get(key).is_some() {
            let what = format!("`{key}` is for SQLite; {engine} takes the backing `service`, or a `url`");
            context.issues.add(Draft::new(ProblemKind::Conflict, at.place(key), &at.path, what));
        }
    }
    let services = services(at, context);
    let Some(service) = at.get("service") else {
        if at.get("url").is_none() && !context.issues.has_at(&at.path) {
            let draft = at.problem(
                ProblemKind::Missing,
                "where the database lies is not said: the backing `service`, or a `url`",
            );
            context.issues.add(draft.near("", []).remedy(format!("service: {engine}")));
        }
        return Some(DatabaseEngine::Server {
            kind,
            service: None,
            url: url(kind, at, context),
            name: None,
            services,
        });
    };
    if let Some(url) = at.get("url") {
        let draft = url.problem(ProblemKind::Conflict, "the database has both a `service` and a `url`");
        context.issues.add(draft.remedy("`service` for a backing service (with `name`, where it has several databases), `url` for a server elsewhere"));
    }
    let backing = service.text()?;
    if !context.backing.contains(backing) {
        let draft =
            service.problem(ProblemKind::Reference, format!("there is no backing service `{backing}`"));
        context.issues.add(draft.allowed(backing, context.backing.iter().map(String::as_str)));
        return None;
    }
    let name = at.string("name");
    Some(DatabaseEngine::Server { kind, service: backing.parse().ok(), url: None, name, services })
}

/// Where a server outside is reached. What stands in the file is known to all who can read it, so no password may.
fn url(kind: ServerKind, at: &At<'_>, context: &mut Context<'_>) -> Option<Template> {
    let at = at.get("url")?;
    let url = at.template()?;
    let scheme = url.as_text().and_then(|text| Some(text.split_once("://")?.0));
    if scheme.is_some_and(|scheme| !kind.has_scheme(scheme)) {
        let what = format!("the url is of another engine than `{}`", kind.as_str());
        let example = if kind == ServerKind::Postgres { "postgres" } else { "mysql" };
        let draft = at.problem(ProblemKind::Conflict, what);
        context.issues.add(draft.remedy(format!("{example}://user@host/name, or another `engine`")));
    }
    let says_password = url.as_text().is_some_and(|text| {
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let login = authority.split('/').next().unwrap_or_default().rsplit_once('@');
        login.is_some_and(|(login, _)| login.contains(':'))
    });
    if says_password {
        let draft = at.problem(ProblemKind::Refused, "a password is written in the file");
        context.issues.add(draft.remedy("put it into the env file, and refer to it: `url: ${DATABASE_URL}`"));
    }
    Some(url)
}

/// One of the migrations. An image of its own is called `name`; `root` is the whole file, `None` where there may be no such image.
fn migrate(name: &str, at: &At<'_>, root: Option<&At<'_>>, context: &mut Context<'_>) -> Option<Migrate> {
    let image = at.get("image");
    let is_whole = (at.get("service").is_some() || image.is_some()) && at.get("command").is_some();
    if !is_whole && !context.issues.has_at(&at.path) {
        let missing = if at.get("command").is_none() { "`command`" } else { "`service`, or an `image`" };
        let draft = at.problem(ProblemKind::Missing, format!("a migration needs {missing}"));
        context.issues.add(draft.remedy("migrate: { service: web, command: ./app migrate }"));
    }
    let service = if let Some(image) = image {
        own_image(name, at, &image, root, context)?
    } else {
        for (key, given) in
            ["files", "environment", "entrypoint"].into_iter().filter_map(|key| Some((key, at.get(key)?)))
        {
            let what = format!("`{key}` goes with an `image` of the migration's own");
            let draft = given.problem(ProblemKind::Conflict, what);
            context.issues.add(draft.remedy("say it of the service; or name the `image` it is for"));
        }
        service_named(&at.get("service")?, context)?
    };
    let compatible = match at.string("compatible").as_deref() {
        Some("expand") => Compatible::Expand,
        Some("breaking") => Compatible::Breaking,
        _ => Compatible::Undeclared,
    };
    Some(Migrate {
        service,
        command: at.command("command")?,
        pending: at.command("pending"),
        timeout: timeout(at, context),
        compatible,
        down: at.command("down"),
    })
}

/// An image that is there for a migration alone.
fn own_image(
    name: &str,
    at: &At<'_>,
    image: &At<'_>,
    root: Option<&At<'_>>,
    context: &mut Context<'_>,
) -> Option<ServiceName> {
    let Some(root) = root else {
        let what = "a file of SQLite is migrated by a service that opens it, not by an `image` of its own";
        let draft = image.problem(ProblemKind::Refused, what);
        context.issues.add(draft.remedy("`service: web`, one of those that mount the file's volume"));
        return None;
    };
    if let Some(service) = at.get("service") {
        let what = "`service` and `image` are both given: a migration runs in one of them";
        let draft = service.problem(ProblemKind::Conflict, what);
        context.issues.add(draft.also(image.node.span));
    }
    if context.services.contains(name) || context.backing.contains(name) {
        let what = format!("the migration's own image is called `{name}`, and so is a service");
        let draft = image.problem(ProblemKind::Conflict, what);
        context.issues.add(draft.remedy("call the service something else"));
        return None;
    }
    if context.one_offs.keys().any(|other| other.as_str() == name) {
        let what =
            format!("the migration's own image is called `{name}`, and so is that of another database");
        let draft = image.problem(ProblemKind::Conflict, what);
        context.issues.add(draft.remedy("call one of the databases something else"));
        return None;
    }
    let source = run::source(at, name, &mut context.issues)?;
    if let Source::Image { reference } = &source {
        run::note_floating(at, reference, &mut context.issues);
    }
    let shared = root.get("environment");
    let mut settings = run::run(at, shared.as_ref(), false, context);
    let files = at.get("files").map(|files| files.one_or_more()).unwrap_or_default();
    settings.mounts = files.iter().filter_map(|at| mounts::shipped(at, context)).collect();
    let mut targets = BTreeSet::new();
    for (at, mount) in files.iter().zip(&settings.mounts) {
        let Mount::Shipped { target, .. } = mount else { continue };
        if !targets.insert(target.clone()) {
            let draft =
                at.problem(ProblemKind::Conflict, format!("two of the `files` are found at `{target}`"));
            context.issues.add(draft.remedy("say another place of one of them: `./shop/migrations:/shop`"));
        }
    }
    // Each command is handed over when it is run.
    settings.command = None;
    let name: ServiceName = match name.parse() {
        Ok(name) => name,
        Err(error) => {
            context.issues.add(image.problem(ProblemKind::Value, format!("`{name}`: {error}")));
            return None;
        }
    };
    context.one_offs.insert(name.clone(), OneOff { source, run: settings });
    Some(name)
}

fn timeout(at: &At<'_>, context: &mut Context<'_>) -> Duration {
    let (Some(given), Some(timeout)) = (at.get("timeout"), at.duration("timeout")) else {
        return defaults::MIGRATE;
    };
    let (least, most) = (Duration::from_secs(1), Duration::from_hours(24));
    within(&given, "a migration", timeout, least, most, &mut context.issues);
    timeout
}

/// The services that open a database, each once.
fn services(at: &At<'_>, context: &mut Context<'_>) -> Vec<ServiceName> {
    let mut services: Vec<ServiceName> = Vec::new();
    let Some(listed) = at.get("services") else { return services };
    for item in listed.items() {
        let named = service_named(&item, context);
        services.extend(named.filter(|name| !services.contains(name)));
    }
    services
}

/// A service of this app, by what stands there.
fn service_named(at: &At<'_>, context: &mut Context<'_>) -> Option<ServiceName> {
    let name = at.text()?;
    if context.services.contains(name) {
        return name.parse().ok();
    }
    let draft = at.problem(ProblemKind::Reference, format!("there is no service `{name}`"));
    context.issues.add(draft.allowed(name, context.services.iter().map(String::as_str)));
    None
}

/// A plain process rehearses on a copy elsewhere: its migration must take the path it is told (S16).
fn refuse_blind_migration(
    name: &DatabaseName,
    at: &At<'_>,
    database: &Database,
    migrate: &Migrate,
    services: &BTreeMap<ServiceName, Service>,
    context: &mut Context<'_>,
) {
    let DatabaseEngine::Sqlite { .. } = database.engine else { return };
    let Some(service) = services.get(&migrate.service) else { return };
    if !matches!(service.source, Source::Artifact { .. }) {
        return;
    }
    let is_told = |text: &Template| text.databases().contains(name);
    let by_words = |command: &Command| command.iter().any(is_told);
    let told = service.run.environment.values().any(is_told)
        || by_words(&migrate.command) && migrate.down.as_ref().is_none_or(by_words);
    if !told {
        let what = format!(
            "the migration does not use `${{databases.{name}.file}}`, so it cannot be rehearsed on a copy"
        );
        let draft = at.problem(ProblemKind::Refused, what);
        context.issues.add(draft.remedy(format!(
            "in `services.{}.environment`: `DATABASE_FILE: ${{databases.{name}.file}}`, or as a word of the command",
            migrate.service
        )));
    }
}
