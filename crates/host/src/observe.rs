//! A look at the host, as one app in one environment sees it. Nothing is remembered, nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use async_trait::async_trait;
use cutover_core::config::settings::DatabaseEngine;
use cutover_core::env_file;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::{self, Layout};
use cutover_core::names::{AppId, DatabaseName, InstanceName, ReleaseId, RunId};
use cutover_core::plan::Verb;
use cutover_core::recover;
use cutover_core::release::{Live, RuntimeKind};
use cutover_core::state::{FoundDatabase, FoundInstance, FoundTable, HostState, ReleaseRecord};
use futures_util::future::try_join_all;
use jiff::Timestamp;

use crate::assignment::Assignment;
use crate::files;
use crate::host::{Host, needs_engine};
use crate::lock::AppLock;
use crate::ports::Runtime as _;
use crate::ports::RuntimeErrorKind;
use crate::runtime::process::artifact::Artifacts;
use crate::settle::Look;
use crate::store::StoreError;

/// How many verdicts a look brings.
const VERDICTS: u32 = 5;

/// Looks as a run does.
pub struct Eyes<'a> {
    /// At which installation.
    pub host: &'a Host,
    /// For whom.
    pub app: &'a AppId,
}

#[async_trait]
impl Look for Eyes<'_> {
    async fn look(&self) -> Result<HostState, Failure> {
        observe_again(self.host, self.app).await
    }

    async fn live(&self) -> Result<Option<Live>, Failure> {
        let table = self.host.ports.router.read().await.ok();
        live(self.host, self.app, table.as_ref())
    }
}

/// Looks at the host for an app, before a plan is made; `images` are those whose identity it wants to know.
///
/// # Errors
/// When a runtime that has instances of the app does not answer: an incomplete look is worse than none (S4a).
pub async fn observe(host: &Host, app: &AppId, images: &BTreeSet<String>) -> Result<HostState, Failure> {
    look(host, app, Some(images)).await
}

/// Looks at the host for an app whose plan is made. Without what only a plan is made from, which takes the most time: the engine itself, and the
/// addresses that are taken.
///
/// # Errors
/// As [`observe`].
pub async fn observe_again(host: &Host, app: &AppId) -> Result<HostState, Failure> {
    look(host, app, None).await
}

async fn look(host: &Host, app: &AppId, for_a_plan: Option<&BTreeSet<String>>) -> Result<HostState, Failure> {
    let unseen = |what: &str, why: String| {
        Failure::new(Exit::Failed, format!("{what} cannot be looked at"))
            .because(why)
            .while_serving("not known: what was serving goes on")
            .next("see that its file can be read, and that its disk is well; then try again")
    };
    let mut releases =
        host.store.releases(app).map_err(|error| unseen("the state database", error.to_string()))?;
    let needed = releases.iter().any(|record| needs_engine(&record.release));
    if needed && host.docker.is_none() {
        return Err(no_engine("none answers, and releases of this app have containers"));
    }
    let wants_images = for_a_plan.is_some_and(|images| !images.is_empty());
    let needs = if needed || wants_images { Needs::Engine } else { Needs::Nothing };
    let table = host.ports.router.read().await.ok();
    let planned_from = async {
        match for_a_plan {
            Some(images) => {
                let taken = taken(host, app, table.as_ref(), needs);
                let (engine, taken) = tokio::join!(engine(host, app, images, needs), taken);
                let (engine, found) = engine?;
                Ok((engine, found, taken?))
            }
            None => Ok((None, BTreeMap::new(), BTreeSet::new())),
        }
    };
    let (instances, planned_from) = tokio::join!(instances(host, app, needs), planned_from);
    let (mut instances, (engine, found_images, taken)) = (instances?, planned_from?);
    let unfinished =
        host.store.unfinished(app).map_err(|error| unseen("the state database", error.to_string()))?;
    if let (Some(run), Some(_)) = (unfinished, for_a_plan) {
        let going = put_away_first(host, run)
            .map_err(|error| unseen("the journal of the last run", error.to_string()))?;
        instances.retain(|found| !going.contains(&found.name));
        let tried = tried_only(host, run);
        releases.retain(|record| record.lived || !tried.contains(&record.release.id));
    }
    let env = env(host, app);
    let live = live(host, app, table.as_ref())?;
    Ok(HostState {
        app: app.clone(),
        installation: host.installation.id.clone(),
        salt: host.installation.salt.clone(),
        root: host.layout.state().display().to_string(),
        now: Timestamp::now(),
        databases: databases(host, app, live.as_ref(), &releases),
        written: if for_a_plan.is_some() { written(host, live.as_ref(), &releases) } else { BTreeMap::new() },
        live,
        table,
        instances,
        releases,
        variables: env.variables,
        placeholders: env.placeholders,
        env_file_problems: env.problems,
        env_file_mode: env.mode,
        artifacts: artifacts(host),
        images: found_images,
        engine,
        taken,
        ports: crate::host_file::of(&host.layout).ports.unwrap_or_default(),
        disk_free: files::free(host.layout.state()).map_err(|error| unseen("the disk", error.to_string()))?,
        unfinished,
        lock: AppLock::peek(&host.layout, app),
        verdicts: host
            .store
            .verdicts(app, VERDICTS)
            .map_err(|error| unseen("the state database", error.to_string()))?,
        listeners: crate::installation::http_listener_address(&host.layout).into_iter().collect(),
        remarks: remarks(&host.layout),
        leftovers: None,
        snapshots: None,
    })
}

