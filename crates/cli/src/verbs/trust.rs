//! `key trust`: the keys that a server shows, and once a person (or a fingerprint that was given beforehand) has said that they are its own, a
//! line of each beside cutover.yml.

use std::io::IsTerminal as _;

use clap::Args;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{EnvironmentName, HostName};

use super::{Desk, Ended, approval};
use crate::asked::{Command, KeyAsked};
use crate::effects::Question;
use crate::hosts::{self, ShownKey, Target};
use crate::render::Line;
use crate::sources::Project;

#[derive(Debug, Args)]
pub(crate) struct KeyTrustArguments {
    /// The server, as `hosts` names it: [user@]host[:port]
    #[arg(value_name = "HOST")]
    host: HostName,
    /// What its key's fingerprint has to be: asks nothing then
    #[arg(long, value_name = "SHA256:…")]
    fingerprint: Option<String>,
}

impl KeyTrustArguments {
    pub(super) fn into_command(self) -> Command {
        Command::Key(KeyAsked::Trust { host: self.host, fingerprint: self.fingerprint })
    }
}

pub(super) fn trust(desk: &Desk, host: &HostName, fingerprint: Option<&str>) -> Ended {
    let project = Project::open(&desk.place)?;
    let environment =
        desk.place.environment.clone().map_or_else(|| "production".parse::<EnvironmentName>(), Ok);
    let environment = environment.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let Target::Server(server) = Target::of(std::slice::from_ref(host), &environment, &project.folder) else {
        return Ok(Exit::Failed.code());
    };
    let shown = hosts::shown_by(&server)?;
    let keys = match fingerprint {
        Some(fingerprint) => vec![the_one(host, &shown, fingerprint)?],
        None => all_approved(desk, host, &shown)?,
    };
    hosts::keep(&server.known_hosts, &keys)?;
    desk.output.talk(&format!("{host} is trusted: its keys stand in {}", server.known_hosts.display()));
    desk.output.answer_json(&Line::Done)?;
    Ok(Exit::Done.code())
}

/// The key whose fingerprint was given.
fn the_one<'a>(host: &HostName, shown: &'a [ShownKey], fingerprint: &str) -> Result<&'a ShownKey, Failure> {
    shown.iter().find(|key| key.fingerprint == fingerprint).ok_or_else(|| {
        let failure = Failure::new(Exit::Refused, format!("{host} shows no key with this fingerprint"));
        shown
            .iter()
            .fold(failure, |failure, key| {
                failure.because(format!("it shows {} ({})", key.fingerprint, key.kind))
            })
            .next("do not trust it before you know why: somebody may stand between you and the server")
    })
}

/// All of them, once a person has compared.
fn all_approved<'a>(
    desk: &Desk,
    host: &HostName,
    shown: &'a [ShownKey],
) -> Result<Vec<&'a ShownKey>, Failure> {
    let lines: Vec<String> = shown.iter().map(|key| format!("  {}  {}", key.fingerprint, key.kind)).collect();
    let about = format!(
        "{host} shows these keys:\n{}\nCompare them with what the server itself says (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there).",
        lines.join("\n")
    );
    if !std::io::stdin().is_terminal() {
        let failure =
            Failure::new(Exit::Usage, "a key is trusted by a person, and there is no terminal to ask on");
        let first = shown.first().map_or("SHA256:…", |key| key.fingerprint.as_str());
        return Err(lines
            .into_iter()
            .fold(failure, |failure, line| failure.because(format!("it shows {}", line.trim())))
            .next(format!("once you have compared it: `cutover key trust {host} --fingerprint {first}`")));
    }
    approval::answer(desk, &Question::Yes(about))?;
    Ok(shown.iter().collect())
}
