//! Why a conversation with a host did not go on.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;

use super::far::far;
use super::opening::Ended;
use super::prose::{self, Sudo};
use super::ssh;
use super::target::Target;

/// Why a conversation with a host did not go on.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct HostError {
    /// With whom; `None` where it is not known at the place that found out.
    with: Option<Target>,
    why: Box<Trouble>,
}

/// What is in the way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// No `cutover-host` on this machine.
    #[error("no cutover-host was found; looked for {}", looked.join(", "))]
    NoBinary { looked: Vec<String> },
    /// No ssh on this machine.
    #[error("there is no {program}")]
    NoSsh { program: String },
    /// It is there and could not be started.
    #[error("{binary} could not be started: {error}")]
    Start { binary: String, error: std::io::Error },
    /// The other end is gone, or a pipe broke.
    #[error("the session ended: {why}")]
    Lost { why: String },
    /// The other end was there, and is gone.
    #[error("{why}")]
    Broken { why: String },
    /// ssh did not get us there.
    #[error("ssh: {}", said.join(" · "))]
    Unreached { said: Vec<String> },
    /// The server has no `cutover-host`.
    #[error("there is no cutover-host")]
    Absent,
    /// We are not root on the server, and may not become it.
    #[error("{0}")]
    NoSudo(String),
    /// It is there and says nothing.
    #[error("it said nothing in {seconds} s")]
    Silent { seconds: u64 },
    /// It said something that is no message, or not the one that was due.
    #[error("the session does not speak this protocol: {0}")]
    Protocol(String),
    /// It speaks another version.
    #[error("cutover is {ours}, cutover-host is {theirs}")]
    Version { ours: String, theirs: String, behind: Behind },
    /// It said why not.
    #[error("{0}")]
    Failed(Box<Failure>),
}

/// Which side is of the older version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    Here,
    There,
}

impl Trouble {
    /// Why a session ended that nobody could speak with yet.
    pub(super) fn before_greeting(target: &Target, why: &str, ended: &Ended) -> Self {
        let code = ended.status.and_then(|status| status.code());
        match (target, code) {
            (Target::Server(_), Some(ssh::OWN_FAILURE)) => Self::Unreached { said: ended.said.clone() },
            (Target::Server(_), Some(ssh::ABSENT)) => Self::Absent,
            (Target::Server(_), Some(ssh::NO_SUDO)) => Self::NoSudo("there is no sudo".to_owned()),
            (Target::Server(_), Some(1)) if prose::sudo(&ended.said) == Some(Sudo::NotFound) => Self::Absent,
            (Target::Server(_), Some(1)) if prose::sudo(&ended.said).is_some() => {
                Self::NoSudo(prose::telling(&ended.said).join(" · "))
            }
            _ => {
                let why = ended.status.map_or_else(|| why.to_owned(), |status| status.to_string());
                Self::Lost { why: with_words(why, &ended.said) }
            }
        }
    }

    /// Why a conversation broke off.
    pub(super) fn in_the_middle(target: &Target, why: String, ended: &Ended) -> Self {
        match target {
            Target::Here => Self::Lost { why },
            Target::Server(_) => match prose::telling(&ended.said).last() {
                Some(said) => Self::Broken { why: said.clone() },
                None => Self::Broken { why },
            },
        }
    }
}

fn with_words(why: String, said: &[String]) -> String {
    if said.is_empty() { why } else { format!("{why}; it said: {}", said.join(" · ")) }
}

impl HostError {
    pub(super) fn new(with: Target, why: Trouble) -> Self {
        Self { with: Some(with), why: Box::new(why) }
    }

    /// The reply that came is not the one that was due.
    pub(super) fn unexpected(problem: String) -> Self {
        Self { with: None, why: Box::new(Trouble::Protocol(problem)) }
    }

    /// The four answers, for a conversation in which nothing had been set going yet.
    pub(crate) fn failure(self) -> Failure {
        match self.with {
            Some(Target::Server(server)) => far(*self.why, &server),
            Some(Target::Here) | None => near(*self.why),
        }
    }

