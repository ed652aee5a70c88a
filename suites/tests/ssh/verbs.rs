//! What the command line does on this machine it does on a server, with one execution of ssh for each command.

use cutover_suites::scenes::one_bot_at_a_time;
use cutover_suites::terminal::Terminal;
use cutover_testkit::probe::Probe;
use cutover_testkit::site::App;

use super::{once, server};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_lives_on_a_server_through_every_verb() {
    let Some(site) = server("an_app_lives_on_a_server_through_every_verb") else { return };
    let app = site.app("guestbook", "guestbook.localhost").unwrap();
    app.commit("v1", str::to_owned).unwrap();
    let told = once(&app, &["deploy"], 0).await;
    assert!(
        told.talk.contains(&format!("started proxy and watch on {}", site.remote().host())),
        "{}",
        told.talk
    );

    let probe = Probe::start(app.traffic().unwrap());
    app.commit("v2", str::to_owned).unwrap();
    let plan = once(&app, &["plan", "--json"], 0).await;
    assert!(plan.output.contains(&format!("\"hosts\":{{\"{}\":", site.remote().host())), "{}", plan.output);
    once(&app, &["deploy"], 0).await;
    assert_eq!(app.serving().await.unwrap(), "v2");

    app.commit("v4", str::to_owned).unwrap();
    let failed = once(&app, &["deploy"], 4).await;
    assert!(failed.failure().contains("state: "), "{}", failed.talk);
    assert_eq!(app.serving().await.unwrap(), "v2");

    once(&app, &["rollback", "--yes"], 0).await;
    assert_eq!(app.serving().await.unwrap(), "v1");
    for words in
        [&["status", "--check"][..], &["history"], &["releases"], &["lock"], &["env", "list"], &["attach"]]
    {
        once(&app, words, 0).await;
    }
    let log = once(&app, &["logs", "--tail", "5"], 0).await;
    assert!(log.output.contains("web-"), "{}", log.output);
    let told = once(&app, &["exec", "web", "--", "sh", "-c", "echo $CUTOVER_ENVIRONMENT; exit 3"], 3).await;
    assert_eq!(told.output, "production\n");
    a_terminal_goes_through(&app).await;
    let told = once(&app, &["cancel"], 7).await;
    assert!(told.failure().contains("nothing to cancel"), "{}", told.talk);
    once(&app, &["restart"], 0).await;
    once(&app, &["env", "set", "GREETING=hello"], 0).await;

    let report = probe.stop().await;
    println!("over ssh: {} requests, {} failed", report.sent(), report.failed());
    assert_eq!(report.failed(), 0, "{report}");
    one_bot_at_a_time(&app);
    once(&app, &["stop", "--yes"], 0).await;
    once(&app, &["start"], 0).await;
    once(&app, &["remove", "--yes"], 0).await;
}

async fn a_terminal_goes_through(app: &App<'_>) {
    let command = app.command(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "echo ready; read -r line; echo got $line; stty size; exit 7",
    ]);
    let mut terminal = Terminal::with(&command, &app.site().binaries().host).unwrap();
    terminal.shows("ready").await.unwrap();
    terminal.types("hello\r").await.unwrap();
    terminal.shows("got hello").await.unwrap();
    terminal.shows("40 100").await.unwrap();
    assert_eq!(terminal.ends().await.unwrap(), Some(7));
}
