//! Servers for tests: containers of the tests' engine with systemd, sshd and, where wanted, an engine of their own (`scripts/machines.sh`).
//! They are reached by their addresses, as servers are; what happens to servers happens to them: reboots, losses of power, a network that
//! is cut, a kernel that hangs.
//!
//! Each goes with all that it has when it is dropped, and when its test is killed.

mod access;
mod app;
mod faults;
mod guard;
mod image;
mod processes;
mod server;

pub use access::User;
pub use app::ServerApp;
pub use faults::Cut;
pub use image::Image;
pub use processes::{Part, Running};
pub use server::Machine;
