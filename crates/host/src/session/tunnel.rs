//! A tunnel: connections from the client's machine to one port of a service here, all over the session's own channel.

use std::net::SocketAddr;

use cutover_core::defaults::TUNNEL_WINDOW;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, ServiceName};
use cutover_core::recover::serving_text;
use cutover_core::state::{HostState, Role};
use cutover_core::wire::{Ask, Reply, Through};
use cutover_tunnel::{Connections, Said};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::frames::{Frame, Stop};
use super::serve::Session;
use crate::observe::observe_again;

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Until the client leaves.
    pub(super) async fn tunnel(
        &mut self,
        app: &AppId,
        service: &ServiceName,
        port: Option<u16>,
    ) -> Result<(), Stop> {
        let host = self.host().await?;
        let address = address(&observe_again(&host, app).await?, service, port)?;
        self.outgoing.send(&Reply::Tunnel { address }).await?;
        let (mut connections, mut said) = Connections::new();
        loop {
            tokio::select! {
                heard = self.incoming.next() => {
                    let Frame::Ask(ask) = heard? else { return Err(broken_off()) };
                    let Ask::Through { connection, what } = *ask else { return Err(broken_off()) };
                    let bytes = match what {
                        // Never more than the window, which bounds what waits here.
                        Through::Bytes { bytes } if bytes <= TUNNEL_WINDOW => self.incoming.bulk(bytes).await?,
                        Through::Bytes { .. } => return Err(broken_off()),
                        _ => Vec::new(),
                    };
                    match what {
                        Through::Open => connections.carry(connection, None, TcpStream::connect(address)),
                        what => connections.told(connection, &what, bytes),
                    }
                }
                Some(Said { connection, what, bytes }) = said.recv() => {
                    self.outgoing.through(connection, what, &bytes).await?;
                }
            }
        }
    }
}

fn broken_off() -> Stop {
    Stop::Over(std::io::ErrorKind::UnexpectedEof.into())
}

/// Where a service, or a backing service, is reached on this host.
fn address(state: &HostState, service: &ServiceName, port: Option<u16>) -> Result<SocketAddr, Failure> {
    let members = state.live.as_ref().and_then(|live| live.members.get(service));
    let mut running = state.instances.iter().filter(|found| {
        let live = members.is_some_and(|members| members.contains(&found.name));
        let backing = found.role == Role::Backing && found.ours && found.service == *service;
        found.is_running() && (live || backing)
    });
    let serving = serving_text(state.live.as_ref());
    let Some(found) = running.next() else {
        let what = format!("`{service}` of {} has no instance that a tunnel could lead to", state.app);
        let failure = Failure::new(Exit::Failed, what).because("none of it runs").while_serving(serving);
        return Err(failure.next("`cutover status` shows what runs"));
    };
    match (found.address, port) {
        (Some(address), None) => Ok(address),
        (Some(address), Some(port)) if address.ip().is_loopback() && port != address.port() => {
            let what = format!("a tunnel cannot lead to port {port} of `{service}`");
            let why = format!("it is reached at {address} only, which stands for its one port");
            Err(Failure::new(Exit::Usage, what).because(why).next(format!("`cutover tunnel {service}`")))
        }
        (Some(address), Some(port)) => Ok(SocketAddr::new(address.ip(), port)),
        (None, _) => {
            let what = format!("a tunnel cannot lead to `{service}`");
            let failure =
                Failure::new(Exit::Failed, what).because("it has no address: its settings name no port");
            Err(failure
                .while_serving(serving)
                .next(format!("name `port:` of `{service}` in cutover.yml, and deploy")))
        }
    }
}