/// What a run that told "done" and died has left to be removed: whoever carries a plan out settles that run first, so a plan that counts on these
/// would find another host.
fn put_away_first(host: &Host, run: RunId) -> Result<BTreeSet<InstanceName>, StoreError> {
    let entries = host.store.entries(run, 1)?;
    let leaving = if recover::told_done(&entries).is_some() { recover::leaving(&entries) } else { &[] };
    Ok(leaving.iter().map(|instance| instance.name.clone()).collect())
}

/// What a rehearsal that goes on has on record for itself: whoever plans meanwhile asks it to end, and would find that gone.
fn tried_only(host: &Host, run: RunId) -> Vec<ReleaseId> {
    let plan = Assignment::load(&host.layout, run).ok().map(|assignment| assignment.plan);
    plan.filter(|plan| plan.verb == Verb::MigrateRehearse).map(|plan| plan.record.forget).unwrap_or_default()
}

fn remarks(layout: &Layout) -> Vec<String> {
    let read_only = files::is_read_only(layout.state()).then(|| {
        format!(
            "the state of this host lies on a read-only file system ({}): what serves goes on, and nothing can be changed",
            layout.state().display()
        )
    });
    crate::store::untold(layout).into_iter().chain(read_only).collect()
}

/// Whether a look at an app is complete without the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Something of it is carried by the engine, or will be.
    Engine,
    /// An engine that is stopped or hangs is no affair of this app's.
    Nothing,
}

/// An engine that does not answer is not an empty engine (S4a).
pub(crate) fn no_engine(why: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, "the container engine does not answer")
        .because(why)
        .while_serving("what was serving goes on as far as its containers run")
        .next("start it (`systemctl start docker`), then run the command again")
}

