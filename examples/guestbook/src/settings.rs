//! What the environment says: the only place that reads environment variables.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("environment variable {0} is not set")]
    Missing(String),
    #[error("environment variable {name} is `{value}`, expected {expected}")]
    Wrong { name: &'static str, value: String, expected: &'static str },
}

/// Who this instance is, as whoever deployed it says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Identity {
    pub(crate) release: String,
    pub(crate) commit: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) slot: Option<String>,
    pub(crate) service: Option<String>,
}

impl Identity {
    pub(crate) fn from_environment() -> Self {
        Self {
            release: optional("CUTOVER_RELEASE").unwrap_or_else(|| "unreleased".to_owned()),
            commit: optional("CUTOVER_COMMIT"),
            version: optional("CUTOVER_VERSION"),
            slot: optional("CUTOVER_SLOT"),
            service: optional("CUTOVER_SERVICE"),
        }
    }
}

pub(crate) fn required(name: &str) -> Result<String, SettingsError> {
    optional(name).ok_or_else(|| SettingsError::Missing(name.to_owned()))
}

/// An empty value counts as none: that is what an unset variable in a template becomes.
pub(crate) fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `PORT`; 0 lets the system choose, and the address chosen is printed.
pub(crate) fn port() -> Result<u16, SettingsError> {
    parse("PORT", required("PORT")?, "a port number")
}

/// `HOST`: the address to listen on; every address of the machine when absent, as an instance in a container needs.
pub(crate) fn host() -> Result<IpAddr, SettingsError> {
    optional("HOST").map_or(Ok(IpAddr::from([0, 0, 0, 0])), |value| parse("HOST", value, "an IP address"))
}

pub(crate) fn database_file() -> Result<PathBuf, SettingsError> {
    required("DATABASE_FILE").map(PathBuf::from)
}

pub(crate) fn peer_url() -> Option<String> {
    optional("PEER_URL")
}

pub(crate) fn bot_ledger() -> Result<PathBuf, SettingsError> {
    required("BOT_LEDGER").map(PathBuf::from)
}

fn parse<T: std::str::FromStr>(
    name: &'static str,
    value: String,
    expected: &'static str,
) -> Result<T, SettingsError> {
    value.parse().map_err(|_| SettingsError::Wrong { name, value, expected })
}
