//! What an engine call can end in: the kind decides what the caller may do, the certainty whether it has to look again.
//!
//! The only place that reads the engine's prose, and only where its status says too little (a full disk and a taken
//! port both come as status 500); the samples in the tests are captured from real engines.

use std::{fmt, io};

use bollard::errors::Error as Transport;

/// Why an engine call failed, in the terms a caller decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The container, network or volume named is not there.
    Gone,
    /// The name is taken by something that is not what was asked for.
    Exists,
    /// The engine's disk is full.
    Full,
    /// The engine did not answer, or stopped answering.
    Unreachable,
    /// The state of something else forbids it: in use, port or address taken, subnet overlaps.
    Conflict,
    /// The engine refuses the request as such.
    Refused,
    /// The image, or its place in a registry, is not there.
    NotFoundImage,
    /// Anything else the engine says.
    Other,
}

/// Whether the act can have happened although the call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// The engine turned the request down before it acted, or never saw it.
    NotDone,
    /// It may have been carried out, wholly or in part: look again.
    Unknown,
}

/// A failed engine call. `Display` names the act and the engine's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{act}: {message}")]
pub struct EngineError {
    /// What the caller may conclude.
    pub kind: Kind,
    /// Whether it may have happened nevertheless.
    pub certainty: Certainty,
    /// What was tried, as words: `create container web-1`.
    pub act: String,
    /// The engine's words, or the transport's.
    pub message: String,
}

impl EngineError {
    /// An error of our own making, before the engine was asked.
    pub(crate) fn refused(act: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Refused,
            certainty: Certainty::NotDone,
            act: act.into(),
            message: message.to_string(),
        }
    }

    /// An answer that breaks the API's own rules.
    pub(crate) fn unexpected(act: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Other,
            certainty: Certainty::Unknown,
            act: act.into(),
            message: message.to_string(),
        }
    }
}

/// What an endpoint's 404 and 409 are about; the status alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A container, network or volume that has to be there.
    Thing,
    /// Something to be made under a name: 409 means the name is taken.
    NewThing,
    /// A container to be made from an image: 404 means the image.
    NewContainer,
    /// An image.
    Image,
}

/// Turns a transport error into ours. `act` is only formatted on failure.
pub(crate) fn explain(
    subject: Subject,
    act: impl FnOnce() -> String,
) -> impl FnOnce(Transport) -> EngineError {
    move |error| {
        let (kind, certainty, message) = classify(subject, &error);
        EngineError { kind, certainty, act: act(), message }
    }
}

fn classify(subject: Subject, error: &Transport) -> (Kind, Certainty, String) {
    match error {
        Transport::DockerResponseServerError { status_code, message } => {
            let (kind, certainty) = answered(subject, *status_code, message);
            (kind, certainty, message.trim().to_owned())
        }
        Transport::DockerStreamError { error } => {
            (said(error).unwrap_or(Kind::Other), Certainty::Unknown, error.clone())
        }
        Transport::RequestTimeoutError => {
            (Kind::Unreachable, Certainty::Unknown, "the engine did not answer in time".to_owned())
        }
        Transport::SocketNotFoundError(path) => {
            (Kind::Unreachable, Certainty::NotDone, format!("there is no socket at {path}"))
        }
        Transport::UnsupportedURISchemeError { uri } => (
            Kind::Refused,
            Certainty::NotDone,
            format!("{uri}: only a local engine is spoken to (unix:// or npipe://)"),
        ),
        Transport::HyperLegacyError { err } if err.is_connect() => {
            (Kind::Unreachable, Certainty::NotDone, gone(err).unwrap_or_else(|| with_causes(err)))
        }
        // Its own words are those of what it wraps.
        Transport::IOError { err } => {
            (Kind::Unreachable, Certainty::Unknown, gone(err).unwrap_or_else(|| with_causes(err)))
        }
        Transport::HyperLegacyError { .. } | Transport::HyperResponseError { .. } => {
            (Kind::Unreachable, Certainty::Unknown, gone(error).unwrap_or_else(|| with_causes(error)))
        }
        other => (Kind::Other, Certainty::Unknown, with_causes(other)),
    }
}

fn answered(subject: Subject, status: u16, message: &str) -> (Kind, Certainty) {
    let kind = match (status, subject) {
        (404, Subject::NewContainer | Subject::Image) => Kind::NotFoundImage,
        (404, _) => Kind::Gone,
        (409, Subject::NewThing | Subject::NewContainer) => Kind::Exists,
        (403 | 409, _) => Kind::Conflict,
        (400..=499, _) => Kind::Refused,
        _ => said(message).unwrap_or(Kind::Other),
    };
    // A 5xx can leave half of the act behind (an endpoint, a name), so only a client error is a clear no.
    let certainty = if status < 500 { Certainty::NotDone } else { Certainty::Unknown };
    (kind, certainty)
}

/// What only the prose tells.
fn said(message: &str) -> Option<Kind> {
    let message = message.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if any(&["no space left on device", "disk quota exceeded"]) {
        Some(Kind::Full)
    } else if any(&["network already exists", "that name is already in use"]) {
        Some(Kind::Exists)
    } else if any(&[
        "port is already allocated",
        "address already in use",
        "pool overlaps",
        "is already used on the host",
        "container state improper",
    ]) {
        Some(Kind::Conflict)
    } else if any(&["manifest unknown", "not found: manifest", "no such image"]) {
        Some(Kind::NotFoundImage)
    } else {
        None
    }
}

