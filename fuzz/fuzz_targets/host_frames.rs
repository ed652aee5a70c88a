//! What a client may send to `cutover-host session`: read as the session reads it, to the end.
#![no_main]

#[allow(dead_code, reason = "what writes is not tried here")]
#[path = "../../crates/host/src/session/frames.rs"]
mod frames;

use cutover_core::wire::{Ask, Through};
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
    while let Ok(Frame::Ask(ask)) = incoming.next().await {
        messages += 1;
        survives(&ask);
        let bulk = bulk(&ask);
        // Once as what is small is read, once as what is not.
        let read = if messages % 2 == 0 {
            incoming.bulk(bulk).await.map(drop)
        } else {
            incoming.skip(bulk).await
        };
        if read.is_err() {
            break;
        }
    }
    messages
}

/// What was read is written, and read as the same.
fn survives(ask: &Ask) {
    let written = serde_json::to_string(ask).expect("a message has a form");
    assert!(!written.contains('\n'), "a frame is one line: {written}");
    let again: Ask = serde_json::from_str(&written).expect("what was written is read");
    assert_eq!(again, *ask);
}

/// So many bytes follow.
fn bulk(ask: &Ask) -> u64 {
    match ask {
        Ask::Artifact { bytes, .. }
        | Ask::Input { bytes }
        | Ask::EnvStage { bytes, .. }
        | Ask::Layer { bytes, .. }
        | Ask::Load { bytes, .. }
        | Ask::Parcels { bytes, .. }
        | Ask::Chunks { bytes, .. }
        | Ask::Through { what: Through::Bytes { bytes }, .. } => *bytes,
        Ask::Fetch { env, .. } | Ask::Run { env, .. } => *env,
        _ => 0,
    }
}
