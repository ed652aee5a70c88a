//! A connection to an instance: from here, or from within its own network namespace.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use cutover_core::gate::Finding;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;

use super::{failed, other};
use crate::ports::{ProbeTarget, Runtime};

/// For a connection from within, which no drop of a future ends.
const INSIDE: Duration = Duration::from_secs(5);

/// A connection to `address`; with `inside` to the same port on the instance's own loopback.
pub(crate) async fn connect(
    runtime: &dyn Runtime,
    target: &ProbeTarget,
    address: SocketAddr,
    inside: bool,
) -> Result<TcpStream, Finding> {
    let namespace = if inside {
        runtime.network_namespace(&target.app, &target.instance).await.map_err(|error| failed(&error))?
    } else {
        None
    };
    match namespace {
        Some(namespace) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
            connect_inside(namespace, address).await
        }
        None => TcpStream::connect(address).await.map_err(|error| finding(&error)),
    }
}

/// A socket belongs to the namespace of the thread that made it, wherever it is used later: a thread of its own goes there and ends.
async fn connect_inside(namespace: PathBuf, address: SocketAddr) -> Result<TcpStream, Finding> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let go = move || {
        let connected = enter(&namespace)
            .map_err(|error| {
                other(format!("cannot look from within the instance: {}: {error}", namespace.display()))
            })
            .and_then(|()| {
                std::net::TcpStream::connect_timeout(&address, INSIDE).map_err(|error| finding(&error))
            });
        // An error means that nobody waits any more.
        drop(tell.send(connected));
    };
    std::thread::Builder::new()
        .name("inside".into())
        .spawn(go)
        .map_err(|error| other(format!("cannot look from within the instance: {error}")))?;
    let stream = told.await.map_err(|_| other("the look from within the instance ended early"))??;
    stream
        .set_nonblocking(true)
        .and_then(|()| TcpStream::from_std(stream))
        .map_err(|error| other(error.to_string()))
}

fn enter(namespace: &PathBuf) -> io::Result<()> {
    let file = std::fs::File::open(namespace)?;
    Ok(move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?)
}

fn finding(error: &io::Error) -> Finding {
    match error.kind() {
        ErrorKind::ConnectionRefused => Finding::Refused,
        ErrorKind::TimedOut => Finding::NoAnswer,
        _ => other(format!("cannot connect: {error}")),
    }
}
