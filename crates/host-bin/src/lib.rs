//! The `cutover-host` binary: its words, and a function for each. What they do is in `cutover_host` and `cutover_proxy`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod commands;
mod tell;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;

/// Everything, from the command line to the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tell::to_developers(&arguments.command);
    match commands::carry_out(arguments.command) {
        Ok(exit) => exit,
        Err(failure) => tell::to_people(&failure),
    }
}
