//! Giving a request to a target: on an idle connection or a new one. Says of every failure whether the request was sent.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use cutover_routes::Address;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use crate::body::{RequestBody, Upload};
use crate::deadline::Limits;
use crate::door::Way;
use crate::pace::Alarm;
use crate::pool::Sender;
use crate::target::Target;

/// How far from here a target may be: on this host, or on a network that this host is on.
const HOPS: u32 = 1;

/// How an offer of a request to a target ended.
pub(crate) enum Offered {
    /// The target answers. The connection comes along, for when the answer is whole, and how long the head took, the wait for a way
    /// in not included.
    Answered(Response<Incoming>, Sender, Duration),
    /// Not a byte of the request reached the target: it may be offered again, there or elsewhere.
    NotSent(Request<RequestBody>, NotSent),
    /// The connection broke before the answer's head; the target may have carried the request out.
    Broken(hyper::Error),
    /// No head of an answer in time; the target may still be at it.
    Late,
}

/// Why a request was not sent.
#[derive(Debug)]
pub(crate) enum NotSent {
    Connect(io::Error),
    /// The target closed the connection at once.
    Closed(hyper::Error),
    /// The target was cut while we connected.
    Cut,
}

impl fmt::Display for NotSent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(formatter, "{error}"),
            Self::Closed(error) => write!(formatter, "{error}"),
            Self::Cut => formatter.write_str("the target was cut"),
        }
    }
}

/// Offers a request to a target, on as many idle connections as turn out dead, then on a new one. `cuts` is what the target had
/// counted when the request came to it: after another cut nothing is sent there any more.
pub(crate) async fn offer(
    target: &Arc<Target>,
    cuts: u64,
    mut request: Request<RequestBody>,
    limits: &Limits,
    alarm: &Mutex<Alarm>,
) -> Offered {
    loop {
        let way = target.door.enter(&target.pool, limits).await;
        let begun = Instant::now();
        let (mut sender, knock) = match way {
            None => return Offered::NotSent(request, NotSent::Connect(io::ErrorKind::TimedOut.into())),
            Some(Way::Open(sender)) => (sender, None),
            Some(Way::Knock(knock)) => match connect(target, cuts, limits).await {
                Ok(sender) => (sender, Some(knock)),
                Err(why) => return Offered::NotSent(request, why),
            },
        };
        let fresh = knock.is_some();
        let upload = request.body().upload();
        let answer = sender.try_send_request(request);
        let answer = async {
            let mut answer = pin!(answer);
            match knock {
                Some(knock) => knock.until_proven(limits.doubt, answer).await,
                None => answer.as_mut().await,
            }
        };
        match in_time(answer, upload.as_deref(), limits, alarm).await {
            None => return Offered::Late,
            Some(Ok(response)) => return Offered::Answered(response, sender, begun.elapsed()),
            Some(Err(mut error)) => match error.take_message() {
                Some(back) if fresh => return Offered::NotSent(back, NotSent::Closed(error.into_error())),
                Some(back) => request = back,
                None => return Offered::Broken(error.into_error()),
            },
        }
    }
}

/// Waits for an answer's head; the time counts from the last piece of the body that went on its way. The alarm is the client's, and
/// stays armed from one request to the next: a request that is answered soon arms none.
async fn in_time<T>(
    answer: impl Future<Output = T>,
    upload: Option<&Upload>,
    limits: &Limits,
    alarm: &Mutex<Alarm>,
) -> Option<T> {
    let mut answer = pin!(answer);
    let begun = Instant::now();
    poll_fn(|context| {
        if let Poll::Ready(answered) = answer.as_mut().poll(context) {
            return Poll::Ready(Some(answered));
        }
        let since = upload.map_or(begun, |upload| upload.last().max(begun));
        let mut alarm = alarm.lock().unwrap_or_else(PoisonError::into_inner);
        alarm.poll(since + limits.response_head, context).map(|()| None)
    })
    .await
}

/// A new connection, driven by a task of its own.
async fn connect(target: &Arc<Target>, cuts: u64, limits: &Limits) -> Result<Sender, NotSent> {
    let connecting = async {
        match &target.address {
            Address::Tcp(address) => {
                let stream = knock(*address).await?;
                stream.set_nodelay(true)?;
                shake_hands(target, stream, limits).await
            }
            Address::Unix(path) => shake_hands(target, UnixStream::connect(path).await?, limits).await,
        }
    };
    let sender = match timeout(limits.connect, connecting).await {
        Ok(connected) => connected.map_err(NotSent::Connect)?,
        Err(_elapsed) => return Err(NotSent::Connect(io::ErrorKind::TimedOut.into())),
    };
    // A cut closes what is there; what came to be meanwhile closes itself.
    if target.cuts() == cuts { Ok(sender) } else { Err(NotSent::Cut) }
}

/// Targets are on this host or on one of its own networks. One that is gone together with its network would be sought by the default route,
/// and somebody else might answer: nothing that is sent there gets beyond the first router (S29).
async fn knock(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let options = SockRef::from(&socket);
    if address.is_ipv4() {
        options.set_ttl_v4(HOPS)?;
    } else {
        options.set_unicast_hops_v6(HOPS)?;
    }
    socket.connect(address).await
}

async fn shake_hands<S>(target: &Arc<Target>, stream: S, limits: &Limits) -> io::Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    let (sender, connection) = builder
        .max_buf_size(limits.buffer)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let id = target.id.clone();
    target.drive(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, target = id, "a connection to a target broke");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_to_a_target_gets_no_further_than_this_hosts_networks() {
        let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();

        let stream = knock(target.local_addr().unwrap()).await.unwrap();

        assert_eq!(SockRef::from(&stream).ttl_v4().unwrap(), 1);
        target.accept().await.unwrap();
    }
}
