//! `keep FOLDER`: the keeper alone, as `cutover-host keep` runs it. The tests of this crate cannot name the shipped binary.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match (words.next(), words.next(), words.next()) {
        (Some(verb), Some(folder), None) if verb == "keep" => {
            cutover_host::runtime::process::keep(&PathBuf::from(folder))
        }
        _ => ExitCode::from(2),
    }
}
