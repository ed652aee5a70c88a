//! `make demo` and `make demo-docker`: the main job, shown on a real application by the real programs under constant traffic. Exits with 1 where
//! anything is not as it should be, with 3 where it cannot be shown.

use std::process::ExitCode;

use cutover_suites::demo::{self, Ending};
use cutover_testkit::guestbook::Kind;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let kind = match words.as_slice() {
        [] | ["processes"] => Kind::Processes,
        ["docker"] => Kind::Containers,
        _ => {
            demo::telling::usage();
            return ExitCode::from(2);
        }
    };
    match demo::run(kind) {
        Ok(Ending::Shown) => ExitCode::SUCCESS,
        Ok(Ending::Impossible { why }) => {
            demo::telling::impossible(&why);
            ExitCode::from(3)
        }
        Err(error) => {
            demo::telling::wrong(&error);
            ExitCode::FAILURE
        }
    }
}
