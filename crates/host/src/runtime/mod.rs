//! What carries instances: the two implementations of the port.

pub mod docker;
mod memory;
pub mod process;
mod references;

pub(crate) use references::names_host;
