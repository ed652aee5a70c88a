//! `secrets rotate`: another password, in the server and in the variable together. It is a release of the same images with that variable changed,
//! and takes the way of `env set`; only that the server is given it while what is told it is stopped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use cutover_core::config::settings::Origin;
use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::secret::Secret;

use crate::asked::{Asked, EnvironmentChange};
use crate::effects;
use crate::hosts;
use crate::sources::{Overlay, Project};
use crate::verbs::{Desk, Ended, approval, env, look};

pub(in crate::verbs) async fn rotate(desk: &Desk, asked: Asked) -> Ended {
    let Asked { request, brings, conduct } = asked;
    let identity = Project::open(&desk.place)?.identity(&desk.place)?;
    let overlay = new_password(desk, brings.change, &request.allow)?;
    approval::approve(desk, &effects::question(&request, &identity.id, identity.protection), conduct)?;
    let opening = hosts::begin(&identity.target)?;
    let (host, state) = look(desk, opening, &identity.id, BTreeSet::new(), conduct).await?;
    let done = env::release(desk, host, &state, request, &overlay, conduct).await;
    done.map_err(|stop| stop.untouched(&state))
}

/// Made here, since the plan tells by its hash what it changes; it is shown nowhere, and is kept on the host only.
fn new_password(
    desk: &Desk,
    change: EnvironmentChange,
    allowed: &BTreeSet<cutover_core::plan::Rule>,
) -> Result<Overlay, Failure> {
    let Some(name) = change.made else { return env::values(desk, change, allowed) };
    let mut overlay = Overlay::default();
    overlay.origins.insert(name.clone(), Origin::Generated);
    overlay.values.insert(name, made()?);
    Ok(overlay)
}

/// 32 characters from the system's random numbers.
fn made() -> Result<Secret, Failure> {
    let mut bytes = [0_u8; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| {
        Failure::new(Exit::Failed, "no password can be made here")
            .because(format!("/dev/urandom: {error}"))
            .next("give one: `--ask` takes it from standard input")
    })?;
    Ok(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_password_that_is_made_is_another_one() {
        let (one, other) = (made().unwrap(), made().unwrap());
        assert_eq!(one.expose().len(), 32);
        assert_ne!(one, other);
    }
}
