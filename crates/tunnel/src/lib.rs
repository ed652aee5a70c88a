//! Connections carried over one channel, the same at both of its ends. The promise: a connection that is not read holds back itself and no
//! other, what waits in memory for it is never more than its window, and each direction ends by itself.
//!
//! Each direction has a window: so many bytes may be on their way until the other end says that it has passed them on.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use cutover_core::defaults::TUNNEL_WINDOW;
use cutover_core::wire::Through;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};

/// One piece is at most so large.
const PIECE: u32 = 16 * 1024;
/// What connections have to say waits for the channel, so many at once.
const UNDER_WAY: usize = 16;

/// What a connection has to say to its other end.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// Its number.
    pub connection: u32,
    /// What.
    pub what: Through,
    /// What follows it.
    pub bytes: Vec<u8>,
}

/// What a connection is told by its other end.
enum Told {
    Bytes(Vec<u8>),
    End,
}

struct Ear {
    tell: mpsc::UnboundedSender<Told>,
    room: Arc<Semaphore>,
}

/// The connections of one end.
pub struct Connections {
    say: mpsc::Sender<Said>,
    open: BTreeMap<u32, Ear>,
}

impl Connections {
    /// None yet, and what they will have to say.
    pub fn new() -> (Self, mpsc::Receiver<Said>) {
        let (say, said) = mpsc::channel(UNDER_WAY);
        (Self { say, open: BTreeMap::new() }, said)
    }

    /// Carries one from here on. Its other end may be told more of it at once; `first` is said before anything else.
    pub fn carry(
        &mut self,
        connection: u32,
        first: Option<Through>,
        stream: impl Future<Output = io::Result<TcpStream>> + Send + 'static,
    ) {
        let (tell, told) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(usize::try_from(TUNNEL_WINDOW).unwrap_or(Semaphore::MAX_PERMITS)));
        self.open.insert(connection, Ear { tell, room: room.clone() });
        let mouth = Mouth { connection, say: self.say.clone() };
        tokio::spawn(async move {
            // Nobody is left to say it to, or it was said.
            carry(mouth, first, stream, told, room).await.ok();
        });
    }

    /// Hands on what the other end says. What is said of one that is over is dropped.
    pub fn told(&mut self, connection: u32, what: &Through, bytes: Vec<u8>) {
        let Some(ear) = self.open.get(&connection) else { return };
        let heard = match what {
            Through::Bytes { .. } => ear.tell.send(Told::Bytes(bytes)).is_ok(),
            Through::End => ear.tell.send(Told::End).is_ok(),
            Through::Room { bytes } => {
                let most = usize::try_from(TUNNEL_WINDOW).unwrap_or(usize::MAX);
                let room = usize::try_from(*bytes).unwrap_or(most);
                ear.room.add_permits(room.min(most.saturating_sub(ear.room.available_permits())));
                true
            }
            Through::Open | Through::Gone { .. } => false,
        };
        if !heard {
            self.open.remove(&connection);
        }
    }
}

/// The other end is gone.
#[derive(Debug)]
struct Over;

#[derive(Clone)]
struct Mouth {
    connection: u32,
    say: mpsc::Sender<Said>,
}

impl Mouth {
    async fn says(&self, what: Through, bytes: Vec<u8>) -> Result<(), Over> {
        self.say.send(Said { connection: self.connection, what, bytes }).await.map_err(|_| Over)
    }
}

async fn carry(
    mouth: Mouth,
    first: Option<Through>,
    stream: impl Future<Output = io::Result<TcpStream>>,
    told: mpsc::UnboundedReceiver<Told>,
    room: Arc<Semaphore>,
) -> Result<(), Over> {
    if let Some(first) = first {
        mouth.says(first, Vec::new()).await?;
    }
    let stream = match stream.await {
        Ok(stream) => stream,
        Err(error) => return mouth.says(Through::Gone { why: Some(error.to_string()) }, Vec::new()).await,
    };
    let (reader, writer) = stream.into_split();
    // Neither direction waits for the other: an echo that is not read would hold back what it echoes.
    let ended = tokio::try_join!(read(&mouth, reader, &room), write(&mouth, writer, told));
    if !matches!(ended, Err(Ended::Over)) {
        mouth.says(Through::Gone { why: None }, Vec::new()).await?;
    }
    Ok(())
}

