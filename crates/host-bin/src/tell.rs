//! What this program says: on the error stream, since standard output belongs to a session's frames.

use std::io::Write;
use std::process::ExitCode;

use cutover_core::failure::Failure;
use tracing_subscriber::filter::LevelFilter;

use crate::arguments::Command;

/// Lines for developers: where the process has a log file, its life; of a session, whose stream its client reads, only what goes wrong.
pub(crate) fn to_developers(command: &Command) {
    let level = match command {
        Command::Session | Command::Terminal { .. } | Command::Down | Command::DeadMan { .. } => {
            LevelFilter::WARN
        }
        Command::Up
        | Command::Run { .. }
        | Command::Keep { .. }
        | Command::Backup
        | Command::Handover
        | Command::Proxy
        | Command::Watch => LevelFilter::INFO,
    };
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false);
    // Where a line cannot be written, saying so cannot be either: that would end the process, a keeper say, on a disk that is full.
    lines.log_internal_errors(false).init();
}

/// The four answers.
pub(crate) fn to_people(failure: &Failure) -> ExitCode {
    line(&text(failure));
    ExitCode::from(failure.exit.code())
}

/// A line. Whoever should read it may be gone.
pub(crate) fn line(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap_or_default();
}

fn text(failure: &Failure) -> String {
    let cause = failure.cause.iter().map(|cause| format!("\n  cause: {cause}"));
    let next = failure.next.iter().map(|next| format!("\n  next:  {next}"));
    let state = std::iter::once(format!("\n  state: {}", failure.state));
    let parts: String = cause.chain(state).chain(next).collect();
    format!("error: {}{parts}", failure.what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cutover_core::exit::Exit;

    #[test]
    fn a_failure_gives_its_four_answers() {
        let failure = Failure::new(Exit::Failed, "the proxy was not started")
            .because("0.0.0.0:80 is taken by nginx (process 12)")
            .next("stop it, or move it to another port")
            .next("or stand behind it");

        assert_eq!(
            text(&failure),
            "error: the proxy was not started\n  cause: 0.0.0.0:80 is taken by nginx (process 12)\n  state: nothing was touched\n  \
             next:  stop it, or move it to another port\n  next:  or stand behind it"
        );
    }
}
