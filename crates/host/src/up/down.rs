//! `cutover-host down`: ends the supervisor, with it proxy and watch, and every plain process it kept. The next `up` brings them back as
//! after a reboot: what is live stays live.

use std::collections::BTreeMap;
use std::time::Duration;

use cutover_core::config::settings::StopSettings;
use cutover_core::journal::LockHolder;
use cutover_core::layout::{self, Layout};
use cutover_core::names::{AppId, InstanceName, RunId, ServiceName};
use cutover_core::plan::Verb;
use cutover_core::state::FoundInstance;
use futures_util::future::join_all;
use jiff::Timestamp;
use rustix::process::Signal;

use super::UpError;
use super::adopt::Other;
use crate::host::Host;
use crate::lock::{AppLock, ProcessLock};
use crate::ports::Runtime;
use crate::settle::until_put_away;
use crate::store::Store;

/// For `up` and its children to end in order.
const GRACE: Duration = Duration::from_mins(1);

/// What was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Down {
    /// Of `up`, `watch` and `proxy`, those that were there.
    pub processes: Vec<&'static str>,
    /// Instances.
    pub instances: Vec<(AppId, InstanceName)>,
}

/// Stops all. Nothing is stopped while a run changes an app.
///
/// # Errors
/// When an app is being changed, or something does not end.
pub async fn down(layout: &Layout, processes: &dyn Runtime) -> Result<Down, UpError> {
    let apps = apps(layout)?;
    let watch = ProcessLock::peek(layout, "watch");
    let store = Store::open(layout).ok();
    for app in &apps {
        if let Some(store) = &store {
            until_put_away(layout, store, app).await;
        }
        // What watch is at will end with it.
        if let Some(holder) = AppLock::peek(layout, app).filter(|holder| Some(holder.pid) != watch) {
            let by = format!("{} by {} since {}", holder.verb.as_str(), holder.by, holder.since);
            return Err(UpError::Busy { app: app.clone(), by });
        }
    }
    // Watch before the proxy, and both before instances: it would start them again.
    let mut stopped = Down { processes: end_supervisor(layout).await?, instances: Vec::new() };
    for app in apps {
        let _lock = AppLock::take(layout, &app, &holder(&app))?;
        stop_all(layout, processes, &app, &mut stopped).await?;
    }
    Ok(stopped)
}

/// Removes the network that apps share, once there is none of them any more. It costs nothing to keep: where that fails, it stays.
pub async fn remove_edge(host: &Host) {
    let Some(docker) = &host.docker else { return };
    if apps(&host.layout).map_or(true, |apps| !apps.is_empty()) {
        return;
    }
    if let Err(error) = docker.remove_network(&layout::edge_network(&host.installation.id)).await {
        tracing::warn!(%error, "the network of all apps stays");
    }
}

/// Ends the supervisor, watch and proxy, each in order; instances go on. Tells which of them were there.
///
/// # Errors
/// When one of them does not end.
pub async fn end_supervisor(layout: &Layout) -> Result<Vec<&'static str>, UpError> {
    // All are found first: who takes their place when the first of them has ended is not meant.
    let mut found = Vec::new();
    for process in ["up", "watch", "proxy"] {
        found.extend(Other::find(layout, process)?.map(|other| (process, other)));
    }
    for (process, other) in &found {
        if !other.end(GRACE).await {
            other.signal(Signal::KILL);
            let gone = tokio::time::timeout(Duration::from_secs(5), other.ended()).await;
            gone.map_err(|_| UpError::Stuck { process, pid: other.pid })?;
        }
    }
    Ok(found.into_iter().map(|(process, _)| process).collect())
}

/// Every app that has a folder here.
fn apps(layout: &Layout) -> Result<Vec<AppId>, UpError> {
    let mut apps = Vec::new();
    for app in names(&layout.state().join("apps"))? {
        for environment in names(&layout.state().join("apps").join(&app))? {
            apps.extend(format!("{app}/{environment}").parse::<AppId>().ok());
        }
    }
    Ok(apps)
}

fn names(folder: &std::path::Path) -> std::io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            let mut names: Vec<String> =
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort();
            Ok(names)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn holder(app: &AppId) -> LockHolder {
    LockHolder {
        app: app.clone(),
        run: RunId::new(uuid::Uuid::now_v7()),
        by: "cutover-host down".to_owned(),
        verb: Verb::Stop,
        since: Timestamp::now(),
        pid: std::process::id(),
    }
}

async fn stop_all(
    layout: &Layout,
    processes: &dyn Runtime,
    app: &AppId,
    stopped: &mut Down,
) -> Result<(), UpError> {
    let failed = |instance: String, error: &crate::ports::RuntimeError| UpError::Instance {
        app: app.clone(),
        instance,
        reason: error.message.clone(),
    };
    let found =
        processes.list(app).await.map_err(|error| failed("the list of instances".to_owned(), &error))?;
    let settings = stop_settings(layout, app);
    let running: Vec<FoundInstance> =
        found.into_iter().filter(|instance| instance.ours && may_run(instance)).collect();
    let stops = running.iter().map(|instance| async {
        let how = settings.get(&instance.service).cloned().unwrap_or_default();
        processes
            .stop(app, &instance.name, &how)
            .await
            .map_err(|error| failed(instance.name.to_string(), &error))
    });
    for outcome in join_all(stops).await {
        outcome?;
    }
    stopped.instances.extend(running.into_iter().map(|instance| (app.clone(), instance.name)));
    Ok(())
}

fn may_run(instance: &FoundInstance) -> bool {
    use cutover_core::state::InstanceState::{Created, Exited, Restarting, Running};
    match instance.state {
        Running { .. } | Restarting { .. } => true,
        Created | Exited { .. } => false,
    }
}

/// How each service is stopped, by the newest release that has it; a store that cannot be read costs only that.
fn stop_settings(layout: &Layout, app: &AppId) -> BTreeMap<ServiceName, StopSettings> {
    let releases = Store::open(layout).and_then(|store| store.releases(app)).unwrap_or_default();
    let services = releases.into_iter().flat_map(|record| {
        let services =
            record.release.services.into_iter().map(|(name, service)| (name, service.settings.run.stop));
        let backing =
            record.release.backing.into_iter().map(|(name, backing)| (name, backing.settings.run.stop));
        services.chain(backing).collect::<Vec<_>>()
    });
    services.collect()
}
