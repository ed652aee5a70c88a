//! The guestbook as people and deploys meet it: the real binary, real sockets, real signals.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod instance;

mod bot;
mod releases;
mod stop;
mod visits;
