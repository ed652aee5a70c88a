//! Whatever can happen to a deploy on a server, at each of its stages, under traffic: it comes to an end by itself, with one live release, and
//! the verdict on record is true.

mod case;
mod fault;
mod moment;
mod row;

pub use case::Matrix;
pub use fault::Fault;
pub use moment::Moment;
pub use row::{Row, table};
