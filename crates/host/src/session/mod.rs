//! `cutover-host session`: the conversation with one client over standard input and output. It answers, receives, starts runs and follows
//! them; it carries nothing out itself, and a client that leaves ends the session, never a run (P7).

mod artifact;
mod backup;
mod build;
mod environment;
mod exec;
mod facts;
mod fetch;
mod frames;
mod health;
mod hear;
mod logs;
mod parcels;
mod receive;
mod run;
mod serve;
mod setup;
mod ship;
mod snapshots;
mod tunnel;

pub(crate) use environment::change as change_environment;
pub use serve::{refuse, serve};

#[cfg(test)]
mod tests;
