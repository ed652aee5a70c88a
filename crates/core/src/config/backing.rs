//! Backing services: started when absent or down; one that a live release has is never replaced by a deploy.

use super::gates::{self, Around};
use super::read::At;
use super::run::{self, Context};
use super::settings::{Backing, OwnHealthcheck, Source};

/// Images whose port everybody knows: a gate needs no more than that somebody accepts there.
const PORTS: &[(&str, u16)] = &[
    ("clickhouse", 8123),
    ("elasticsearch", 9200),
    ("mariadb", 3306),
    ("memcached", 11211),
    ("minio", 9000),
    ("mongo", 27017),
    ("mysql", 3306),
    ("nats", 4222),
    ("pgvector", 5432),
    ("postgis", 5432),
    ("postgres", 5432),
    ("rabbitmq", 5672),
    ("redis", 6379),
    ("timescaledb", 5432),
    ("valkey", 6379),
];

/// Reads one backing service.
pub(crate) fn backing(name: &str, at: &At<'_>, context: &mut Context<'_>) -> Backing {
    let source = run::source(at, name, &mut context.issues);
    let process = at.get("artifact").is_some();
    let run = run::run(at, None, process, context);
    let port = at.port("port").or_else(|| usual_port(source.as_ref()?));
    if let Some(Source::Image { reference }) = &source {
        run::note_floating(at, reference, &mut context.issues);
    }
    let around = Around {
        port,
        route: None,
        healthcheck: run.healthcheck.as_ref().and_then(OwnHealthcheck::command),
        process,
        scheme: "http",
    };
    let gate = gates::gate(at, &around, &mut context.issues);
    Backing { source: source.unwrap_or(Source::Image { reference: String::new() }), run, port, gate }
}

fn usual_port(source: &Source) -> Option<u16> {
    let Source::Image { reference } = source else { return None };
    let name = reference.split('@').next()?.rsplit('/').next()?.split(':').next()?;
    PORTS.iter().find(|(known, _)| name == *known).map(|(_, port)| *port)
}
