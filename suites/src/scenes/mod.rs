//! What is tried on real binaries, at a site of plain processes or on a container engine alike: each scene is given its site, and asserts.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a scene is the body of a test: it stops where it fails, and says its numbers"
)]

mod applications;
pub mod backing;
pub mod clients;
mod counted;
pub mod crashes;
pub mod databases;
pub mod deploys;
pub mod engines;
pub mod killed;
pub mod pruned;
pub mod secrets;

pub use counted::one_bot_at_a_time;
