//! Workers whose requests end: GETs, posted entries, slow downloads.

use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::client::{Answer, Asked, Client, Connections};
use super::outcome::{Kind, Outcome};
use super::report::Acknowledged;
use super::run::Worker;

/// One request after another until the probe stops; the one in flight then is finished.
pub(super) async fn visit(mut worker: Worker, kind: Kind, connections: Connections) {
    let probe = worker.probe.clone();
    let mut client = Client::new(&probe.options, connections);
    while !worker.is_stopping() {
        let number = probe.next_number();
        let asked = asked(&worker, kind, number);
        let sent = SystemTime::now();
        let start = Instant::now();
        let result = timeout(probe.options.deadline, client.exchange(&asked)).await;
        let took = start.elapsed();
        let outcome = match &result {
            Ok(Ok(answer)) => outcome(&worker, kind, answer),
            Ok(Err(error)) => Outcome::failed(error),
            Err(_late) => {
                Outcome::failed(format_args!("no whole answer within {:?}", probe.options.deadline))
            }
        };
        if let (Kind::Post, Outcome::Answered { .. }, Ok(Ok(answer))) = (kind, &outcome, &result)
            && let Some(id) = acknowledged_id(answer)
        {
            let acknowledged = SystemTime::now();
            let writer = probe.writer.clone();
            probe.tally.acknowledged(Acknowledged { writer, number, id, sent, acknowledged });
        }
        // Of one that failed it is asked when it began.
        let is_slow = kind == Kind::Slow && !matches!(outcome, Outcome::Failed { .. });
        let asked_for = if is_slow { probe.options.slow_for } else { Duration::ZERO };
        probe.tally.request(kind, name(connections), &outcome, took.saturating_sub(asked_for));
        probe.tally.retried(kind, client.take_retried());
        worker.pause().await;
    }
}

pub(super) fn name(connections: Connections) -> &'static str {
    match connections {
        Connections::Fresh => "fresh",
        Connections::KeptAlive => "kept alive",
    }
}

fn asked(worker: &Worker, kind: Kind, number: u64) -> Asked {
    let options = &worker.probe.options;
    match kind {
        Kind::Post => entry(&worker.probe.writer, number),
        Kind::Slow => Asked::get(format!("/slow?ms={}", options.slow_for.as_millis())),
        Kind::Get | Kind::WebSocket | Kind::Sse => {
            let turn = usize::try_from(number).unwrap_or_default();
            let path = options.paths.get(turn % options.paths.len().max(1));
            Asked::get(path.map_or("/", String::as_str))
        }
    }
}

fn entry(writer: &str, number: u64) -> Asked {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    // The writer's name is made here, of letters, digits and hyphens: nothing to encode.
    let body = format!("name={writer}&message={number}").into();
    Asked { method: Method::POST, path: "/entries".to_owned(), headers, body }
}

fn outcome(worker: &Worker, kind: Kind, answer: &Answer) -> Outcome {
    let outcome = Outcome::of_answer(answer.status, &answer.headers, &worker.probe.options.mark);
    match (&outcome, kind) {
        (Outcome::Answered { .. }, Kind::Post) if acknowledged_id(answer).is_none() => {
            Outcome::failed(format_args!("{} that acknowledges nothing", answer.status))
        }
        (Outcome::Answered { .. }, Kind::Slow) if !answer.body.ends_with(b"done\n") => {
            Outcome::failed(format_args!("{} without its last part", answer.status))
        }
        _ => outcome,
    }
}

fn acknowledged_id(answer: &Answer) -> Option<i64> {
    #[derive(Deserialize)]
    struct Added {
        id: i64,
    }
    serde_json::from_slice::<Added>(&answer.body).ok().map(|added| added.id)
}
