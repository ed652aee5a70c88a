//! A conversation: ask after ask, each answered before the next is read.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::wire::{Ask, Progress, Reply, Through, WIRE_VERSION};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::{Frame, Incoming, Outgoing, Stop};
use super::hear::{Silence, hear};
use super::ship::Brought;
use crate::host::Host;
use crate::journal::Trouble;
use crate::leftovers::{Going, Place};
use crate::lock::AppLock;
use crate::observe::{observe, observe_again};
use crate::settle::until_put_away;
use crate::store::StoreError;
use crate::up::{self, UpError};

/// Verdicts that one answer brings at most.
const MOST_VERDICTS: u32 = 1_000;
/// Bytes that were heard and are not yet read.
const HEARD: usize = 256 * 1024;

/// One conversation.
pub(super) struct Session<R, W> {
    pub(super) layout: Layout,
    pub(super) incoming: Incoming<R>,
    pub(super) outgoing: Outgoing<W>,
    host: Option<Arc<Host>>,
    greeted: bool,
    /// The client understands how far something is.
    hears_progress: bool,
    pub(super) brought: Brought,
    silence: Silence,
}

/// Converses until the client leaves.
///
/// # Errors
/// When the conversation broke off in the middle.
pub async fn serve<R, W>(layout: Layout, input: R, output: W) -> io::Result<()>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (heard, incoming) = tokio::io::duplex(HEARD);
    let silence = Silence::default();
    let session = Session {
        layout,
        incoming: Incoming::new(incoming),
        outgoing: Outgoing::new(output),
        host: None,
        greeted: false,
        hears_progress: false,
        brought: Brought::default(),
        silence: silence.clone(),
    };
    tokio::select! {
        ended = converse(session) => ended,
        error = hear(input, heard, &silence) => if is_goodbye(&error) { Ok(()) } else { Err(error) },
    }
}

async fn converse<R, W>(mut session: Session<R, W>) -> io::Result<()>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    loop {
        let ask = match session.incoming.next().await? {
            Frame::End => return Ok(()),
            Frame::Ask(ask) => *ask,
            Frame::Bad(problem) => {
                // What would follow it cannot be told from messages.
                return session.outgoing.send(&failed(unintelligible(&problem))).await;
            }
        };
        match session.answer(ask).await {
            Ok(()) => {}
            Err(Stop::Failed(failure)) => session.outgoing.send(&Reply::Failed { failure }).await?,
            Err(Stop::Over(error)) if is_goodbye(&error) => return Ok(()),
            Err(Stop::Over(error)) => return Err(error),
        }
    }
}

/// Answers the first ask by a failure: there is no installation to speak of.
///
/// # Errors
/// When the client is gone.
pub async fn refuse<W: AsyncWrite + Unpin + Send>(failure: Failure, output: W) -> io::Result<()> {
    Outgoing::new(output).send(&failed(failure)).await
}

/// Leaving is nobody's fault.
fn is_goodbye(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
    )
}

fn failed(failure: Failure) -> Reply {
    Reply::Failed { failure: Box::new(failure) }
}

