//! `tunnel`: from a port of this machine to a service or backing service on the host, through the session. Every connection goes over the
//! one channel.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Args;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::ServiceName;
use cutover_core::wire::{Ask, Reply, Through};
use cutover_tunnel::{Connections, Said};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Desk, Ended, reach};
use crate::asked::{Command, TunnelAsked};
use crate::hosts::{Hearing, Speaking, unexpected};
use crate::render::Line;

#[derive(Debug, Args)]
pub(crate) struct TunnelArguments {
    /// The service or backing service, and a port of it where it is not the one in its settings
    #[arg(value_name = "SERVICE[:PORT]", value_parser = service_and_port)]
    to: (ServiceName, Option<u16>),
    /// Listen here; else on a free port of 127.0.0.1
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

fn service_and_port(text: &str) -> Result<(ServiceName, Option<u16>), String> {
    let (service, port) = match text.split_once(':') {
        Some((service, port)) => {
            (service, Some(port.parse().map_err(|_| "a port is a number from 1 to 65535")?))
        }
        None => (text, None),
    };
    Ok((service.parse().map_err(|error| format!("{error}"))?, port))
}

impl TunnelArguments {
    pub(crate) fn into_command(self) -> Command {
        let (service, port) = self.to;
        Command::Tunnel(TunnelAsked { service, port, listen: self.listen })
    }
}

/// Until Ctrl-C.
pub(super) async fn tunnel(desk: &Desk, asked: TunnelAsked) -> Ended {
    let (app, mut host) = reach(desk).await?;
    let TunnelAsked { service, port, listen } = asked;
    let listener = bind(listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    let listening = listener.local_addr()?;
    let leads_to = match host.answer(&Ask::Tunnel { app, service: service.clone(), port }).await? {
        Reply::Tunnel { address } => address,
        other => return Err(unexpected("tunnel", &other).into()),
    };
    let shown = host.target().shown().to_owned();
    desk.output.answer(&Line::Tunnel { listening, leads_to }, || listening.to_string())?;
    desk.output.talk(&format!("{listening} leads to `{service}` on {shown} ({leads_to}); Ctrl-C ends it"));
    let (hearing, speaking) = host.halves();
    let (connections, said) = Connections::new();
    let connections = Mutex::new(connections);
    tokio::select! {
        over = accept(listener, &connections) => over,
        over = speak(speaking, said) => over,
        over = hear(desk, hearing, &connections) => over,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Done.code()),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot listen on {address}"))
            .because(error.to_string())
            .next("name another: `--listen 127.0.0.1:PORT`, or none for a free one")
    })
}

async fn accept(listener: TcpListener, connections: &Mutex<Connections>) -> Ended {
    for connection in 1.. {
        let (stream, _) = listener.accept().await?;
        let stream = std::future::ready(Ok(stream));
        of(connections).carry(connection, Some(Through::Open), stream);
    }
    Ok(Exit::Done.code())
}

fn of(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn speak(mut speaking: Speaking, mut said: mpsc::Receiver<Said>) -> Ended {
    while let Some(Said { connection, what, bytes }) = said.recv().await {
        speaking.ask_with(&Ask::Through { connection, what }, &bytes).await?;
    }
    Ok(Exit::Done.code())
}

/// Hands on what comes.
async fn hear(desk: &Desk, mut hearing: Hearing, connections: &Mutex<Connections>) -> Ended {
    loop {
        let (connection, what) = match hearing.reply().await? {
            Reply::Through { connection, what } => (connection, what),
            other => return Err(unexpected("through", &other).into()),
        };
        let mut all = Vec::new();
        if let Through::Bytes { bytes } = what {
            let keep = |piece: &[u8]| {
                all.extend_from_slice(piece);
                Ok(())
            };
            hearing.data(bytes, keep).await?;
        }
        if let Through::Gone { why: Some(why) } = &what {
            desk.output.talk(&format!("a connection could not be led on: {why}"));
        }
        of(connections).told(connection, &what, all);
    }
}
