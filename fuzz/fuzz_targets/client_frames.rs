//! What a server may send to `cutover`: read as the command line reads it, to the end.
#![no_main]

#[path = "../../crates/cli/src/hosts/frames.rs"]
mod frames;

use cutover_core::wire::{Reply, Through};
use frames::{Frame, Incoming};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let messages = runtime.block_on(read_all(bytes));
    assert!(messages <= bytes.len(), "more messages than bytes");
});

async fn read_all(bytes: &[u8]) -> usize {
    let mut incoming = Incoming::new(bytes);
    let mut messages = 0;
    loop {
        let reply = match incoming.next().await {
            Ok(Frame::Reply(reply)) => reply,
            Ok(Frame::Bad(beginning)) => {
                assert!(!beginning.contains(char::is_control), "it would reach a terminal: {beginning:?}");
                return messages;
            }
            Ok(Frame::Cut | Frame::End) | Err(_) => return messages,
        };
        messages += 1;
        survives(&reply);
        let mut left = bulk(&reply);
        while left > 0 {
            let Ok(piece) = incoming.piece(left).await else { return messages };
            left -= piece.len() as u64;
        }
    }
}

/// What was read is written, and read as the same.
fn survives(reply: &Reply) {
    let written = serde_json::to_string(reply).expect("a message has a form");
    assert!(!written.contains('\n'), "a frame is one line: {written}");
    let again: Reply = serde_json::from_str(&written).expect("what was written is read");
    assert_eq!(again, *reply);
}

/// So many bytes follow.
fn bulk(reply: &Reply) -> u64 {
    match reply {
        Reply::Data { bytes, .. } | Reply::Through { what: Through::Bytes { bytes }, .. } => *bytes,
        _ => 0,
    }
}
