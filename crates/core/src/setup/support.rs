//! The distributions that setup knows.

use super::found::Distribution;
use crate::exit::Exit;
use crate::failure::Failure;

/// Id and version, and how people call it.
pub const SUPPORTED: [(&str, &str, &str); 4] = [
    ("debian", "12", "Debian 12"),
    ("debian", "13", "Debian 13"),
    ("ubuntu", "22.04", "Ubuntu 22.04"),
    ("ubuntu", "24.04", "Ubuntu 24.04"),
];

/// Refuses a system whose packages and files are not known.
///
/// # Errors
/// With the list of those that are.
pub fn refuse_unsupported(found: &Distribution) -> Result<(), Failure> {
    let fits = |known: &(&str, &str, &str)| known.0 == found.id && known.1 == found.version;
    if SUPPORTED.iter().any(fits) {
        return Ok(());
    }
    let known: Vec<&str> = SUPPORTED.iter().map(|known| known.2).collect();
    let known = known.join(", ");
    Err(Failure::new(Exit::Refused, format!("setup does not know {}", found.name))
        .because(format!("it knows {known}"))
        .next("take a server with one of these")
        .next("or prepare this one by hand: Docker Engine, and `cutover-host` at /usr/local/bin; then `cutover deploy` works without setup"))
}

/// Whether the engine's package comes without its client, which is one of its own.
pub(super) fn has_client_apart(found: &Distribution) -> bool {
    found.id == "debian" && found.version != "12"
}
