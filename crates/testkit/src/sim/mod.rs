//! A host in memory, with fault points: for sweeping thousands of failures beside the real thing, not in its place.
//!
//! Instances, routes and traffic are simulated; the stages, the journal, the store (`SQLite` in memory), the plan and the recovery are the
//! real ones. Time is paused by the test, so that deadlines pass at once.

mod behaviour;
mod carrier;
mod faults;
mod machine;
mod ports;
mod promises;
mod site;
mod world;

pub use behaviour::{Behaviour, Migration};
pub use faults::{Fault, FaultPlan};
pub use promises::Broken;
pub use site::{Asked, Made, Moment, Outcome, Site};
