//! What comes in from the client, with an ear for its silence: a network that is gone tells nobody, and a session that waits for it would stay.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, timeout};

/// How often it is looked whether the silence lasts too long.
const LOOK: Duration = Duration::from_secs(1);
const PIECE: usize = 64 * 1024;

/// How long the client may be silent: for ever, until it says otherwise.
#[derive(Debug, Default, Clone)]
pub(super) struct Silence(Arc<AtomicU64>);

impl Silence {
    pub(super) fn allow(&self, milliseconds: u64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    fn is_over(&self, silent: Duration) -> bool {
        let allowed = self.0.load(Ordering::Relaxed);
        allowed > 0 && silent > Duration::from_millis(allowed)
    }
}

/// Hands on what comes, to its end. Returns when the client was silent for too long, or the input cannot be read; else it is dropped when the
/// conversation is over. Who does not take what has come is no silence.
pub(super) async fn hear(
    mut input: impl AsyncRead + Unpin,
    to: DuplexStream,
    silence: &Silence,
) -> io::Error {
    let mut to = Some(to);
    let mut piece = vec![0; PIECE];
    let mut heard = Instant::now();
    while let Some(open) = &mut to {
        match timeout(LOOK, input.read(&mut piece)).await {
            Ok(Ok(0)) => to = None,
            // The other end of it goes with the conversation, and we with both.
            Ok(Ok(read)) => match open.write_all(&piece[..read]).await {
                Ok(()) => heard = Instant::now(),
                Err(_) => to = None,
            },
            Ok(Err(error)) => return error,
            Err(_) if silence.is_over(heard.elapsed()) => return io::ErrorKind::TimedOut.into(),
            Err(_) => {}
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn given_a_client_that_promised_signs_of_life_then_its_silence_is_its_end() {
        let (mut client, input) = tokio::io::duplex(64);
        let (to, mut out) = tokio::io::duplex(64);
        let silence = Silence::default();
        let hearing = hear(input, to, &silence);
        tokio::pin!(hearing);
        let forever = timeout(Duration::from_hours(1), &mut hearing).await;
        assert!(forever.is_err(), "who promised nothing may be silent");

        silence.allow(15_000);
        for _ in 0..10 {
            client.write_all(b"\n").await.unwrap();
            assert!(timeout(Duration::from_secs(5), &mut hearing).await.is_err());
        }
        let began = Instant::now();
        assert_eq!(hearing.await.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(17), "{:?}", began.elapsed());
        let mut signs = [0; 10];
        out.read_exact(&mut signs).await.unwrap();
    }
}
