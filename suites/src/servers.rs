//! Servers of the tests' own, where there can be some.

use cutover_testkit::machine::{Image, Machine};

use crate::engine;

/// Carries out `test` on a server of its own; or says that the test of this name did not run, and why.
///
/// # Panics
/// When the server cannot be made though it could.
#[expect(clippy::print_stdout, reason = "the table of suites reads this line")]
pub async fn on_server(name: &str, image: Image, test: impl AsyncFnOnce(&Machine)) {
    match started(image).await {
        Err(why) => println!("not run: {name}: {why}"),
        Ok(machine) => test(&machine).await,
    }
}

/// A server, or why there is none.
///
/// # Errors
/// Why there can be none here.
///
/// # Panics
/// When the server cannot be made though it could.
pub async fn started(image: Image) -> Result<Machine, String> {
    engine::usable().await?;
    match Machine::start(image).await {
        Err(why) => panic!("no server of {}: {why:#}", image.name()),
        Ok(started) => started,
    }
}

/// The same as [`on_server`], on a server without systemd.
///
/// # Panics
/// When the server cannot be made though it could.
#[expect(clippy::print_stdout, reason = "the table of suites reads this line")]
pub async fn on_server_without_systemd(name: &str, image: Image, test: impl AsyncFnOnce(&Machine)) {
    if let Err(why) = engine::usable().await {
        return println!("not run: {name}: {why}");
    }
    match Machine::start_without_systemd(image).await {
        Err(why) => panic!("no server of {}: {why:#}", image.name()),
        Ok(Err(why)) => println!("not run: {name}: {why}"),
        Ok(Ok(machine)) => test(&machine).await,
    }
}
