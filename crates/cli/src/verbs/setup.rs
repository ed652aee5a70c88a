//! `setup` makes a fresh server a host; `upgrade` puts this release's `cutover-host` there; `teardown` undoes what setup did.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use cutover_core::config::Selection;
use cutover_core::config::settings::Config;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::{AppId, EnvironmentName};
use cutover_core::setup::{Change, Ingress, Listener, Wanted};
use cutover_core::wire::{Ask, Reply, SetupAsk, SetupReply};

use super::{Desk, Ended, Stop, approval};
use crate::asked::{Command, Place, ServerAsked, ServerVerb};
use crate::effects::{self, Question};
use crate::hosts::{self, Channel, HostError, Server, Target, unexpected};
use crate::render::Line;
use crate::sources::Project;

/// For the second connection to come in, tried again and again.
const TRIES: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(crate) struct SetupArguments {
    /// The environment
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
    /// Show what would be changed and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Answer every question with yes
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArguments {
    /// The environment
    #[arg(value_name = "ENV")]
    word: Option<EnvironmentName>,
    /// Answer every question with yes
    #[arg(short, long)]
    yes: bool,
}

impl SetupArguments {
    pub(crate) fn into_command(self, place: &mut Place) -> Result<Command, clap::Error> {
        place.also(self.word)?;
        Ok(Command::Server(ServerAsked { verb: ServerVerb::Setup, dry_run: self.dry_run, yes: self.yes }))
    }
}

impl ServerArguments {
    pub(crate) fn into_command(self, verb: ServerVerb, place: &mut Place) -> Result<Command, clap::Error> {
        place.also(self.word)?;
        Ok(Command::Server(ServerAsked { verb, dry_run: false, yes: self.yes }))
    }
}

pub(super) async fn server(desk: &Desk, asked: ServerAsked) -> Ended {
    match asked.verb {
        ServerVerb::Setup => setup(desk, asked).await,
        ServerVerb::Upgrade => upgrade(desk, asked).await,
        ServerVerb::Teardown => teardown(desk, asked).await,
    }
}

/// The configuration of the environment, and its server.
fn read(desk: &Desk) -> Result<(Config, Server), Stop> {
    let project = Project::open(&desk.place)?;
    let selection = Selection { environment: desk.place.environment.clone(), ..Selection::default() };
    let config = project.config(&selection)?;
    match project.target(&config) {
        Target::Server(server) => Ok((config, *server)),
        Target::Here => Err(Failure::new(
            Exit::Usage,
            format!("environment `{}` is on this machine, which needs no setup", config.id.environment),
        )
        .because("it names no `hosts:`")
        .next("name the server: `hosts: [user@server]`; on this machine the first deploy starts all that is needed")
        .into()),
    }
}

fn question(config: &Config, about: &str) -> Question {
    if config.protected { effects::of_protected(about, &config.id) } else { Question::None }
}

async fn setup(desk: &Desk, asked: ServerAsked) -> Ended {
    let (config, server) = read(desk)?;
    let (mut channel, program) = hosts::bootstrap(&server).await?;
    let wanted = wanted(&config, program);
    let (changes, warnings) = look(&mut channel, &wanted).await?;
    for warning in &warnings {
        desk.output.talk(&format!("warning: {warning}"));
    }
    if changes.is_empty() {
        desk.output.talk(&format!("{} is a host already: nothing to change", server.name));
        desk.output.answer_json(&Line::Done)?;
        return Ok(Exit::Done.code());
    }
    if asked.dry_run {
        for change in &changes {
            desk.output.answer(&Line::Setup { change, done: false }, || change.sentence())?;
        }
        return Ok(Exit::Done.code());
    }
    if !asked.yes {
        approval::answer(desk, &of_cuts(question(&config, "setup"), &changes))?;
    }
    desk.output.talk(&format!("setting {} up:", server.name));
    carry_out(desk, &server, &mut channel, &wanted).await?;
    let (left, _) = look(&mut channel, &wanted).await?;
    if let Some(change) = left.first() {
        return Err(Failure::new(Exit::Failed, format!("{} is not as it should be", server.name))
            .because(format!("this was done, and is to be done again: {}", change.sentence()))
            .while_serving("what was serving goes on")
            .next("see what changes it back on the server; `cutover setup` tries again")
            .into());
    }
    desk.output
        .talk(&format!("{} is a host: `cutover deploy {}` comes next", server.name, config.id.environment));
    desk.output.answer_json(&Line::Done)?;
    Ok(Exit::Done.code())
}

/// Who is heard or comes in now, and would not any longer, is asked about, whatever else is.
fn of_cuts(question: Question, changes: &[Change]) -> Question {
    let abouts: Vec<String> = [about_cuts(changes), about_logins(changes)].into_iter().flatten().collect();
    if abouts.is_empty() {
        return question;
    }
    let about = abouts.join("\n");
    match question {
        Question::None => Question::Yes(about),
        Question::Yes(other) => Question::Yes(format!("{about}\n{other}")),
        Question::Type { name, about: other } => Question::Type { name, about: format!("{about}\n{other}") },
    }
}

fn about_cuts(changes: &[Change]) -> Option<String> {
    let cuts: BTreeSet<&Listener> = changes.iter().flat_map(Change::cuts).collect();
    let portless: BTreeSet<&str> = changes.iter().flat_map(Change::portless).collect();
    if cuts.is_empty() && portless.is_empty() {
        return None;
    }
    let named = cuts.iter().map(ToString::to_string).chain(portless.iter().map(|one| (*one).to_owned()));
    let named: Vec<String> = named.collect();
    let openings: BTreeSet<String> = cuts.iter().map(|cut| cut.opening()).collect();
    let openings: Vec<String> = openings.into_iter().collect();
    let leaves = if openings.is_empty() {
        String::new()
    } else {
        let those = if portless.is_empty() { "it" } else { "those with a port" };
        format!(" `setup: {{ open: [{}] }}` of the environment leaves {those} open,", openings.join(", "))
    };
    Some(format!(
        "the firewall cuts off what listens on the server now: {};{leaves} `setup: {{ firewall: false }}` leaves the firewall alone",
        named.join(", ")
    ))
}

fn about_logins(changes: &[Change]) -> Option<String> {
    let names: BTreeSet<&str> = changes.iter().flat_map(Change::locks_out).collect();
    let names: Vec<&str> = names.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "sshd takes no passwords any more, and these have one and no key: {}; give them one (`~/.ssh/authorized_keys`), or `setup: {{ ssh_hardening: false }}` of the environment leaves sshd alone",
            names.join(", ")
        )
    })
}

