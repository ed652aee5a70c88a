//! Containers: what one is made of, its life, what it says of itself, its output, and commands run inside it.

mod attach;
mod body;
mod exec;
mod found;
mod inspect;
mod life;
mod logs;
mod once;
mod spec;

pub use attach::ContainerStreams;
pub use exec::{ExecCommand, ExecOutcome, ExecOutput, ExecSession, TerminalSize};
pub use found::{Attached, Container, Exit, Health, HealthStatus, Listed, Phase, Published, State};
pub(crate) use inspect::parse_port;
pub use life::{Created, RemoveVolumes};
pub use logs::{LogLine, LogQuery, OutputStream};
pub use once::OnceOutcome;
pub use spec::{
    ContainerSpec, Device, Endpoint, Environment, HealthCheck, HealthTest, Limits, Logging, Mount,
    MountSource, Networking, Port, Protocol, RestartPolicy, Ulimit,
};
