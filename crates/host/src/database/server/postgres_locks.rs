//! The locks of a database's sessions, looked at many times a second by one session of `psql` that ends with its server.

use cutover_core::rehearsal::LockSample;
use futures_util::{StreamExt, stream};
use tokio::io::AsyncWriteExt as _;

use super::client::{Carried, Client};
use super::postgres_catalogue::LOCKS;
use crate::ports::{Attached, DatabaseError, LockSamples};

/// Between two looks, in seconds, as `psql` takes it.
const PAUSE: &str = "0.02";

/// Begins to look.
///
/// # Errors
/// The client program cannot be started.
pub(super) async fn samples(client: &Client<'_>) -> Result<LockSamples, DatabaseError> {
    let words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"].map(str::to_owned);
    let mut attached = client.start(None, &words, Carried::Plain).await?;
    let script = format!("{LOCKS}\n\\watch {PAUSE}\n");
    let asked = async {
        attached.input.write_all(script.as_bytes()).await?;
        attached.input.flush().await
    };
    asked.await.map_err(|error: std::io::Error| {
        DatabaseError::plain(format!("`psql` could not be asked for locks: {error}"))
    })?;
    Ok(Box::pin(stream::unfold((attached, Vec::new()), next)))
}

/// The next look, from as many pieces of output as it takes; none, once the program has ended.
async fn next((mut attached, mut buffer): (Attached, Vec<u8>)) -> Option<(LockSample, (Attached, Vec<u8>))> {
    loop {
        while let Some(line) = line(&mut buffer) {
            if let Ok(sample) = serde_json::from_slice(&line) {
                return Some((sample, (attached, buffer)));
            }
        }
        let piece = attached.output.next().await?;
        if !piece.error {
            buffer.extend_from_slice(&piece.bytes);
        }
    }
}

/// The first line out of a buffer; `None`: there is no whole one yet.
fn line(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    Some(buffer.drain(..=end).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_output_in_pieces_then_each_look_is_one_line() {
        let mut buffer =
            b"{\"at_ms\" : 5, \"locks\" : []}\n{\"at_ms\" : 25, \"locks\" : [{\"holder\" : \"3/7\", "
                .to_vec();
        let read = |line: Option<Vec<u8>>| serde_json::from_slice::<LockSample>(&line.unwrap()).unwrap();
        assert_eq!(read(line(&mut buffer)), LockSample { at_ms: 5, locks: Vec::new() });
        assert_eq!(line(&mut buffer), None);

        buffer
            .extend_from_slice(b"\"table\" : \"entries\", \"mode\" : \"ShareLock\", \"granted\" : true}]}\n");

        let sample = read(line(&mut buffer));
        assert_eq!((sample.at_ms, sample.locks[0].table.as_str()), (25, "entries"));
        assert!(buffer.is_empty() && !LOCKS.contains('\n'), "one line is one question");
    }
}