fn wanted(config: &Config, program: String) -> Wanted {
    let routed = config.services.values().any(|service| service.route.is_some());
    Wanted {
        backups: config.backup.is_some(),
        app: config.id.clone(),
        program,
        settings: config.setup.clone(),
        ingress: if routed { Ingress::Routes } else { Ingress::None },
        secrets: config.generate.clone(),
    }
}

async fn look(channel: &mut Channel, wanted: &Wanted) -> Result<(Vec<Change>, Vec<String>), Stop> {
    match ask(channel, SetupAsk::Look { wanted: Box::new(wanted.clone()) }).await? {
        SetupReply::Decision { changes, warnings } => Ok((changes, warnings)),
        other => Err(unexpected("decision", &Reply::Setup(other)).into()),
    }
}

async fn ask(channel: &mut Channel, ask: SetupAsk) -> Result<SetupReply, HostError> {
    match channel.answer(&Ask::Setup(ask)).await? {
        Reply::Setup(reply) => Ok(reply),
        other => Err(unexpected("setup", &other)),
    }
}

/// Tells each change that was made; what is on trial is confirmed by a connection of its own.
async fn carry_out(desk: &Desk, server: &Server, channel: &mut Channel, wanted: &Wanted) -> Result<(), Stop> {
    channel.ask(&Ask::Setup(SetupAsk::Change { wanted: Box::new(wanted.clone()) })).await?;
    loop {
        match channel.reply().await.map_err(broken_off)? {
            Reply::Setup(SetupReply::Changed { change }) => told(desk, &change)?,
            Reply::Setup(SetupReply::Trial { token, seconds, changes }) => {
                confirm(server, channel, token, seconds).await?;
                return changes.iter().try_for_each(|change| told(desk, change));
            }
            Reply::Done => return Ok(()),
            other => return Err(unexpected("setup", &other).into()),
        }
    }
}

/// Something was touched already, unless the server itself says otherwise.
fn broken_off(error: HostError) -> Failure {
    let failure = error.failure();
    if failure.state != Failure::new(failure.exit, "").state {
        return failure;
    }
    failure
        .while_serving("what was serving goes on; the changes told above stay, and what was on trial is taken back within a minute")
        .next("`cutover setup` goes on from there")
}

fn told(desk: &Desk, change: &Change) -> Result<(), Stop> {
    Ok(desk.output.answer(&Line::Setup { change, done: true }, || format!("  {}", change.sentence()))?)
}

