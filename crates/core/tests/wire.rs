//! A sample of each message of the session, as it goes over the wire: read and written again, each way without a loss. A message that is added
//! needs a sample here, and one that is changed shows that old sides would not understand it.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeSet;

use cutover_core::wire::{Ask, Reply, SetupAsk, SetupReply};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const ASKS: &str = include_str!("../fixtures/wire/asks.jsonl");
const REPLIES: &str = include_str!("../fixtures/wire/replies.jsonl");

/// Reads each line, writes it again, and reads that.
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(samples: &str) {
    for line in samples.lines() {
        let message: T = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let written = serde_json::to_string(&message).unwrap();
        assert!(!written.contains('\n'), "a frame is one line: {written}");
        let (before, after): (Value, Value) =
            (serde_json::from_str(line).unwrap(), serde_json::from_str(&written).unwrap());
        assert_eq!(before, after, "written otherwise than the sample");
        assert_eq!(serde_json::from_str::<T>(&written).unwrap(), message);
    }
}

/// The messages there are: who reads one that is not there names them all.
fn known<T: DeserializeOwned + std::fmt::Debug>(tag: &str) -> BTreeSet<String> {
    let none = serde_json::json!({ tag: "no such message" }).to_string();
    let error = serde_json::from_str::<T>(&none).unwrap_err().to_string();
    let names = error.split_once("expected ").unwrap().1;
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn sampled(samples: &str, tag: &str) -> BTreeSet<String> {
    let values = samples.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.filter_map(|value| Some(value.get(tag)?.as_str()?.to_owned())).collect()
}

#[test]
fn each_sample_is_read_and_written_as_it_is() {
    both_ways::<Ask>(ASKS);
    both_ways::<Reply>(REPLIES);
}

#[test]
fn each_message_has_a_sample() {
    assert_eq!(known::<Ask>("ask"), sampled(ASKS, "ask"));
    assert_eq!(known::<Reply>("reply"), sampled(REPLIES, "reply"));
    assert_eq!(known::<SetupAsk>("setup"), sampled(ASKS, "setup"));
    assert_eq!(known::<SetupReply>("setup"), sampled(REPLIES, "setup"));
}

#[test]
fn each_message_is_on_the_page_of_the_protocol() {
    let page = include_str!("../../../docs/design/session.md");
    let all = [
        known::<Ask>("ask"),
        known::<Reply>("reply"),
        known::<SetupAsk>("setup"),
        known::<SetupReply>("setup"),
    ];
    let missing: Vec<&String> =
        all.iter().flatten().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/design/session.md does not have {missing:?}");
}
