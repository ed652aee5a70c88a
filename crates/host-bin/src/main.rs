//! Starts [`cutover_host_bin::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    cutover_host_bin::main()
}
