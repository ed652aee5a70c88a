//! Building an image on this host, from a context that came. It is the client's build: whoever leaves meanwhile ends it, and nothing that serves
//! knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{RunId, ServiceName};
use cutover_core::state::FoundImage;
use cutover_core::wire::{BuildOrder, Reply};
use cutover_engine::{BaseImages, BuildCache, BuildError, BuildSpec, Context, Kind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::frames::Stop;
use super::serve::Session;
use super::ship::refuse_low;
use crate::ports::Runtime;
use crate::runtime::docker::DockerRuntime;
use crate::stages::room;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn build(&mut self, run: RunId, order: BuildOrder) -> Result<(), Stop> {
        let context = self.brought.parcels.as_ref().and_then(|parcels| parcels.context(&order.context));
        let context = context.ok_or_else(|| not_there(&order.service))?;
        // From here on nobody takes away what it is called, nor then what it is.
        self.lease(run, [order.tag.clone()], &BTreeSet::new()).await?;
        let docker = self.docker().await?;
        if let Some(folder) = docker.data_folder().await {
            let bytes = context.metadata().map_or(0, |found| found.len());
            refuse_low(room::refuse_low_for_build(&folder, bytes))?;
        }
        let found = self.build_told(&docker, &order, context).await?;
        self.lease(run, [found.id.clone()], &BTreeSet::new()).await?;
        let images = BTreeMap::from([(order.tag, found)]);
        Ok(self.outgoing.send(&Reply::Images { images }).await?)
    }

    /// Tells each line on the way; ends when the client leaves.
    async fn build_told(
        &mut self,
        docker: &DockerRuntime,
        order: &BuildOrder,
        context: Arc<File>,
    ) -> Result<FoundImage, Stop> {
        let spec = spec(order, context);
        let (tell, mut told) = mpsc::unbounded_channel();
        // Nobody hears it any more: then the build ends.
        let mut on_line = |line: &str| tell.send(line.to_owned()).unwrap_or_default();
        let work = docker.engine().build(&spec, &mut on_line);
        tokio::pin!(work);
        let built = loop {
            tokio::select! {
                // What was said before the end is told before it.
                biased;
                Some(what) = told.recv() => self.outgoing.send(&Reply::Doing { what }).await?,
                built = &mut work => break built,
                error = self.incoming.left() => return Err(error.into()),
            }
        };
        while let Ok(what) = told.try_recv() {
            self.outgoing.send(&Reply::Doing { what }).await?;
        }
        let built = built.map_err(|error| not_built(&order.service, &error))?;
        let found = docker.image(&built.id).await;
        let found = found.map_err(|error| Stop::from(crate::observe::no_engine(error.to_string())))?;
        Ok(found.ok_or_else(|| {
            Failure::new(Exit::Failed, format!("the image of `{}` is gone", order.service))
                .because("the host's container engine built it and has it no more")
                .next("deploy again")
        })?)
    }
}

fn spec(order: &BuildOrder, context: Arc<File>) -> BuildSpec {
    BuildSpec {
        context: Context::archive(context, &order.dockerfile),
        target: order.target.clone(),
        arguments: order.args.clone(),
        labels: order.labels.clone(),
        tag: Some(order.tag.clone()),
        platform: order.platform.clone(),
        cache: BuildCache::Use,
        bases: BaseImages::Here,
        network: None,
        logins: Vec::new(),
    }
}

fn not_built(service: &ServiceName, error: &BuildError) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("the image of `{service}` was not built on the host"));
    match error {
        BuildError::Failed { message, last_lines } => {
            let mut failure = failure.because(message).next(
                "mend the build; `docker build` shows the same, `build: { on: here }` builds on this machine",
            );
            failure.log.clone_from(last_lines);
            failure
        }
        BuildError::Context(error) => failure.because(error.to_string()).next("deploy again"),
        BuildError::Engine(error) => failure.because(error.to_string()).next(match error.kind {
            Kind::Unreachable => "see that the host's container engine is up",
            Kind::Full => "make room where the host's container engine keeps its images, then deploy again",
            _ => "mend the build; `docker build` shows the same",
        }),
    }
}

fn not_there(service: &ServiceName) -> Failure {
    Failure::new(Exit::Usage, format!("there is nothing to build the image of `{service}` from"))
        .because("its files did not come before")
        .next("speak with it by `cutover`, of the same version as this cutover-host")
}