    /// Whether ssh let us knock, and none of our keys in: another try is one more that sshd counts against us.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(&*self.why, Trouble::Unreached { said } if prose::ssh(said) == prose::Unreached::Denied)
    }

    /// The four answers once a command was set going inside an instance.
    pub(crate) fn failure_of_command(self) -> Failure {
        let on = self.with.as_ref().map_or("the host", Target::shown).to_owned();
        match *self.why {
            Trouble::Failed(failure) => *failure,
            other => Failure::new(Exit::Unknown, "the connection was lost; how the command ended is not known")
                .because(other.to_string())
                .while_serving(format!("what was serving on {on} goes on"))
                .next("see what the command has done before you run it again: it is ended when the host notices, after 15 s at most"),
        }
    }

    /// The four answers once an upgrade was set going.
    pub(crate) fn failure_of_upgrade(self) -> Failure {
        if let Trouble::Failed(failure) = *self.why {
            return *failure;
        }
        let mut failure = self.failure();
        failure.exit = Exit::Unknown;
        failure
            .while_serving(
                "not known from here: what is being handed over comes to its end on the server by itself, with the new cutover-host or the one before",
            )
            .next("`cutover upgrade` again waits for it, and goes on from there")
    }

    /// The four answers once a teardown was set going: it goes on for as long as its session does.
    pub(crate) fn failure_of_teardown(self) -> Failure {
        if let Trouble::Failed(failure) = *self.why {
            return *failure;
        }
        let mut failure = self.failure();
        failure.exit = Exit::Unknown;
        failure
            .while_serving("not known from here: proxy and watch may be stopped; instances run on")
            .next("`cutover teardown` goes on from there, and `cutover setup` brings them back")
    }

    /// The four answers once a run was set going: the host may well carry it out.
    pub(crate) fn failure_of_run(self, run: &str) -> Failure {
        let on = self.with.as_ref().map_or("the host", Target::shown).to_owned();
        match *self.why {
            Trouble::Failed(failure) => *failure,
            other => Failure::new(Exit::Unknown, "the connection was lost; how the run ended is not known")
                .because(other.to_string())
                .while_serving(format!("not known from here; run {run} goes on by itself on {on}"))
                .next("`cutover attach` follows it again; `cutover status` shows what is serving"),
        }
    }
}

/// On this machine.
fn near(why: Trouble) -> Failure {
    let what = "this machine's cutover-host session did not answer";
    match why {
        Trouble::NoBinary { looked } => looked
            .into_iter()
            .fold(Failure::new(Exit::Failed, "`cutover-host` was not found"), |failure, place| {
                failure.because(format!("not at {place}"))
            })
            .next("install cutover-host beside cutover, or name it in CUTOVER_HOST_BINARY"),
        Trouble::Start { binary, error } => Failure::new(Exit::Failed, what)
            .because(format!("{binary} could not be started: {error}"))
            .next("see that it is there, made for this machine, and may be run"),
        Trouble::Silent { .. } => Failure::new(Exit::Failed, what)
            .because(why.to_string())
            .next("run `cutover-host session` by hand: it greets at once whoever says hello, or says what is in its way"),
        Trouble::Protocol(problem) => Failure::new(Exit::Failed, what)
            .because(format!("it does not speak this protocol: {problem}"))
            .next("install cutover and cutover-host of the same version; nothing else (a wrapper, a login script) may write to its output"),
        Trouble::Version { ours, theirs, .. } => {
            Failure::new(Exit::Failed, "cutover and cutover-host are of different versions")
                .because(format!("cutover is {ours}, cutover-host is {theirs}"))
                .next("install both of the same version")
        }
        Trouble::Failed(failure) => *failure,
        Trouble::Lost { .. }
        | Trouble::Broken { .. }
        | Trouble::Unreached { .. }
        | Trouble::Absent
        | Trouble::NoSudo(_)
        | Trouble::NoSsh { .. } => Failure::new(Exit::Failed, what)
            .because(why.to_string())
            .next("run `cutover-host session` by hand: it says what is in its way"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_let_in_does_not_knock_again() {
        let unreached = |line: &str| HostError {
            with: None,
            why: Box::new(Trouble::Unreached { said: vec![line.to_owned()] }),
        };
        assert!(unreached("root@127.0.0.1: Permission denied (publickey).").is_denied());
        assert!(!unreached("ssh: connect to host 127.0.0.1 port 22: Connection refused").is_denied());
    }
}
