//! guestbook: a small real web application with a `SQLite` database, and a bot beside it.
//!
//! One binary; what a release of it does is fixed by the files in its working folder (pages, sql, migrations,
//! behaviour). It knows nothing of what deploys it: it reads its environment, answers requests, stops when told.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod behaviour;
mod bot;
mod entry_form;
mod migrate;
mod pages;
mod peer;
mod serve;
mod settings;
mod store;
mod streams;

use std::io::Write as _;
use std::process::ExitCode;

const USAGE: &str = "usage: guestbook serve | bot | migrate [--database FILE]";

/// Why the program ends with a failure; each text is meant for the person who reads the instance's log.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{USAGE}")]
    Usage,
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
    #[error(transparent)]
    Bot(#[from] bot::BotError),
    #[error(transparent)]
    Migrate(#[from] migrate::MigrateError),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        Err(Failure::Usage) => {
            complain(USAGE);
            ExitCode::from(2)
        }
        Err(failure) => {
            complain(&format!("guestbook: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<ExitCode, Failure> {
    match words {
        ["serve"] => Ok(serve::run()?),
        ["bot"] => Ok(bot::run()?),
        ["migrate"] => Ok(migrate::run(None)?),
        ["migrate", "--database", file] => Ok(migrate::run(Some(file.into()))?),
        _ => Err(Failure::Usage),
    }
}

/// A line on stdout. A reader of the log that went away is no reason to stop serving.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

/// A line on stderr.
fn complain(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}