/// Why a direction ended before its time.
enum Ended {
    /// The connection broke.
    Broke,
    /// The other end is gone, or let go of it.
    Over,
}

impl From<Over> for Ended {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

async fn read(mouth: &Mouth, mut reader: OwnedReadHalf, room: &Semaphore) -> Result<(), Ended> {
    let mut piece = vec![0; PIECE as usize];
    loop {
        // As much as there is room for, and something.
        let one = room.acquire().await.map_err(|_| Ended::Over)?;
        one.forget();
        let more = room.available_permits().min(piece.len() - 1);
        let more = room.try_acquire_many(u32::try_from(more).unwrap_or_default());
        let permits = more.map(|more| {
            let count = more.num_permits();
            more.forget();
            count
        });
        let most = 1 + permits.unwrap_or_default();
        let count = reader.read(&mut piece[..most]).await.map_err(|_| Ended::Broke)?;
        room.add_permits(most - count);
        if count == 0 {
            mouth.says(Through::End, Vec::new()).await?;
            return Ok(());
        }
        mouth.says(Through::Bytes { bytes: count as u64 }, piece[..count].to_vec()).await?;
    }
}

async fn write(
    mouth: &Mouth,
    mut writer: OwnedWriteHalf,
    mut told: mpsc::UnboundedReceiver<Told>,
) -> Result<(), Ended> {
    loop {
        match told.recv().await {
            Some(Told::Bytes(bytes)) => {
                writer.write_all(&bytes).await.map_err(|_| Ended::Broke)?;
                mouth.says(Through::Room { bytes: bytes.len() as u64 }, Vec::new()).await?;
            }
            Some(Told::End) => {
                writer.shutdown().await.map_err(|_| Ended::Broke)?;
                return Ok(());
            }
            None => return Err(Ended::Over),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    /// Two ends with a channel between them, and a listener whose connections are led to `to`.
    async fn tunnel(to: std::net::SocketAddr) -> std::net::SocketAddr {
        let (near, mut from_near) = Connections::new();
        let (mut far, mut from_far) = Connections::new();
        let near = Arc::new(Mutex::new(near));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Some(said) = from_near.recv().await {
                match said.what {
                    Through::Open => far.carry(said.connection, None, TcpStream::connect(to)),
                    what => far.told(said.connection, &what, said.bytes),
                }
            }
        });
        let hears = near.clone();
        tokio::spawn(async move {
            while let Some(said) = from_far.recv().await {
                hears.lock().unwrap().told(said.connection, &said.what, said.bytes);
            }
        });
        tokio::spawn(async move {
            for connection in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let opens = Some(Through::Open);
                near.lock().unwrap().carry(connection, opens, std::future::ready(Ok(stream)));
            }
        });
        address
    }

    async fn echo() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.into_split();
                    tokio::io::copy(&mut reader, &mut writer).await.ok();
                });
            }
        });
        address
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), work).await.expect("it hangs")
    }

    #[tokio::test]
    async fn given_much_both_ways_and_an_end_then_all_of_it_comes_back_and_then_the_end() {
        let address = tunnel(echo().await).await;
        let sent: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|number| number.to_le_bytes()[1]).collect();
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let sending = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&sending).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut back = Vec::new();
        soon(reader.read_to_end(&mut back)).await.unwrap();
        writing.await.unwrap();
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    }

    #[tokio::test]
    async fn given_a_connection_that_is_not_read_then_another_one_is_not_held_back() {
        let address = tunnel(echo().await).await;
        let (_unread, mut pushes) = TcpStream::connect(address).await.unwrap().into_split();
        let stuck = async {
            loop {
                pushes.write_all(&[7; 8 * 1024]).await.unwrap();
            }
        };
        // It stands still once windows and the system's own buffers are full.
        tokio::time::timeout(Duration::from_secs(1), stuck).await.unwrap_err();
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        soon(other.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"hello");
    }

    #[tokio::test]
    async fn given_nobody_at_the_far_end_then_the_connection_ends() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let address = tunnel(free).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut back = Vec::new();
        soon(stream.read_to_end(&mut back)).await.ok();
        assert!(back.is_empty());
    }
}
