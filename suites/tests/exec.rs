//! `exec`: a command in a live instance or a fresh one, at a pipe or at a terminal, as plain processes and in containers.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use std::process::Stdio;

use cutover_suites::engine::{SHELL_IMAGE, on_engine, shell_image};
use cutover_suites::terminal::Terminal;
use cutover_testkit::site::{App, Binaries, Process, Site, Told};
use cutover_testkit::{SOON, wait_until};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What is piped in comes back, line by line and whole; the exit code is the command's, also where it closes its output long before.
async fn a_pipe_goes_through(app: &App<'_>, once: bool) {
    let script = "echo \"as $CUTOVER_SERVICE\"; cat; echo to-the-other >&2; exec >&- 2>&-; sleep 0.2; exit 3";
    let mut command = app.command(&words(once, &["sh", "-c", script]));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = "0123456789\n".repeat(20_000);
    let sent = text.clone();
    let sending = tokio::spawn(async move { input.write_all(sent.as_bytes()).await });
    let ended = tokio::time::timeout(2 * SOON, child.wait_with_output()).await.unwrap().unwrap();
    sending.await.unwrap().unwrap();
    let (output, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(3), "{errors}");
    assert_eq!(output, format!("as web\n{text}"), "{} bytes", output.len());
    assert!(errors.contains("to-the-other"), "{errors}");
}

/// As a shell starts what it puts in the background: an ignored signal is inherited by all that follows.
fn ignoring_signals(command: &Command) -> Command {
    let inner = command.as_std();
    let mut outer = Command::new("sh");
    outer
        .args(["-c", "trap '' INT QUIT HUP; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args());
    outer.current_dir(inner.get_current_dir().unwrap());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

/// Keys, size and a change of size reach it; Ctrl-C is a key for it, also where whoever began ignores it; the exit code is its own.
async fn a_terminal_goes_through(app: &App<'_>, once: bool) {
    let script = "trap 'stty size' WINCH; trap 'echo interrupted' INT; stty size; echo ready; \
                  while :; do read -r line; case $line in end) exec >/dev/null 2>&1 </dev/null; sleep 0.2; exit 7;; '') ;; *) echo \"got $line\";; esac; done";
    let command = ignoring_signals(&app.command(&words(once, &["sh", "-c", script])));
    let mut terminal = Terminal::with(&command, &app.site().binaries().host).unwrap();
    terminal.shows("ready").await.unwrap();
    // An engine tells a command the size once it runs already.
    terminal.types("\r").await.unwrap();
    terminal.shows("40 100").await.unwrap();
    terminal.types("hello\r").await.unwrap();
    terminal.shows("got hello").await.unwrap();
    terminal.resize(80, 24).unwrap();
    terminal.types("\r").await.unwrap();
    terminal.shows("24 80").await.unwrap();
    terminal.types("\u{3}\r").await.unwrap();
    terminal.shows("interrupted").await.unwrap();
    terminal.types("end\r").await.unwrap();
    assert_eq!(terminal.ends().await.unwrap(), Some(7));
}

fn words<'a>(once: bool, command: &[&'a str]) -> Vec<&'a str> {
    let begin: &[&str] = if once { &["exec", "--once", "web", "--"] } else { &["exec", "web", "--"] };
    [begin, command].concat()
}

async fn nothing_of_it_is_left(site: &Site) {
    let left = async || {
        let there = site.processes();
        let is_fresh =
            |process: &Process| matches!(process, Process::Instance(name) if name.starts_with("once-"));
        (!there.iter().any(|found| is_fresh(&found.process) || found.process == Process::Session))
            .then_some(())
    };
    wait_until("fresh instances are gone", SOON, left).await.unwrap();
}

async fn all_of_it(app: &App<'_>) {
    for once in [false, true] {
        a_pipe_goes_through(app, once).await;
        a_terminal_goes_through(app, once).await;
    }
    nothing_of_it_is_left(app.site()).await;
    let told = app.cutover(&["exec", "nobody", "--", "true"]).await.unwrap().expect(1).unwrap();
    assert!(told.failure().contains("live services: "), "{}", told.talk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_process_is_worked_in_at_a_pipe_and_at_a_terminal() {
    let site = Site::new().unwrap();
    let app = site.app("shop", "shop.localhost").unwrap();
    app.deploy("v1").await.unwrap().expect(0).unwrap();
    all_of_it(&app).await;
}

/// An app of one container that is routed to: no network was ever made for its slot.
async fn alone(site: &Site) -> Told {
    let app = site.app("alone", "alone.localhost").unwrap();
    let text = format!(
        "app: {}\nservices:\n  web: {{ image: \"{SHELL_IMAGE}\", command: [sh, -c, \"mkdir -p /www; echo hello > /www/index.html; \
         exec httpd -f -p 8000 -h /www\"], port: 8000, route: {{ host: alone.localhost }} }}\n",
        app.id().app
    );
    std::fs::write(app.repository().join("cutover.yml"), text).unwrap();
    app.record("first").unwrap();
    app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
    app.cutover(&["exec", "--once", "web", "--", "sh", "-c", "echo as $CUTOVER_SERVICE, alone"])
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_worked_in_at_a_pipe_and_at_a_terminal() {
    let name = "a_container_is_worked_in_at_a_pipe_and_at_a_terminal";
    on_engine(name, Binaries::beside_this_program().unwrap(), async |site| {
        if let Err(why) = shell_image(site.docker().unwrap().engine()) {
            return println!("not run: {name}: {why}");
        }
        let app = site.app("shop", "shop.localhost").unwrap();
        let idle = "[sh, -c, \"trap 'exit 0' TERM; while :; do sleep 1 & wait; done\"]";
        let text = format!(
            "app: {}\nservices:\n  web: {{ image: \"{SHELL_IMAGE}\", command: {idle} }}\n\
             backing:\n  store: {{ image: \"{SHELL_IMAGE}\", command: {idle} }}\n",
            app.id().app
        );
        std::fs::write(app.repository().join("cutover.yml"), text).unwrap();
        app.record("first").unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        all_of_it(&app).await;
        let told = app.cutover(&["exec", "store", "--", "echo", "in the store"]).await.unwrap();
        assert_eq!(told.expect(0).unwrap().output, "in the store\n");
        let told = alone(site).await;
        assert_eq!(told.expect(0).unwrap().output, "as web, alone\n");
    })
    .await;
}
