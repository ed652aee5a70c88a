//! The only place that decides: configuration × world × request → plan.

mod absent;
mod assemble;
mod backing;
mod databases;
pub mod deadline;
mod deploy;
mod downs;
mod drift;
mod elsewhere;
mod idle;
mod leaving;
mod lifecycle;
mod passwords;
mod prune;
mod rehearse;
mod shape;
pub(crate) mod snapshots;
pub(crate) mod specify;
mod transition;

pub(crate) use assemble::{default_hold, todo};
pub(crate) use databases::within;
pub use deploy::plan;
pub(crate) use downs::are_recorded as downs_are_recorded;
pub(crate) use drift::{differences as backing_differences, words as change_words};
pub use elsewhere::elsewhere;
pub use leaving::leaving;
pub use lifecycle::lifecycle;
pub(crate) use lifecycle::{Crossing, crossed};
pub use passwords::password_variable;
pub use shape::*;
pub use snapshots::database_place;
pub use specify::one_off;
pub(crate) use specify::{respecify, volume_spec};

use crate::failure::Failure;

/// Why there is no plan: safety rules, or a request that does not fit what is there. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals(pub Vec<Failure>);

impl Refusals {
    /// All of them as one failure: the first one's words, everybody's causes and remedies.
    pub fn failure(&self) -> Failure {
        let mut refusals = self.0.iter();
        let Some(first) = refusals.next() else {
            return Failure::new(crate::exit::Exit::Failed, "the plan was refused");
        };
        let mut failure = first.clone();
        for other in refusals {
            failure.cause.push(other.what.clone());
            failure.cause.extend(other.cause.iter().cloned());
            failure.next.extend(other.next.iter().filter(|next| !first.next.contains(next)).cloned());
        }
        failure
    }
}

impl From<Failure> for Refusals {
    fn from(failure: Failure) -> Self {
        Self(vec![failure])
    }
}
