//! Every environment variable that cutover reads, and every one it gives to instances.

/// Moves all state under one folder.
pub const ROOT: &str = "CUTOVER_ROOT";
/// The environment, where `-e` is not given.
pub const ENVIRONMENT: &str = "CUTOVER_ENV";
/// Where the proxy listens for HTTP: `address:port`.
pub const HTTP: &str = "CUTOVER_HTTP";
/// Where the proxy listens for HTTPS: `address:port`.
pub const HTTPS: &str = "CUTOVER_HTTPS";
/// The `cutover-host` to start on this machine, where it does not lie beside `cutover`.
pub const HOST_BINARY: &str = "CUTOVER_HOST_BINARY";
/// The ssh program that reaches servers, instead of the `ssh` of `PATH`.
pub const SSH: &str = "CUTOVER_SSH";
/// The container engine's address, as its own tools read it.
pub const DOCKER_HOST: &str = "DOCKER_HOST";

/// What each variable that is read means, for the docs and `--help`.
pub const READ: [(&str, &str); 7] = [
    (ROOT, "moves all state of this machine under one folder"),
    (ENVIRONMENT, "the environment, where `-e` is not given"),
    (HTTP, "where the proxy listens for HTTP: address:port"),
    (HTTPS, "where the proxy listens for HTTPS: address:port"),
    (HOST_BINARY, "the cutover-host to start on this machine, where it does not lie beside cutover"),
    (SSH, "the ssh program that reaches servers, instead of the one of PATH"),
    (DOCKER_HOST, "the container engine's address"),
];

/// Given to every instance.
pub mod given {
    /// The port to listen on.
    pub const PORT: &str = "PORT";
    /// The app's name.
    pub const APP: &str = "CUTOVER_APP";
    /// The environment's name.
    pub const ENVIRONMENT: &str = "CUTOVER_ENVIRONMENT";
    /// The service's name.
    pub const SERVICE: &str = "CUTOVER_SERVICE";
    /// The release's id.
    pub const RELEASE: &str = "CUTOVER_RELEASE";
    /// The full commit id; empty without git.
    pub const COMMIT: &str = "CUTOVER_COMMIT";
    /// `--version`; empty without.
    pub const VERSION: &str = "CUTOVER_VERSION";
    /// `blue` or `green`.
    pub const SLOT: &str = "CUTOVER_SLOT";
    /// The instance's id: `app/environment/instance`. What is left of it is found by this (S10).
    pub const INSTANCE: &str = "CUTOVER_INSTANCE";
    /// By which name clients of `PostgreSQL` show in its list; given to migrations only.
    pub const DATABASE_CLIENT: &str = "PGAPPNAME";
    /// The schema's version before the migration that is taken back; given to `down` commands only.
    pub const SCHEMA_BEFORE: &str = "CUTOVER_SCHEMA_BEFORE";
    /// The id of the installation that started it, for the same search.
    pub const INSTALLATION: &str = "CUTOVER_INSTALLATION";
}