fn unintelligible(problem: &str) -> Failure {
    Failure::new(Exit::Usage, "the session was asked something it does not understand")
        .because(problem)
        .next("speak with it by `cutover`, of the same version as this cutover-host")
}

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    async fn answer(&mut self, ask: Ask) -> Result<(), Stop> {
        if let Ask::Hello { version, progress, .. } = ask {
            self.hears_progress = progress;
            return self.greet(version).await;
        }
        if !self.greeted {
            // Bulk may follow: there is no way on from here.
            self.outgoing.send(&failed(unintelligible("the first message is `hello`"))).await?;
            return Err(Stop::Over(io::ErrorKind::UnexpectedEof.into()));
        }
        match ask {
            // A command that has ended may still be sent input, as may a tunnel that could not be led.
            Ask::Input { bytes } | Ask::Through { what: Through::Bytes { bytes }, .. } => {
                Ok(self.incoming.skip(bytes).await?)
            }
            // Or be told of its terminal.
            Ask::Hello { .. } | Ask::Resize { .. } | Ask::Through { .. } => Ok(()),
            Ask::Alive { silence_ms } => {
                self.silence.allow(silence_ms);
                Ok(())
            }
            Ask::Observe { app, images } => self.observe(&app, &images).await,
            Ask::Artifact { hash, bytes } => self.artifact(&hash, bytes).await,
            Ask::Fetch { app, images, registry, env } => {
                self.fetch(&app, super::fetch::Asked { images, registry }, env).await
            }
            Ask::Run { plan, env, unset, keep_env, detach, wait } => {
                let asked = super::run::Asked { plan: *plan, unset, keep_env, detach, wait };
                self.run(asked, env).await
            }
            Ask::Attach { run, app, from } => self.attach(run, &app, from).await,
            Ask::Cancel { app, by } => self.cancel(&app, &by).await,
            Ask::Health { app } => self.health(&app).await,
            Ask::History { app, limit } => self.history(&app, limit).await,
            Ask::Logs { app, services, release, since, tail, follow } => {
                let wanted = super::logs::Wanted { services, release, since, tail };
                self.logs(&app, wanted, follow).await
            }
            Ask::Exec { app, service, command, once, terminal } => {
                let asked = super::exec::Asked { service, command, once, terminal };
                self.exec(&app, asked).await
            }
            Ask::EnvList { app } => self.env_list(&app).await,
            Ask::EnvStage { app, bytes, unset } => self.env_stage(&app, bytes, &unset).await,
            Ask::Lock { app } => {
                let holder = AppLock::peek(&self.layout, &app);
                Ok(self.outgoing.send(&Reply::Lock { holder }).await?)
            }
            Ask::Up => self.up().await,
            Ask::Lacking { run, images, artifacts } => self.lacking(run, images, artifacts).await,
            Ask::Layer { layer, bytes } => self.layer(&layer, bytes).await,
            Ask::Tunnel { app, service, port } => self.tunnel(&app, &service, port).await,
            Ask::Facts { app } => self.facts(&app).await,
            Ask::Leftovers { app } => self.leftovers(&app).await,
            Ask::Backup { order, env } => self.backup(*order, env).await,
            Ask::Snapshots(ask) => self.snapshots(ask).await,
            Ask::Backups { app } => self.backups(&app).await,
            Ask::Load { image, bytes } => self.load(&image, bytes).await,
            Ask::Setup(ask) => self.setup(ask).await,
            Ask::Parcels { bytes } => self.parcels(bytes).await,
            Ask::Chunks { chunks, bytes } => self.chunks(chunks, bytes).await,
            Ask::Unpack => self.unpack().await,
            Ask::Build { run, order } => self.build(run, *order).await,
            Ask::Lease { run, images } => {
                self.lease(run, images, &BTreeSet::new()).await?;
                Ok(self.outgoing.send(&Reply::Done).await?)
            }
        }
    }

    /// Each side says what it speaks; they must speak the same to go on. The client, who knows which command mends it, tells people.
    async fn greet(&mut self, version: u32) -> Result<(), Stop> {
        let ours = env!("CARGO_PKG_VERSION");
        self.greeted = version == WIRE_VERSION;
        let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        let hello =
            Reply::Hello { version: WIRE_VERSION, package: ours.to_owned(), platform, now: Timestamp::now() };
        self.outgoing.send(&hello).await?;
        if self.greeted { Ok(()) } else { Err(Stop::Over(io::ErrorKind::UnexpectedEof.into())) }
    }

    /// The installation, opened when it is first needed: a greeting needs none.
    pub(super) async fn host(&mut self) -> Result<Arc<Host>, Stop> {
        if let Some(host) = &self.host {
            return Ok(Arc::clone(host));
        }
        let host = Host::open(self.layout.clone()).await.map_err(|error| error.failure())?;
        let host = Arc::new(host);
        self.host = Some(Arc::clone(&host));
        Ok(host)
    }

    /// How far something is, where the client understands it.
    pub(super) async fn progress(&mut self, progress: Progress) -> io::Result<()> {
        if self.hears_progress { self.outgoing.send(&Reply::Progress { progress }).await } else { Ok(()) }
    }

    async fn observe(&mut self, app: &AppId, images: &BTreeSet<String>) -> Result<(), Stop> {
        let host = self.host().await?;
        until_put_away(&host.layout, &host.store, app).await;
        let state = Box::new(observe(&host, app, images).await?);
        Ok(self.outgoing.send(&Reply::State { state }).await?)
    }

    async fn leftovers(&mut self, app: &AppId) -> Result<(), Stop> {
        let host = self.host().await?;
        let going = Going::of(&observe_again(&host, app).await?);
        let place = Place { layout: &host.layout, store: &host.store, ports: &host.ports, app };
        let leftovers = place.look(&going).await.map_err(|trouble| untold(&trouble))?;
        Ok(self.outgoing.send(&Reply::Leftovers { leftovers }).await?)
    }

    async fn history(&mut self, app: &AppId, limit: u32) -> Result<(), Stop> {
        let host = self.host().await?;
        let verdicts = host.store.verdicts(app, limit.min(MOST_VERDICTS)).map_err(unreadable)?;
        Ok(self.outgoing.send(&Reply::History { verdicts }).await?)
    }

    async fn up(&mut self) -> Result<(), Stop> {
        self.host().await?;
        let started = up::ensure_up(&self.layout, &crate::program::own(), None)
            .await
            .map_err(|error| not_up(&error))?;
        let listeners = up::listeners(&self.layout);
        Ok(self.outgoing.send(&Reply::Up { started, listeners }).await?)
    }
}

/// What is needed by nothing is not known.
pub(super) fn untold(trouble: &Trouble) -> Failure {
    Failure::new(Exit::Failed, "it cannot be told what is needed on this host")
        .because(trouble.to_string())
        .untouched("what was serving goes on")
        .next("see that the disk and the container engine are well, then try again")
}

/// The store did not answer.
#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
pub(super) fn unreadable(error: StoreError) -> Failure {
    let failure = Failure::new(Exit::Failed, "the state database did not answer")
        .because(error.to_string())
        .while_serving("not known: what was serving goes on");
    error.next().into_iter().fold(failure, Failure::next)
}

fn not_up(error: &UpError) -> Failure {
    let what = match error {
        UpError::HostFile(_) => "the host's own configuration is wrong",
        _ => "proxy and watch could not be started",
    };
    let failure = Failure::new(error.exit(), what).because(error.to_string());
    error.next().into_iter().fold(failure, Failure::next)
}
