//! A server over SSH: a real sshd, the system's own ssh, a relay between them, and constant traffic.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

mod files;
mod lost;
mod refused;
mod trust;
mod verbs;

use cutover_testkit::site::{App, Binaries, Site, Told};

/// A server, or the word that there can be none here.
pub(crate) fn server(test: &str) -> Option<Site> {
    match Site::over_ssh(Binaries::beside_this_program().unwrap()).unwrap() {
        Ok(site) => Some(site),
        Err(why) => {
            println!("not run: {test}: {why}");
            None
        }
    }
}

/// Runs a command, which executes ssh once.
pub(crate) async fn once(app: &App<'_>, words: &[&str], exit: i32) -> Told {
    let client = &app.site().remote().client;
    let before = client.executions();
    let told = app.cutover(words).await.unwrap().expect(exit).unwrap();
    assert_eq!(client.executions() - before, 1, "{words:?}");
    told
}
