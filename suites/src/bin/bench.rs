//! `make bench`: measures the programs as they ship, prints a table, writes `target/bench.json`. It asserts no time: figures are for
//! people to judge. Words: the sections to measure; none: all.

use std::process::ExitCode;

use cutover_suites::bench;

fn main() -> ExitCode {
    let sections: Vec<String> = std::env::args().skip(1).collect();
    match bench::run(&sections) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            bench::telling::wrong(&error);
            ExitCode::FAILURE
        }
    }
}
