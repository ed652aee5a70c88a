//! Why a conversation with a host did not go on.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;

/// Why a conversation with a host did not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// No `cutover-host` on this machine.
    #[error("no cutover-host was found; looked for {}", looked.join(", "))]
    NoBinary { looked: Vec<String> },
    /// It is there and could not be started.
    #[error("{binary} could not be started: {error}")]
    Start { binary: String, error: std::io::Error },
    /// The other end is gone, or a pipe broke.
    #[error("the session ended: {why}")]
    Lost { why: String },
    /// It is there and says nothing.
    #[error("it said nothing in {seconds} s")]
    Silent { seconds: u64 },
    /// It said something that is no message, or not the one that was due.
    #[error("the session does not speak this protocol: {0}")]
    Protocol(String),
    /// It speaks another version.
    #[error("cutover is {ours}, cutover-host on the server is {theirs}")]
    Version { ours: String, theirs: String },
    /// It said why not.
    #[error("{0}")]
    Failed(Box<Failure>),
}

impl HostError {
    /// The four answers, for a conversation in which nothing had been set going yet.
    pub(crate) fn failure(self) -> Failure {
        let what = "this machine's cutover-host session did not answer";
        match self {
            Self::NoBinary { looked } => looked
                .into_iter()
                .fold(Failure::new(Exit::Failed, "`cutover-host` was not found"), |failure, place| {
                    failure.because(format!("not at {place}"))
                })
                .next("install cutover-host beside cutover, or name it in CUTOVER_HOST_BINARY"),
            Self::Start { binary, error } => Failure::new(Exit::Failed, what)
                .because(format!("{binary} could not be started: {error}"))
                .next("see that it is there, made for this machine, and may be run"),
            Self::Lost { why } => Failure::new(Exit::Failed, what)
                .because(format!("the session ended: {why}"))
                .next("run `cutover-host session` by hand: it says what is in its way"),
            Self::Silent { .. } => Failure::new(Exit::Failed, what)
                .because(self.to_string())
                .next("run `cutover-host session` by hand: it greets at once whoever says hello, or says what is in its way"),
            Self::Protocol(problem) => Failure::new(Exit::Failed, what)
                .because(format!("it does not speak this protocol: {problem}"))
                .next("install cutover and cutover-host of the same version; nothing else (a wrapper, a login script) may write to its output"),
            Self::Version { ours, theirs } => {
                Failure::new(Exit::Failed, "cutover and cutover-host are of different versions")
                    .because(format!("cutover is {ours}, cutover-host is {theirs}"))
                    .next("install both of the same version")
            }
            Self::Failed(failure) => *failure,
        }
    }

    /// The four answers once a run was set going: the host may well carry it out.
    pub(crate) fn failure_of_run(self, run: &str) -> Failure {
        match self {
            Self::Failed(failure) => *failure,
            other => Failure::new(Exit::Unknown, "the connection was lost; how the run ended is not known")
                .because(other.to_string())
                .while_serving(format!("not known from here; run {run} goes on by itself on the host"))
                .next("`cutover attach` follows it again; `cutover status` shows what is serving"),
        }
    }
}
