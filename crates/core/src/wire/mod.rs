//! What a client and a `cutover-host session` say to each other: frames over stdin and stdout.
//!
//! A frame is one JSON object on a line. A message that brings bulk data says how many bytes follow its line; they follow at once.

mod backup;
mod facts;
mod images;
mod messages;
mod parcels;
mod progress;
mod setup;
mod snapshots;

pub use backup::*;
pub use facts::*;
pub use images::*;
pub use messages::*;
pub use parcels::*;
pub use progress::{Extent, Progress};
pub use setup::{DeployKey, SetupAsk, SetupReply};
pub use snapshots::*;
