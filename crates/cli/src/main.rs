//! `cutover`: one file in the repository, one command, and a release is live with nobody noticing.
//!
//! Command line → plain data → a verb → its answer and its exit code. The only crate that prints; it decides nothing about a deploy
//! (`cutover_core::plan` does) and touches no host but through a session.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod arguments;
mod asked;
mod effects;
mod hosts;
mod render;
mod ship;
mod sources;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::variables;

use crate::arguments::Arguments;
use crate::asked::Place;
use crate::render::{Form, Line, Output};
use crate::verbs::{Desk, Stop};

fn main() -> ExitCode {
    let asked =
        Arguments::try_parse().and_then(|arguments| arguments.into_command(&who(), jiff::Timestamp::now()));
    let (place, command) = match asked {
        Ok(asked) => asked,
        Err(error) => return usage(&error),
    };
    let output = Output::new(if place.json { Form::Json } else { Form::Text });
    let ended = with_ambient(place)
        .map_err(Stop::from)
        .and_then(|place| verbs::carry_out(&Desk { place, output }, command));
    ExitCode::from(ended.unwrap_or_else(|stop| tell(output, &stop)))
}

/// Help and version are answers; all else is wrong usage. Clap words them itself.
fn usage(error: &clap::Error) -> ExitCode {
    // Where nobody listens there is nobody to tell, either.
    error.print().ok();
    ExitCode::from(if error.use_stderr() { Exit::Usage.code() } else { Exit::Done.code() })
}

/// Says why a verb did not end well; what to exit with.
fn tell(output: Output, stop: &Stop) -> u8 {
    let Some(failure) = stop.failure() else { return Exit::Done.code() };
    if let Some(problems) = stop.problems() {
        output.talk(&render::problems(problems));
        if output.form() == Form::Json {
            for line in render::problem_lines(problems) {
                output.json(&line).ok();
            }
        }
    }
    let exit = failure.exit.code();
    if output.form() == Form::Json {
        output.json(&Line::Failure { exit, failure: &failure }).ok();
    }
    output.talk(&render::failure(&failure));
    exit
}

/// `CUTOVER_ENV`, where the command line names no environment.
fn with_ambient(place: Place) -> Result<Place, Failure> {
    let ambient = std::env::var(variables::ENVIRONMENT).ok().filter(|name| !name.is_empty());
    let environment = match (place.environment, ambient) {
        (Some(named), _) => Some(named),
        (None, None) => None,
        (None, Some(name)) => Some(name.parse().map_err(|error| {
            Failure::new(Exit::Usage, format!("{} is no environment's name", variables::ENVIRONMENT))
                .because(format!("{error}"))
                .next("`-e ENV` names one on the command line")
        })?),
    };
    Ok(Place { environment, ..place })
}

/// Who asks: user and machine.
fn who() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}
