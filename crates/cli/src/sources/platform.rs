//! For which machines an image is: a host runs those of its own kind.

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::names::ServiceName;
use cutover_engine::Image;

/// Whether a platform (`linux/amd64`) is what an engine on this machine builds anyway.
pub(super) fn is_of_this_machine(platform: &str) -> bool {
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    platform.split('/').nth(1) == Some(own)
}

/// What an image is for.
pub(super) fn of(image: &Image) -> String {
    format!("{}/{}", image.operating_system, image.architecture)
}

/// Refuses an image of another platform than `wanted`: it would not start there, or slowly. A variant (`linux/arm/v7`) makes no difference.
pub(super) fn refuse_other(service: &ServiceName, found: &str, wanted: &str) -> Result<(), Failure> {
    if found.split('/').take(2).eq(wanted.split('/').take(2)) {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("the image of `{service}` is not for this host"))
        .because(format!("it is for {found}, the host runs {wanted}"))
        .next(format!("base it on an image for {wanted}, or build on a machine of that kind"))
        .next(format!("where the host can run {found} all the same: `platform: {found}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_builds_for_itself() {
        assert!(is_of_this_machine("linux/amd64") != is_of_this_machine("linux/arm64"));
        assert!(!is_of_this_machine("linux/s390x"));
    }
}
