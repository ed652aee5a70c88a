//! Whatever can happen to a deploy on a server, at each of its stages, under traffic: it comes to an end by itself, with one live release, and
//! the verdict on record is true.

mod case;
mod fault;
mod lanes;
mod moment;
mod row;
mod what;

pub use case::{Kind, Matrix};
pub use fault::Fault;
pub use lanes::try_all;
pub use moment::Moment;
pub use row::{Row, table};
pub use what::{Case, Change};
