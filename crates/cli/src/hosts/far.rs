//! Why a conversation with a server did not go on, as people are told: the four answers of each.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;

use super::error::{Behind, Trouble};
use super::prose::{self, Unreached};
use super::target::Server;

/// The four answers, for a conversation in which nothing had been set going yet.
pub(super) fn far(why: Trouble, server: &Server) -> Failure {
    let (name, environment) = (&server.name, &server.environment);
    let failed = |what: String| Failure::new(Exit::Failed, what);
    let no_answer = || failed(format!("cutover-host on {name} did not answer"));
    let by_hand =
        format!("`{} sudo cutover-host session` by hand shows what is in its way", server.by_hand());
    match why {
        Trouble::Failed(failure) => *failure,
        Trouble::Unreached { said } => unreached(&said, server),
        Trouble::NoSsh { program } => failed(format!("{name} cannot be reached"))
            .because(format!("there is no program `{program}` on this machine"))
            .next("install the OpenSSH client (`apt-get install openssh-client`), or name another in CUTOVER_SSH"),
        Trouble::Start { binary, error } => failed(format!("{name} cannot be reached"))
            .because(format!("{binary} could not be started: {error}"))
            .next("see that it may be run"),
        Trouble::Absent => failed(format!("{name} has no cutover-host"))
            .because("the program was not found where a session there looks for it")
            .next(format!("`cutover setup {environment}` makes the server a host")),
        Trouble::NoSudo(why) => failed(format!("the session on {name} may not become root"))
            .because(why)
            .next(format!("log in as root, or as a user whose sudo asks for no password: `hosts: [root@{}]`", name.address()))
            .next(format!("`cutover setup {environment}`, run once by such a user, makes a deploy user that may")),
        Trouble::Protocol(problem) => no_answer()
            .because(format!("it does not speak this protocol: {problem}"))
            .next("nothing else may write to the output of a session: see ~/.bashrc, /etc/profile and ForceCommand there"),
        Trouble::Version { ours, theirs, behind } => {
            let failure = failed("cutover and cutover-host are of different versions".to_owned())
                .because(format!("cutover is {ours}, cutover-host on {name} is {theirs}"));
            failure.next(match behind {
                Behind::There => format!("`cutover upgrade {environment}` brings {name} to the version of this cutover"),
                Behind::Here => format!("install cutover {theirs} on this machine, which is behind"),
            })
        }
        Trouble::Broken { why } => failed(format!("the connection to {name} was lost"))
            .because(why)
            .next("run the command again once the network is there"),
        Trouble::Silent { .. } | Trouble::Lost { .. } | Trouble::NoBinary { .. } => {
            no_answer().because(why.to_string()).next(by_hand)
        }
    }
}

/// ssh did not get us there.
fn unreached(said: &[String], server: &Server) -> Failure {
    let name = &server.name;
    let with = |what: String| {
        prose::telling(said).into_iter().fold(Failure::new(Exit::Failed, what), Failure::because)
    };
    let away = || with(format!("{name} cannot be reached"));
    let trust = format!(
        "`cutover key trust {name}` shows the fingerprint and, once you have compared it, writes it beside cutover.yml"
    );
    match prose::ssh(said) {
        Unreached::UnknownKey => Failure::new(Exit::Failed, format!("the host key of {name} is not known"))
            .because(prose::telling(said).into_iter().next().unwrap_or_default())
            .next(trust),
        Unreached::ChangedKey { known_in, sent, removed_by } => {
            changed(server, known_in.as_deref(), sent.as_deref(), removed_by.as_deref()).next(trust)
        }
        Unreached::RevokedKey => Failure::new(Exit::Failed, format!("the host key of {name} is marked as revoked"))
            .because(prose::telling(said).into_iter().rfind(|line| line.contains("revoked")).unwrap_or_default())
            .next("do not connect: ask who marked it in known_hosts, and why"),
        Unreached::Denied => with(format!("{name} did not let us in"))
            .next("`ssh-add -l` shows the keys of your agent; one of them has to stand in authorized_keys there")
            .next(format!("the user is part of the name: `hosts: [USER@{}]`, or `User` in ~/.ssh/config", name.address())),
        Unreached::Refused => {
            away().next("see that the server is up, and that sshd listens on that port: `hosts: [user@host:port]`")
        }
        Unreached::TimedOut | Unreached::Unreachable => away()
            .next("see that the server is up, and that no firewall or missing VPN lies between"),
        Unreached::Unresolved => {
            away().next("see how the name is spelt: DNS and ~/.ssh/config both have a say in it")
        }
        Unreached::Configuration => away().next("mend ssh's configuration: `ssh -G` checks it"),
        Unreached::Other => away().next(format!("`{}` by hand shows what is in its way", server.by_hand())),
    }
}

fn changed(server: &Server, known_in: Option<&str>, sent: Option<&str>, removed_by: Option<&str>) -> Failure {
    let name = &server.name;
    let failure = Failure::new(Exit::Failed, format!("the host key of {name} has changed"))
        .because(format!(
            "it sent the key {}; the one that is known stands in {}",
            sent.unwrap_or("of another fingerprint"),
            known_in.unwrap_or("another place"),
        ))
        .because("either the server was made anew, or somebody stands between you and it")
        .next("ask who runs the server for its fingerprint: `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there");
    match removed_by {
        Some(command) => failure.next(format!("only if it is the same, remove the old one: `{command}`")),
        None => failure,
    }
}
