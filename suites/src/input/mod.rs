//! Bad input, tried at a small app: what is told is collected and compared with what was approved, and what served goes on serving.
#![allow(clippy::unwrap_used, reason = "the body of a test: it stops where it fails")]

mod golden;
mod shop;

pub use golden::Golden;
pub use shop::{GOOD, Shop};
