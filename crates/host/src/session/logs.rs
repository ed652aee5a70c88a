//! Log lines of an app's instances, oldest first, without the values of its env files; then those that come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, InstanceName, ReleaseId, ServiceName};
use cutover_core::release::{Live, Release};
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
        let mut scene = Scene::look(&host, app).await?;
        wanted.must_be_known(app, &scene)?;
        loop {
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
            scene = Scene::look(&host, app).await?;
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
    /// Of all releases on record.
    services: BTreeSet<ServiceName>,
    instances: Vec<FoundInstance>,
}

impl Scene {
    async fn look(host: &Host, app: &AppId) -> Result<Self, Failure> {
        let table = host.ports.router.read().await.ok();
        let live = live(host, app, table.as_ref())?;
        let records = host.store.releases(app).map_err(serve::unreadable)?;
        let declared = |release: &Release| {
            release.services.keys().chain(release.backing.keys()).cloned().collect::<Vec<_>>()
        };
        let mut services: BTreeSet<_> = records.iter().flat_map(|record| declared(&record.release)).collect();
        let order = records.into_iter().map(|record| (record.release.id, record.sequence)).collect();
        let mut instances = Vec::new();
        for runtime in host.ports.runtimes() {
            instances.extend(runtime.list(app).await.map_err(|error| unreadable(&error))?);
        }
        services.extend(instances.iter().map(|found| found.service.clone()));
        Ok(Self { live, order, services, instances })
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

    /// A name that is wrong has no lines either, which would look as if there were nothing to be seen.
    fn must_be_known(&self, app: &AppId, scene: &Scene) -> Result<(), Failure> {
        let unknown: Vec<_> = self.services.difference(&scene.services).map(ToString::to_string).collect();
        if !unknown.is_empty() {
            let known: Vec<_> = scene.services.iter().map(ToString::to_string).collect();
            return Err(Failure::new(Exit::Usage, format!("{app} has no service {}", unknown.join(", ")))
                .because(match known.as_slice() {
                    [] => "nothing of it is on this host".to_owned(),
                    known => format!("on this host it has: {}", known.join(", ")),
                })
                .next("name one of its services, or none for all of them"));
        }
        match &self.release {
            Some(release)
                if !scene.order.contains_key(release)
                    && scene.instances.iter().all(|found| found.release != *release) =>
            {
                Err(Failure::new(Exit::Usage, format!("release {release} is not on record here"))
                    .next("`cutover releases` lists those that were live"))
            }
            _ => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_and_what_is_silent_is_not() {
        let app: AppId = "shop/local".parse().unwrap();
        let scene = Scene {
            live: None,
            order: BTreeMap::from([("v1".parse().unwrap(), 1)]),
            services: ["web", "bot"].map(|name| name.parse().unwrap()).into(),
            instances: Vec::new(),
        };
        let asked = |services: &[&str], release: Option<&str>| {
            let services = services.iter().map(|name| name.parse().unwrap()).collect();
            let release = release.map(|release| release.parse().unwrap());
            Wanted { services, release, since: None, tail: None }.must_be_known(&app, &scene)
        };
        asked(&[], None).unwrap();
        asked(&["web", "bot"], Some("v1")).unwrap();
        let told = asked(&["web", "nosuch"], None).unwrap_err();
        assert_eq!((told.exit, told.what.as_str()), (Exit::Usage, "shop/local has no service nosuch"));
        assert_eq!(told.cause, ["on this host it has: bot, web"]);
        let told = asked(&["web"], Some("nosuch")).unwrap_err();
        assert_eq!((told.exit, told.what.as_str()), (Exit::Usage, "release nosuch is not on record here"));
    }
}
