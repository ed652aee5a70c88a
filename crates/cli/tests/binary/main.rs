//! The real binary against a session that says what the test tells it to: streams, texts, exit codes.
#![allow(clippy::unwrap_used)]

mod bench;
mod runs;
mod words;
