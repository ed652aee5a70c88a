//! What tests, the demonstration and the soak share: traffic that is counted, releases to deploy, waiting with a
//! deadline. Never shipped.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod get;
pub mod guestbook;
mod litter;
pub mod machine;
pub mod probe;
mod redact;
pub mod sim;
pub mod site;
pub mod ssh;
mod wait;

pub use get::{Answer, ask, get};
pub use litter::Litter;
pub use redact::redact;
pub use wait::{NotInTime, SOON, wait_until};