async fn instances(host: &Host, app: &AppId, needs: Needs) -> Result<Vec<FoundInstance>, Failure> {
    let mut all = Vec::new();
    for runtime in host.ports.runtimes() {
        match runtime.list(app).await {
            Ok(found) => all.extend(found),
            Err(error) if runtime.kind() == RuntimeKind::Container && needs == Needs::Nothing => {
                tracing::warn!(%app, %error, "the engine is not looked at: nothing of the app is in it");
            }
            Err(error) if error.kind == RuntimeErrorKind::Unreachable => {
                return Err(no_engine(error.to_string()));
            }
            Err(error) => {
                return Err(Failure::new(Exit::Failed, "the instances on this host cannot be seen")
                    .because(error.to_string())
                    .next("see that the engine answers, then try again"));
            }
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// What is live: the facts in the table, else the live file. A proxy that does not answer is no reason to think that nothing is live: its
/// table lies on the disk.
///
/// # Errors
/// When neither a proxy answers nor a table can be read, or the live file is none.
pub fn live(host: &Host, app: &AppId, table: Option<&FoundTable>) -> Result<Option<Live>, Failure> {
    match table.map(|found| live_in(&found.table, app)) {
        None => live_on_disk(&host.layout, app),
        Some(None) => live_file(&host.layout, app),
        Some(routed) => Ok(routed),
    }
}

/// The same, as it is on the disk.
pub(crate) fn live_on_disk(layout: &Layout, app: &AppId) -> Result<Option<Live>, Failure> {
    let routed = live_in_table_on_disk(layout, app)?;
    if routed.is_some() { Ok(routed) } else { live_file(layout, app) }
}

fn live_in(table: &cutover_routes::RouteTable, app: &AppId) -> Option<Live> {
    table.owners.get(&app.owner()).and_then(|entry| Live::from_facts(&entry.facts))
}

/// What the table says that a proxy would serve once it starts: the table itself, else its copy.
///
/// # Errors
/// When there is one, and neither can be read.
pub(crate) fn live_in_table_on_disk(layout: &Layout, app: &AppId) -> Result<Option<Live>, Failure> {
    let files = ["table.json", "table.previous.json"].map(|name| layout.proxy().join(name));
    let mut is_there = false;
    for file in &files {
        match std::fs::read(file) {
            Ok(bytes) => {
                // The proxy puts a checksum in the first line.
                let text = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
                if let Ok(table) = cutover_routes::RouteTable::from_json(text) {
                    return Ok(live_in(&table, app));
                }
                is_there = true;
            }
            Err(error) => is_there |= error.kind() != std::io::ErrorKind::NotFound,
        }
    }
    if !is_there {
        return Ok(None);
    }
    let [table, copy] = files.map(|file| file.display().to_string());
    Err(Failure::new(Exit::Failed, "it is not known what is live")
        .because(format!("no proxy answers, and neither {table} nor {copy} holds a route table"))
        .while_serving("instances run on; no request reaches them, since a proxy does not start without a table")
        .next("put a good copy of one of the two back, if there is one: the proxy starts by itself, and all is as it was")
        .next("else remove both, and deploy each app of this host again"))
}

/// What the live file says; an app with routes has none.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn live_file(layout: &Layout, app: &AppId) -> Result<Option<Live>, Failure> {
    let path = layout.live_file(app);
    let unknown = |why: String| {
        Failure::new(Exit::Failed, "it is not known what is live")
            .because(format!("{}: {why}", path.display()))
            .while_serving("not known: what ran goes on")
            .next("put a good copy of that file back; without one, remove it and deploy again")
    };
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| unknown(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unknown(error.to_string())),
    }
}

/// The host's env file, without its values.
#[derive(Default)]
struct Env {
    variables: Option<BTreeMap<cutover_core::names::VariableName, cutover_core::hash::ContentHash>>,
    placeholders: BTreeSet<cutover_core::names::VariableName>,
    /// One that cannot be read keeps a deploy from going on, and nobody from seeing what serves.
    problems: Vec<String>,
    mode: Option<u32>,
}

fn env(host: &Host, app: &AppId) -> Env {
    use std::os::unix::fs::PermissionsExt;
    let path = host.layout.env_file(app);
    let mode = std::fs::metadata(&path).ok().map(|metadata| metadata.permissions().mode() & 0o7777);
    let bad = |problems: Vec<String>| {
        let problems = problems.into_iter().map(|problem| format!("{}: {problem}", path.display()));
        Env { problems: problems.collect(), mode, ..Env::default() }
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Env::default(),
        Err(error) => return bad(vec![error.to_string()]),
    };
    let secrets = match env_file::parse(&text) {
        Ok(secrets) => secrets,
        Err(errors) => return bad(errors.iter().map(ToString::to_string).collect()),
    };
    let placeholders = secrets
        .iter()
        .filter(|(_, value)| env_file::is_placeholder(value.expose()))
        .map(|(name, _)| name.clone());
    Env {
        variables: Some(secrets.fingerprints(&host.installation.salt)),
        placeholders: placeholders.collect(),
        problems: Vec::new(),
        mode,
    }
}

fn artifacts(host: &Host) -> BTreeSet<cutover_core::hash::ContentHash> {
    let entries = std::fs::read_dir(host.layout.artifacts()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| cutover_core::hash::ContentHash::from_hex(entry.file_name().to_str()?))
        .collect()
}

/// What is in the artifacts of the live release and did not come with them.
fn written(
    host: &Host,
    live: Option<&Live>,
    releases: &[ReleaseRecord],
) -> BTreeMap<cutover_core::hash::ContentHash, BTreeSet<String>> {
    let live = live.and_then(|live| releases.iter().find(|record| record.release.id == live.release));
    let store = Artifacts::new(host.layout.clone());
    let artifacts = live.into_iter().flat_map(|record| record.release.artifacts());
    let found = artifacts.map(|hash| (hash.clone(), store.written(&hash)));
    found.filter(|(_, names)| !names.is_empty()).collect()
}

type Engine = (Option<cutover_core::state::FoundEngine>, BTreeMap<String, cutover_core::state::FoundImage>);

async fn engine(
    host: &Host,
    app: &AppId,
    images: &BTreeSet<String>,
    needs: Needs,
) -> Result<Engine, Failure> {
    let Some(docker) = &host.docker else { return Ok((None, BTreeMap::new())) };
    let silent = |error: crate::ports::RuntimeError| no_engine(error.to_string());
    let each = images.iter().map(async |reference| Ok((reference.clone(), docker.image(reference).await?)));
    // What an engine tells of itself takes it 10 ms; meanwhile it answers others.
    let (facts, looked_up) = tokio::join!(docker.facts(app), try_join_all(each));
    let facts = match facts {
        Ok(facts) => facts,
        Err(_) if needs == Needs::Nothing => return Ok((None, BTreeMap::new())),
        Err(error) => return Err(silent(error)),
    };
    let found = looked_up.map_err(silent)?.into_iter();
    Ok((Some(facts), found.filter_map(|(reference, image)| Some((reference, image?))).collect()))
}

/// Addresses that anything of ours on this host has: targets of the table, and instances of every app, running or not (S29); and loopback
/// ports that anybody listens on.
async fn taken(
    host: &Host,
    app: &AppId,
    table: Option<&FoundTable>,
    needs: Needs,
) -> Result<BTreeSet<SocketAddr>, Failure> {
    let targets = table.into_iter().flat_map(|found| found.table.targets());
    let mut taken: BTreeSet<SocketAddr> = targets
        .filter_map(|(_, target)| {
            if let cutover_routes::Address::Tcp(address) = target.address { Some(address) } else { None }
        })
        .collect();
    let apps = host.store.apps().map_err(|error| {
        Failure::new(Exit::Failed, "the state database cannot be read").because(error.to_string())
    })?;
    for other in apps.iter().filter(|other| *other != app) {
        taken.extend(instances(host, other, needs).await?.into_iter().filter_map(|found| found.address));
    }
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    taken.extend(crate::listening::ports().into_iter().map(loopback));
    Ok(taken)
}

/// SQLite databases of the live release that lie in folders; those in an engine's volumes are measured by their stage.
fn databases(
    host: &Host,
    app: &AppId,
    live: Option<&Live>,
    releases: &[ReleaseRecord],
) -> BTreeMap<DatabaseName, FoundDatabase> {
    let release = live
        .and_then(|live| releases.iter().find(|record| record.release.id == live.release))
        .map(|record| &record.release);
    let databases = release.into_iter().flat_map(|release| &release.databases);
    let root = host.layout.state().display().to_string();
    databases
        .filter_map(|(name, database)| {
            let DatabaseEngine::Sqlite { volume, file, .. } = &database.engine else { return None };
            let path = format!("{}/{file}", layout::volume_folder(&root, app, volume));
            let bytes = |suffix: &str| {
                std::fs::metadata(format!("{path}{suffix}")).map(|metadata| metadata.len()).ok()
            };
            let found = FoundDatabase {
                exists: bytes("").is_some(),
                bytes: bytes("").unwrap_or_default() + bytes("-wal").unwrap_or_default(),
                path: path.clone(),
            };
            Some((name.clone(), found))
        })
        .collect()
}