/// Comes in anew, past every connection that is open or shared: who can, is not locked out.
async fn confirm(server: &Server, first: &mut Channel, token: String, seconds: u64) -> Result<(), Stop> {
    let second = async || {
        let mut channel = hosts::open_anew(server).await?;
        channel.ask(&Ask::Setup(SetupAsk::Confirm { token: token.clone() })).await?;
        channel.done().await
    };
    let end = tokio::time::Instant::now() + TRIES;
    let error = loop {
        match second().await {
            Ok(()) => return Ok(()),
            // An sshd that reads its settings again lets nobody in for a moment.
            Err(error) if !error.is_denied() && tokio::time::Instant::now() < end => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => break error,
        }
    };
    let taken_back = async {
        first.ask(&Ask::Setup(SetupAsk::TakeBack { token: token.clone() })).await?;
        first.done().await
    };
    let state = match taken_back.await {
        Ok(()) => {
            "firewall and sshd are as they were before; the rest of setup stays; what was serving goes on"
                .to_owned()
        }
        Err(_) => format!(
            "unless the confirmation arrived there, firewall and sshd go back to what they were within {seconds} s, by themselves; what was serving goes on"
        ),
    };
    let failure = error.failure();
    let mut told = Failure::new(Exit::Failed, "a second connection did not come in: firewall and sshd were not changed")
        .because(failure.what)
        .while_serving(state)
        .next("see by which port and which way you reach this server; `setup: { open: [PORT] }` of the environment leaves a port open")
        .next("or switch it off: `setup: { firewall: false }`, `setup: { ssh_hardening: false }`");
    told.cause.extend(failure.cause);
    Err(told.into())
}

async fn upgrade(desk: &Desk, asked: ServerAsked) -> Ended {
    let (config, server) = read(desk)?;
    if !asked.yes {
        approval::answer(desk, &question(&config, "upgrade"))?;
    }
    let (mut channel, program) = hosts::bootstrap(&server).await?;
    let reply = ask(&mut channel, SetupAsk::Upgrade { program }).await;
    shown(desk, reply.map_err(HostError::failure_of_upgrade)?)
}

async fn teardown(desk: &Desk, asked: ServerAsked) -> Ended {
    let (config, server) = read(desk)?;
    let app: AppId = config.id.clone();
    let mut channel = hosts::open(&Target::Server(Box::new(server.clone()))).await?;
    let SetupReply::Told { lines: what } = ask(&mut channel, SetupAsk::LookUndo { app: app.clone() }).await?
    else {
        return Err(Failure::new(Exit::Failed, "the server did not say what would be undone").into());
    };
    if !asked.yes {
        let about = format!("this undoes the setup of {}:\n  {}", server.name, what.join("\n  "));
        let open = Question::Yes(about.clone());
        let asked = if config.protected { question(&config, &format!("{about}\nteardown")) } else { open };
        approval::answer(desk, &asked)?;
    }
    let reply = ask(&mut channel, SetupAsk::Undo { app }).await;
    shown(desk, reply.map_err(HostError::failure_of_teardown)?)
}

fn shown(desk: &Desk, reply: SetupReply) -> Ended {
    match reply {
        SetupReply::Told { lines } => {
            for line in &lines {
                desk.output.answer(&Line::Told { text: line }, || line.clone())?;
            }
            Ok(Exit::Done.code())
        }
        other => Err(unexpected("told", &Reply::Setup(other)).into()),
    }
}

#[cfg(test)]
mod tests {
    use cutover_core::setup::{Act, Item};

    use super::*;

    #[test]
    fn what_is_cut_off_is_asked_about_also_where_nothing_is_protected() {
        let firewall = |cuts: &[Listener]| Change {
            item: Item::Firewall,
            act: Act::Firewall {
                rules: String::new(),
                open: [22].into(),
                udp: [].into(),
                cuts: cuts.iter().cloned().collect(),
                portless: [].into(),
            },
        };
        assert_eq!(of_cuts(Question::None, &[firewall(&[])]), Question::None);
        let listener = Listener { name: "dnsmasq".to_owned(), udp: true, port: 53 };
        let Question::Yes(about) = of_cuts(Question::None, &[firewall(&[listener])]) else {
            panic!("not asked")
        };
        assert_eq!(
            about,
            "the firewall cuts off what listens on the server now: dnsmasq (UDP 53); `setup: { open: [53/udp] }` of the environment leaves it open, `setup: { firewall: false }` leaves the firewall alone"
        );
    }

    #[test]
    fn who_cannot_be_let_in_by_a_port_and_who_has_no_key_are_asked_about() {
        let firewall = Act::Firewall {
            rules: String::new(),
            open: [22].into(),
            udp: [].into(),
            cuts: [].into(),
            portless: ["keepalived (IP protocol 112)".to_owned()].into(),
        };
        let sshd = Act::Sshd { text: String::new(), locks_out: ["ann".to_owned(), "bob".to_owned()].into() };
        let changes =
            [Change { item: Item::Firewall, act: firewall }, Change { item: Item::SshHardening, act: sshd }];
        let Question::Yes(about) = of_cuts(Question::None, &changes) else { panic!("not asked") };
        assert_eq!(
            about,
            "the firewall cuts off what listens on the server now: keepalived (IP protocol 112); `setup: { firewall: false }` leaves the firewall alone\n\
             sshd takes no passwords any more, and these have one and no key: ann, bob; give them one (`~/.ssh/authorized_keys`), or `setup: { ssh_hardening: false }` of the environment leaves sshd alone"
        );
    }
}
