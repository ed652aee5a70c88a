//! Listening sockets on their way from one proxy to the next: offered while one takes the other's place, and kept by systemd's own store over
//! every restart. No connection is lost: until somebody accepts it, it waits in the kernel's queue.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::task::JoinHandle;

use super::system::failed;
use crate::lock::ProcessLock;
use crate::{files, up};

/// The socket by which a proxy is offered what another listens on.
const HANDOVER: &str = "handover.sock";
/// The first descriptor that systemd hands over.
const FIRST: i32 = 3;
/// For whoever offers sockets to give them: it does nothing else meanwhile.
const ANSWER: Duration = Duration::from_secs(5);
/// Until it is tried again to hear who asks.
const AGAIN: Duration = Duration::from_millis(20);

/// Sockets that systemd kept for this process; empty: it has none.
pub fn inherited() -> Vec<TcpListener> {
    let kept = std::env::var("LISTEN_FDS").ok().filter(|_| is_for_us());
    let count = kept.and_then(|count| count.parse::<i32>().ok()).unwrap_or_default();
    let Ok(own) = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) else { return Vec::new() };
    (FIRST..FIRST + count).filter_map(|number| listener(&own, number)).collect()
}

/// Whether what the environment says of kept sockets is meant for this process, and not for one that started it.
fn is_for_us() -> bool {
    std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

/// The names under which systemd kept sockets for this process.
fn kept_names() -> BTreeSet<String> {
    let names = std::env::var("LISTEN_FDNAMES").ok().filter(|_| is_for_us()).unwrap_or_default();
    names.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A socket's name in systemd's store, in which there may be no colon.
fn name(listener: &TcpListener) -> io::Result<String> {
    Ok(format!("http-{}", listener.local_addr()?).replace(':', "."))
}

/// A descriptor of another process, if it is a listening socket of the network.
fn listener(process: &OwnedFd, number: i32) -> Option<TcpListener> {
    let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
    let listens = sockopt::socket_acceptconn(&socket).ok()?;
    let listener = TcpListener::from(socket);
    (listens && listener.local_addr().is_ok()).then_some(listener)
}

/// Sockets that a setup offers to the next proxy; `None`: nobody does.
pub fn offered(layout: &Layout) -> Option<Vec<TcpListener>> {
    let stream = UnixStream::connect(layout.run().join(HANDOVER)).ok()?;
    // Connected is before answered: whoever took the silence for a no would find its address taken, by the one who offers it.
    let patience = rustix::time::Timespec { tv_sec: ANSWER.as_secs().cast_signed(), tv_nsec: 0 };
    let mut answer = [PollFd::new(&stream, PollFlags::IN)];
    poll(&mut answer, Some(&patience)).ok()?;
    up::receive(&stream).ok()?
}

/// Tells systemd that this process serves, and lets it keep the sockets for the next one; those that nobody wants any more it gives up, or
/// they would take in connections that nobody accepts. Nobody to tell: nothing.
pub fn ready(listeners: &[TcpListener]) -> io::Result<()> {
    let Some(socket) = init_system()? else { return Ok(()) };
    let names = listeners.iter().map(name).collect::<io::Result<Vec<_>>>()?;
    for old in kept_names().iter().filter(|old| !names.contains(old)) {
        socket.send(format!("FDSTOREREMOVE=1\nFDNAME={old}\n").as_bytes())?;
    }
    for (listener, name) in listeners.iter().zip(names) {
        let sockets = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&sockets));
        let text = format!("FDSTORE=1\nFDNAME={name}\n");
        sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut rights, SendFlags::empty())?;
    }
    socket.send(b"READY=1\n").map(drop)
}

/// Where systemd listens to what a unit says of itself.
fn init_system() -> io::Result<Option<UnixDatagram>> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let socket = UnixDatagram::unbound()?;
    let text = name.to_string_lossy();
    match text.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?,
        None => socket.connect(PathBuf::from(&name))?,
    }
    Ok(Some(socket))
}

/// Sockets that are offered to whoever comes next, for as long as this is there.
pub(super) struct Offer {
    path: PathBuf,
    serves: JoinHandle<()>,
}

impl Offer {
    /// Of these sockets.
    ///
    /// # Errors
    /// When nobody could ask for them: whoever has them is not to be ended then.
    pub(super) fn of(layout: &Layout, listeners: Vec<TcpListener>) -> Result<Self, Failure> {
        let path = layout.run().join(HANDOVER);
        let bound = files::remove(&path)
            .map_err(|error| error.to_string())
            .and_then(|()| bind(&path).map_err(|error| format!("{}: {error}", path.display())));
        let socket = bound.map_err(|why| failed("offer the sockets of the proxy").because(why))?;
        Ok(Self { path, serves: tokio::spawn(give(socket, listeners)) })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.serves.abort();
        files::discard(&self.path);
    }
}

fn bind(path: &std::path::Path) -> io::Result<tokio::net::UnixListener> {
    let socket = UnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(socket)
}

/// Gives them to everybody who asks.
async fn give(socket: tokio::net::UnixListener, listeners: Vec<TcpListener>) {
    loop {
        let asked = socket.accept().await;
        let sent = asked.and_then(|(stream, _)| up::send(&stream.into_std()?, &listeners));
        if let Err(error) = sent {
            tracing::warn!(%error, "sockets were not handed over");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// What the proxy that serves now listens on; empty: none serves, or its sockets cannot be had.
pub(super) fn of_the_proxy(layout: &Layout) -> Vec<TcpListener> {
    ProcessLock::peek(layout, "proxy").map(listeners_of).unwrap_or_default()
}

/// What a process listens on.
fn listeners_of(pid: u32) -> Vec<TcpListener> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Vec::new() };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|number| listener(&process, number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_offered_sockets_waits_until_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let offer = std::os::unix::net::UnixListener::bind(layout.run().join(HANDOVER)).unwrap();
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap()];

        let next = std::thread::spawn(move || offered(&layout));
        let (stream, _) = offer.accept().unwrap();
        up::send(&stream, &listeners).unwrap();

        let taken = next.join().unwrap().unwrap();
        assert_eq!(taken[0].local_addr().unwrap(), listeners[0].local_addr().unwrap());
    }

    #[test]
    fn an_offer_that_is_taken_back_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let offer = std::os::unix::net::UnixListener::bind(layout.run().join(HANDOVER)).unwrap();

        let asked = layout.clone();
        let next = std::thread::spawn(move || offered(&asked).is_none());
        drop(offer.accept().unwrap());

        assert!(next.join().unwrap());
        drop(offer);
        assert!(offered(&layout).is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_offer_is_there_as_long_as_somebody_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let left = layout.run().join(HANDOVER);
        drop(UnixListener::bind(&left).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();

        let offer = Offer::of(&layout, vec![listener]).unwrap();
        for _ in 0..2 {
            let asked = layout.clone();
            let taken = tokio::task::spawn_blocking(move || offered(&asked)).await.unwrap().unwrap();
            assert_eq!(taken[0].local_addr().unwrap(), address);
        }
        drop(offer);

        assert!(!left.exists());
        assert!(offered(&layout).is_none());
    }

    #[tokio::test]
    async fn sockets_that_nobody_could_ask_for_are_not_offered() {
        let folder = tempfile::tempdir().unwrap();

        let refused = Offer::of(&Layout::under(folder.path()), Vec::new());

        let failure = refused.err().unwrap();
        assert_eq!(failure.what, "setup could not offer the sockets of the proxy");
        assert!(failure.cause[0].contains("No such file or directory"), "{failure}");
    }
}
