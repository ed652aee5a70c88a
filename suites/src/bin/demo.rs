//! `make demo`: the main job, shown on a real application by the real programs under constant traffic. Exits with 1 where anything is
//! not as it should be.

use std::process::ExitCode;

use cutover_suites::demo;

fn main() -> ExitCode {
    match demo::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            demo::telling::wrong(&error);
            ExitCode::FAILURE
        }
    }
}
