//! The only place that decides: configuration × world × request → plan.

mod shape;

pub use shape::*;