/// Whether a build failed since a layer that it took from the builder's cache is not there any more: it is named by its id, unlike an image that
/// the Dockerfile names.
pub(crate) fn is_of_removed_layer(message: &str) -> bool {
    let said = ["unable to find image", "unknown parent image ID", "failed to get digest", "No such image:"];
    said.iter()
        .filter_map(|words| message.split_once(words))
        .any(|(_, rest)| rest.trim_start_matches([' ', '"', '\'']).starts_with("sha256:"))
}

/// What hyper says where an answer was closed before its end.
const CUT: &str = "connection closed before message completed";

/// An engine that ends refuses, resets or closes connections, as it happens: in people's words that is one thing.
fn gone(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let is_gone = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(
            kind,
            Some(
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            )
        ) || cause.to_string() == CUT
    };
    std::iter::successors(Some(error), |error| error.source())
        .any(is_gone)
        .then(|| "nobody answers at the engine's socket any more".to_owned())
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_server(subject: Subject, status_code: u16, message: &str) -> EngineError {
        let error = Transport::DockerResponseServerError { status_code, message: message.to_owned() };
        explain(subject, || "act".to_owned())(error)
    }

    #[test]
    fn a_status_means_what_its_subject_makes_of_it() {
        let cases = [
            (Subject::NewContainer, 404, "No such image: nope:1", Kind::NotFoundImage, Certainty::NotDone),
            (Subject::Thing, 404, "No such container: web", Kind::Gone, Certainty::NotDone),
            (
                Subject::NewContainer,
                409,
                "Conflict. The container name \"/web\" is already in use",
                Kind::Exists,
                Certainty::NotDone,
            ),
            (
                Subject::NewThing,
                409,
                "network with name edge already exists",
                Kind::Exists,
                Certainty::NotDone,
            ),
            (
                Subject::NewThing,
                403,
                "Pool overlaps with other one on this address space",
                Kind::Conflict,
                Certainty::NotDone,
            ),
            (
                Subject::Thing,
                403,
                "error while removing network: network edge has active endpoints",
                Kind::Conflict,
                Certainty::NotDone,
            ),
            (
                Subject::NewContainer,
                400,
                "invalid port specification: \"x\"",
                Kind::Refused,
                Certainty::NotDone,
            ),
        ];
        for (subject, status, message, kind, certainty) in cases {
            let error = from_server(subject, status, message);
            assert_eq!((error.kind, error.certainty), (kind, certainty), "{message}");
        }
    }

    #[test]
    fn a_server_error_is_told_apart_by_its_words_and_is_never_certain() {
        let cases = [
            (
                "driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:8080 failed: port is already allocated",
                Kind::Conflict,
            ),
            ("error creating overlay mount: no space left on device", Kind::Full),
            ("Address already in use", Kind::Conflict),
            // Podman 4.3, which knows no status but 500 for these.
            ("network name edge already used: network already exists", Kind::Exists),
            ("subnet 10.213.40.0/24 is already used on the host or by another config", Kind::Conflict),
            (
                "the container name \"web\" is already in use by 9db1. You have to remove that container to be able to reuse that name: that name is already in use",
                Kind::Exists,
            ),
            ("can only create exec sessions on running containers: container state improper", Kind::Conflict),
            ("something else", Kind::Other),
        ];
        for (message, kind) in cases {
            let error = from_server(Subject::Thing, 500, message);
            assert_eq!((error.kind, error.certainty), (kind, Certainty::Unknown), "{message}");
        }
    }

    #[test]
    fn a_layer_of_the_cache_is_told_from_an_image_that_is_not_there() {
        let gone = "sha256:3af46e45726d1d95e3ae18df7ecbbdd4a004bb2253e59c9050e958da4a1766b9";
        for message in [
            format!("failed to export image: failed to set parent {gone}: unknown parent image ID {gone}"),
            format!(
                "failed to get digest {gone}: open /var/lib/docker/image/overlay2/imagedb/content: no such file or directory"
            ),
            format!("unable to find image \"{gone}\""),
            format!("unable to find image {gone}"),
            format!("No such image: {gone}"),
        ] {
            assert!(is_of_removed_layer(&message), "{message}");
        }
        for message in [
            "No such image: nope:1",
            "The command '/bin/sh -c unable to find image' returned a non-zero code: 3",
        ] {
            assert!(!is_of_removed_layer(message), "{message}");
        }
    }

    #[test]
    fn a_request_cut_off_may_have_been_carried_out() {
        let error =
            explain(Subject::Thing, || "stop container web".to_owned())(Transport::RequestTimeoutError);
        assert_eq!((error.kind, error.certainty), (Kind::Unreachable, Certainty::Unknown));
        assert_eq!(error.to_string(), "stop container web: the engine did not answer in time");
    }

    #[test]
    fn an_engine_that_ends_is_gone_however_its_connection_broke() {
        for kind in
            [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe]
        {
            let error = Transport::IOError { err: io::Error::from(kind) };
            let error = explain(Subject::Thing, || "inspect container web".to_owned())(error);
            assert_eq!((error.kind, error.certainty), (Kind::Unreachable, Certainty::Unknown));
            let told = "inspect container web: nobody answers at the engine's socket any more";
            assert_eq!(error.to_string(), told);
        }
        let other = Transport::IOError { err: io::Error::from(io::ErrorKind::PermissionDenied) };
        assert!(explain(Subject::Thing, || "look".to_owned())(other).to_string().contains("permission"));
    }

    #[test]
    fn a_missing_socket_means_nothing_was_done() {
        let error =
            explain(Subject::Thing, || "connect".to_owned())(Transport::SocketNotFoundError("/x".to_owned()));
        assert_eq!((error.kind, error.certainty), (Kind::Unreachable, Certainty::NotDone));
    }
}
