//! Taking connections in: no more than may be open, and patiently when the system has none to give.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::plane::Plane;
use crate::serve;

/// How long to wait when the process or the system is out of descriptors or memory: connections that end give some back.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(50);

/// Between two looks for an idle connection that could make room.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(50);

/// Makes a bound socket one that the runtime listens on.
pub(crate) fn prepare(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    // What is accepted inherits this: a client that vanished without a word is found out even on a silent event stream.
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_mins(1)).with_interval(Duration::from_secs(15));
    SockRef::from(&listener).set_tcp_keepalive(&keepalive)?;
    TcpListener::from_std(listener)
}

/// Accepts until the proxy is told to stop.
pub(crate) async fn accept(plane: Arc<Plane>, listener: TcpListener) {
    let stop = plane.stop.told();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match Arc::clone(&plane.connections).try_acquire_owned() {
                    Ok(permit) => {
                        tokio::spawn(serve::serve(Arc::clone(&plane), stream, peer, permit));
                    }
                    Err(_no_place) => {
                        let placed = tokio::spawn(serve_in_turn(Arc::clone(&plane), stream, peer)).await;
                        if let Err(error) = placed {
                            tracing::warn!(%error, "a connection found no place");
                        }
                    }
                },
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(OUT_OF_RESOURCES).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop => {}
        () = accept => {}
    }
}

/// Serves a connection once there is a place for it: the longest idle one makes room. In a task of its own: who was
/// accepted is served, also when nobody is accepted any more.
async fn serve_in_turn(plane: Arc<Plane>, stream: TcpStream, peer: SocketAddr) {
    let mut place = pin!(Arc::clone(&plane.connections).acquire_owned());
    let permit = loop {
        plane.clients.close_longest_idle();
        tokio::select! {
            permit = &mut place => break permit,
            () = tokio::time::sleep(LOOK_FOR_IDLE) => {}
        }
    };
    // The semaphore is never closed.
    if let Ok(permit) = permit {
        tokio::spawn(serve::serve(plane, stream, peer, permit));
    }
}

/// Errors of one connection that was given up before it was accepted; the next one may be fine.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
