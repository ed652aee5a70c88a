//! Listening sockets: bound once, lent to every proxy in turn. They pass through a socket that is the proxy's standard input, with
//! `SCM_RIGHTS`, so that no descriptor number has to be believed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Goes with the sockets; another text is somebody else's message.
const GREETING: &[u8] = b"cutover listeners 1";
/// Sockets that can be handed over at once.
const MOST: usize = 8;
/// Connections that may wait while a proxy is replaced.
const BACKLOG: i32 = 4096;

/// A socket that listens.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// What becomes the standard input of a proxy: the sockets lie in it already.
pub(super) fn hand_over(listeners: &[TcpListener]) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    hand_over_by(&ours, listeners)?;
    Ok(theirs)
}

/// Sends them through a socket.
pub(crate) fn hand_over_by(socket: impl AsFd, listeners: &[TcpListener]) -> io::Result<()> {
    let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !rights.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many listening sockets"));
    }
    sendmsg(socket, &[IoSlice::new(GREETING)], &mut rights, SendFlags::empty())?;
    Ok(())
}

/// The sockets that lie in `from`; `None`: it is nothing of the kind (a terminal, a file, an empty socket).
pub(crate) fn take_over(from: impl AsFd) -> io::Result<Option<Vec<TcpListener>>> {
    let mut greeting = [0; GREETING.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    match recvmsg(from, &mut [IoSliceMut::new(&mut greeting)], &mut rights, flags) {
        Ok(got) if got.bytes == GREETING.len() && greeting == GREETING => {}
        Ok(_) | Err(rustix::io::Errno::NOTSOCK | rustix::io::Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let messages = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok(Some(messages.flatten().map(TcpListener::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_listens_on_the_same_ports() {
        let listeners =
            [bind("127.0.0.1:0".parse().unwrap()).unwrap(), bind("127.0.0.1:0".parse().unwrap()).unwrap()];
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();

        let taken = take_over(hand_over(&listeners).unwrap()).unwrap().unwrap();
        drop(listeners);

        let theirs: Vec<_> = taken.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_eq!(theirs, addresses);
        std::net::TcpStream::connect(addresses[0]).unwrap();
    }

    #[test]
    fn what_is_no_socket_or_has_nothing_in_it_gives_none() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (_ours, empty) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();

        assert!(take_over(file).unwrap().is_none());
        assert!(take_over(empty).unwrap().is_none());
    }
}
