//! The only user of the container engine's API: Docker Engine from 20.10 on. Podman answers most of the same calls through
//! its compatible socket, but not all, and is not tested here.
//!
//! Used by the CLI, which builds images, and by the host, which runs containers. It carries out single acts and tells
//! facts as plain data; it decides nothing, keeps nothing, and never prints. Names, labels and
//! deadlines come from the caller: a call is ended by dropping it, and every act can be repeated.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod build;
mod connect;
mod containers;
mod context;
mod error;
mod events;
mod filters;
#[cfg(unix)]
mod greeting;
mod identity;
mod images;
mod networks;
mod registry;
mod volumes;

pub use archive::{Archive, ArchiveLayer};
pub use build::{BaseImages, BuildCache, BuildError, BuildSpec, Built, OriginLabels};
pub use connect::{Engine, EngineInfo, Product, newest_api};
pub use containers::{
    Attached, Container, ContainerSpec, ContainerStreams, Created, Device, Endpoint, Environment,
    ExecCommand, ExecOutcome, ExecOutput, ExecSession, Exit, Health, HealthCheck, HealthStatus, HealthTest,
    Limits, Listed, LogLine, LogQuery, Logging, Mount, MountSource, Networking, OnceOutcome, OutputStream,
    Phase, Port, Protocol, Published, RemoveVolumes, RestartPolicy, State, TerminalSize, Ulimit,
};
pub use context::{Commit, Context, ContextError, ContextSource, ContextStream, Packed};
pub use error::{Certainty, EngineError, Kind};
pub use events::{ContainerEvent, Happening, Heard};
pub use identity::Image;
pub use images::{ListedImage, PullProgress};
pub use networks::{Network, NetworkSpec, NotASubnet, Subnet};
pub use registry::{Reference, RegistryLogin};
pub use volumes::Volume;
