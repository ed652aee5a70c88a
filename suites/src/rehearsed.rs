//! What a rehearsal of a migration could leave behind, whatever the engine of its database.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says what it heard"
)]

use cutover_core::journal::{Entry, What};
use cutover_core::layout::label;
use cutover_core::state::ReleaseRecord;
use cutover_host::store::Store;
use cutover_testkit::site::App;

use crate::engine::docker;

/// A verb of cutover's, expected to end with this code; gives all that was said.
///
/// # Panics
/// When it ends otherwise.
pub async fn told(app: &App<'_>, words: &[&str], exit: i32) -> String {
    let told = app.cutover(words).await.unwrap().expect(exit).unwrap();
    println!("--- {} ({exit})\n{}{}", words.join(" "), told.output, told.talk);
    format!("{}{}", told.output, told.talk)
}

/// Containers of the app with this in their name, whatever their state.
pub fn named(app: &App<'_>, name: &str) -> String {
    let by_app = format!("label={}={}", label::APP, app.id());
    docker(app.site(), &["ps", "--all", "--quiet", "--filter", &by_app, "--filter", &format!("name={name}")])
}

/// All of the app that a rehearsal could leave behind. Other apps come and go on the same engine.
///
/// # Panics
/// When the engine or the store does not tell.
pub fn left(app: &App<'_>) -> (Vec<String>, Vec<ReleaseRecord>) {
    let lists = [
        &["ps", "--all", "--format", "{{.Names}} {{.ID}}"][..],
        &["volume", "ls", "--format", "{{.Name}}"],
        &["network", "ls", "--format", "{{.Name}} {{.ID}}"],
        &["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"],
    ];
    let name = app.id().app.as_str();
    let listed = lists.map(|words| {
        let all = docker(app.site(), words);
        let mut lines: Vec<_> = all.lines().filter(|line| line.contains(name)).map(str::to_owned).collect();
        assert!(!lines.is_empty(), "{words:?}: {all}");
        lines.sort();
        lines.join("\n")
    });
    let store = Store::open(&app.site().layout()).unwrap();
    (listed.to_vec(), store.releases(app.id()).unwrap())
}

/// The entries of a journal at which a kill may leave something.
pub fn acts(journal: &[Entry]) -> Vec<u64> {
    let is_act =
        |what: &What| matches!(what, What::Intent { .. } | What::Outcome { .. } | What::Output { .. });
    journal.iter().filter(|entry| is_act(&entry.what)).map(|entry| entry.seq).collect()
}
