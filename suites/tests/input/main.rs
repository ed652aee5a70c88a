//! Bad input and bad places: each is told in four parts with its exit code, and what served before goes on serving. The texts are golden.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops where it fails, and says why")]

mod configuration;
mod gate;
mod host;
mod place;
mod session;
mod variables;
