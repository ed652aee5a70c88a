//! Taking connections in: no more than may be open, and patiently when the system has none to give.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;

use crate::plane::Plane;
use crate::serve;

/// How long to wait when the process or the system is out of descriptors or memory: connections that end give some back.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(50);

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
        while let Ok(permit) = Arc::clone(&plane.connections).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(serve::serve(Arc::clone(&plane), stream, peer, permit));
                }
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

/// Errors of one connection that was given up before it was accepted; the next one may be fine.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
