//! The words of `cutover-host`. People need `up` and `down`; the others are started by `cutover`, by `up`, or by an init system.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use cutover_core::names::{AppId, RunId};

/// The part of cutover that works on a server.
#[derive(Debug, Parser)]
#[command(name = "cutover-host", version, after_help = AFTER, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "State lies in /var/lib/cutover, /var/backups/cutover, /var/log/cutover and /run/cutover; CUTOVER_ROOT moves \
all of it under one folder. CUTOVER_HTTP (address:port, several with commas) says where the proxy listens.";

/// What this process is.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep proxy and watch running, where no init system does
    Up,
    /// Stop proxy and watch, and every plain process they keep
    Down,
    /// Answer one client on standard input and output (started by `cutover`)
    Session,
    /// Carry out one run, detached (started by a session)
    Run {
        /// Its id; its plan lies in its folder
        #[arg(required_unless_present = "settle")]
        run: Option<RunId>,
        /// Settle the unfinished run of an app instead
        #[arg(long, value_name = "APP/ENVIRONMENT", conflicts_with = "run")]
        settle: Option<AppId>,
    },
    /// Supervise one plain process (started by a run or by watch)
    Keep {
        /// The instance's folder
        folder: PathBuf,
    },
    /// Give a command the terminal on its standard input, and become that command (started by a session)
    #[command(hide = true)]
    Terminal {
        /// The program's file
        program: PathBuf,
        /// Its words, from its own name on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<std::ffi::OsString>,
    },
    /// Take back a change of the server that nobody confirmed (started by a setup)
    #[command(hide = true)]
    DeadMan {
        /// The trial; waited for
        #[arg(required_unless_present = "now")]
        token: Option<String>,
        /// At once, whatever is on trial
        #[arg(long)]
        now: bool,
    },
    /// Hand proxy and watch over to their units or to the next program, as told on standard input (started by a setup or an upgrade)
    #[command(hide = true)]
    Handover,
    /// Work on an app's backups, as told on standard input (started by a session or by watch)
    #[command(hide = true)]
    Backup,
    /// Take requests and pass them on, by the last good route table
    Proxy,
    /// Bring instances and routes back, settle runs that died, probe health
    Watch,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(words: &[&str]) -> Result<Command, String> {
        let words = std::iter::once("cutover-host").chain(words.iter().copied());
        Arguments::try_parse_from(words).map(|arguments| arguments.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_words_fit_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_run_is_named_by_its_id_or_by_the_app_to_settle() {
        let id = "019a9f3e-1111-7000-8000-000000000001";
        assert!(matches!(parsed(&["run", id]), Ok(Command::Run { run: Some(_), settle: None })));
        let settle = parsed(&["run", "--settle", "shop/production"]);
        assert!(matches!(settle, Ok(Command::Run { run: None, settle: Some(_) })));
        assert!(parsed(&["run"]).is_err());
        assert!(parsed(&["run", id, "--settle", "shop/production"]).is_err());
    }

    #[test]
    fn what_is_no_id_says_what_is_expected() {
        let error = parsed(&["run", "latest"]).unwrap_err();
        assert!(error.contains("`latest` is not a run id"), "{error}");
        let error = parsed(&["run", "--settle", "shop"]).unwrap_err();
        assert!(error.contains("`shop` is not an app and environment"), "{error}");
    }
}
