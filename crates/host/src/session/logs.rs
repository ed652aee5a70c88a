//! Log lines of an app's instances, oldest first, without the values of its env files; then those that come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, InstanceName, ReleaseId, ServiceName};
use cutover_core::release::Live;
use cutover_core::secret::Secrets;
use cutover_core::state::{FoundInstance, Role};
use cutover_core::wire::Reply;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::{self, Session};
use crate::host::Host;
use crate::observe::live;
use crate::ports::{LogLine, RuntimeError, Scope};
use crate::redact;
use crate::tail::Tail;

/// Between two looks for new lines.
const AGAIN: Duration = Duration::from_millis(250);
/// Lines of the past shown for each instance when nobody says how many.
const TAIL: usize = 100;

/// Whose lines, and which.
pub(super) struct Wanted {
    pub(super) services: BTreeSet<ServiceName>,
    pub(super) release: Option<ReleaseId>,
    pub(super) since: Option<Timestamp>,
    pub(super) tail: Option<u32>,
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn logs(&mut self, app: &AppId, wanted: Wanted, follow: bool) -> Result<(), Stop> {
        let host = self.host().await?;
        let mut tails: BTreeMap<InstanceName, Tail> = BTreeMap::new();
        loop {
            let scene = Scene::look(&host, app).await?;
            let shown: Vec<_> = scene.instances.iter().filter(|found| wanted.has(&scene, found)).collect();
            let values = redact::values(&self.layout, app, shown.iter().map(|found| &found.release));
            let mut lines = Vec::new();
            for found in shown {
                let tail = tails.entry(found.name.clone()).or_insert_with(|| wanted.tail());
                let runtime = host.ports.runtime(found.runtime).map_err(|error| unreadable(&error))?;
                let reading = tail.read(runtime.as_ref(), app, &found.name);
                let new = tokio::select! {
                    new = reading => new,
                    // Whoever follows may go while the engine hangs.
                    error = self.incoming.left(), if follow => return Err(error.into()),
                };
                lines.extend(
                    new.map_err(|error| unreadable(&error))?.into_iter().map(|line| (&found.name, line)),
                );
            }
            // Stable: lines of one instance stay in their order, also those without a time.
            lines.sort_by_key(|(_, line)| line.at);
            for (instance, line) in lines {
                self.line(instance, line, &values).await?;
            }
            if !follow {
                return Ok(self.outgoing.send(&Reply::Done).await?);
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                error = self.incoming.left() => return Err(error.into()),
            }
        }
    }

    async fn line(&mut self, instance: &InstanceName, line: LogLine, values: &[Secrets]) -> Result<(), Stop> {
        let text = redact::redact(values, &line.text);
        let reply = Reply::Line { instance: instance.clone(), at: line.at, error: line.error, text };
        Ok(self.outgoing.send(&reply).await?)
    }
}

fn unreadable(error: &RuntimeError) -> Failure {
    Failure::new(Exit::Failed, "the logs cannot be read").because(error.to_string())
}

/// What a look for lines needs of the host: less than a plan, since it is taken again and again.
struct Scene {
    live: Option<Live>,
    /// By release: its place in the order.
    order: BTreeMap<ReleaseId, u64>,
    instances: Vec<FoundInstance>,
}

impl Scene {
    async fn look(host: &Host, app: &AppId) -> Result<Self, Failure> {
        let table = host.ports.router.read().await.ok();
        let live = live(host, app, table.as_ref())?;
        let records = host.store.releases(app).map_err(serve::unreadable)?;
        let order = records.into_iter().map(|record| (record.release.id, record.sequence)).collect();
        let mut instances = Vec::new();
        for runtime in host.ports.runtimes() {
            instances.extend(runtime.list(app).await.map_err(|error| unreadable(&error))?);
        }
        Ok(Self { live, order, instances })
    }

    /// What is live, and what is newer.
    fn has_current(&self, found: &FoundInstance) -> bool {
        let Some(live) = &self.live else { return true };
        live.has(&found.name)
            || found.role == Role::Backing
            || self.order.get(&found.release) > self.order.get(&live.release)
    }
}

impl Wanted {
    fn tail(&self) -> Tail {
        let tail = self.tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
        Tail::new(self.since, tail.or(self.since.is_none().then_some(TAIL)), Scope::All)
    }

    /// Without a release: what is live and what is newer, candidates that failed among them; with one: that.
    fn has(&self, scene: &Scene, found: &FoundInstance) -> bool {
        let wanted = self.services.is_empty() || self.services.contains(&found.service);
        let of_release = match &self.release {
            Some(release) => found.release == *release,
            None => scene.has_current(found),
        };
        wanted && of_release && found.ours && found.role != Role::OneOff
    }
}
