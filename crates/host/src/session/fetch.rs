//! Fetching images for a client that plans: before the plan, since only an image that is here can be told from another.

use std::collections::BTreeMap;

use cutover_core::config::settings::Registry;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::AppId;
use cutover_core::release::RuntimeKind;
use cutover_core::secret::Secrets;
use cutover_core::state::FoundImage;
use cutover_core::wire::Reply;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::environment;
use super::frames::Stop;
use super::serve::Session;
use crate::images::Fetcher;

/// What is wanted.
pub(super) struct Asked {
    pub(super) images: BTreeMap<String, Option<String>>,
    pub(super) registry: Option<Registry>,
}

/// Words on their way to the client; what comes while it does not listen is left out.
const UNDER_WAY: usize = 8;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn fetch(&mut self, app: &AppId, asked: Asked, env: u64) -> Result<(), Stop> {
        let sent = self.sent_env(env).await?;
        let host = self.host().await?;
        let values = environment::read(&self.layout, app)?.overlaid(&sent?);
        let runtime = host.ports.runtime(RuntimeKind::Container).map_err(|error| {
            Failure::new(Exit::Refused, "no container engine answers on this host")
                .because(error.to_string())
                .next("start it (`systemctl start docker`), or install it; then do the same again")
        })?;
        let fetcher =
            Fetcher { runtime: runtime.as_ref(), registry: asked.registry.as_ref(), values: &values };
        let mut images = BTreeMap::new();
        for (reference, platform) in &asked.images {
            // Where it cannot be told, nobody takes it away for having been absent.
            let was_absent = matches!(runtime.image(reference).await, Ok(None));
            let found = self.fetch_one(&fetcher, reference, platform.as_deref(), &values).await?;
            if was_absent {
                self.brought.fetched.insert(reference.clone());
            }
            images.insert(reference.clone(), found);
        }
        Ok(self.outgoing.send(&Reply::Images { images }).await?)
    }

    /// Tells on the way; ends when the client leaves.
    async fn fetch_one(
        &mut self,
        fetcher: &Fetcher<'_>,
        reference: &str,
        platform: Option<&str>,
        values: &Secrets,
    ) -> Result<FoundImage, Stop> {
        let (tell, mut told) = mpsc::channel(UNDER_WAY);
        let mut doing = |words: &str| {
            tell.try_send(values.redact(words)).unwrap_or_default();
        };
        let work = fetcher.fetch(reference, platform, &mut doing);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done?),
                Some(words) = told.recv() => {
                    let what = format!("{reference} {words}");
                    self.outgoing.send(&Reply::Doing { what }).await?;
                }
                error = self.incoming.left() => return Err(error.into()),
            }
        }
    }
}
