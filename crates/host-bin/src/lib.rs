//! The `cutover-host` binary: its words, and a function for each. What they do is in `cutover_host` and `cutover_proxy`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod commands;
mod tell;

use std::process::ExitCode;

use clap::Parser;
use cutover_host::run::Also;

use arguments::Arguments;

/// Everything, from the command line to the exit code.
pub fn main() -> ExitCode {
    main_heard_by(None)
}

/// The same; `also` hears each entry of a run's journal once it is written (tests end a run at a certain one).
pub fn main_heard_by(also: Option<Also>) -> ExitCode {
    let arguments = Arguments::parse();
    cutover_host::program::take_name();
    tell::to_developers(&arguments.command);
    match commands::carry_out(arguments.command, also) {
        Ok(exit) => exit,
        Err(failure) => tell::to_people(&failure),
    }
}
