//! `secrets rotate` on a real `PostgreSQL`, which asks also those for a password who come by its socket. Each request of the traffic logs in anew; none
//! fails. In the end the server lets the password in that the live release is told, and no other.

use cutover_suites::engine::Session;
use cutover_testkit::site::Told;

use super::*;

const NAME: &str = "POSTGRES_PASSWORD";

/// What a release is told.
fn told(app: &App<'_>, path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let values = cutover_core::env_file::parse(&text).unwrap();
    let value = values.get(&NAME.parse().unwrap()).unwrap_or_else(|| panic!("{} is told none", app.id()));
    value.expose().to_owned()
}

/// What the host's env file says.
fn password(app: &App<'_>) -> String {
    told(app, &app.site().layout().env_file(app.id()))
}

/// What the release that is live is told.
fn live_password(app: &App<'_>) -> String {
    let live = newest(app).serving.unwrap();
    told(app, &app.site().layout().release_env(app.id(), &live))
}

/// Whether the server lets somebody in by the way that the application comes.
async fn lets_in(app: &App<'_>, password: &str) -> bool {
    let script = format!("PGPASSWORD='{password}' psql -h postgres -U ledger -d ledger -qAtc 'select 1'");
    let words = ["exec", "postgres", "--", "sh", "-c", &script];
    app.cutover(&words).await.unwrap().exit == Some(0)
}

/// The rows that are there.
async fn rows(app: &App<'_>) -> String {
    let script = format!(
        "PGPASSWORD='{}' psql -h postgres -U ledger -d ledger -qAtc 'select text from entries'",
        live_password(app)
    );
    let told = app.cutover(&["exec", "postgres", "--", "sh", "-c", &script]).await.unwrap();
    told.expect(0).unwrap().output
}

/// Rotates it, and expects this exit code.
async fn rotate(app: &App<'_>, exit: i32) -> Told {
    let told = app.cutover(&["secrets", "rotate", NAME]).await.unwrap().expect(exit).unwrap();
    println!("--- rotate ({exit})\n{}", told.talk);
    told
}

/// A release that is told the password, and logs in with its own all the same.
fn commit_insisting(app: &App<'_>, password: &str) {
    commit(app, &Version { name: "insisting", ..FIRST });
    let own = format!("#!/bin/sh\nDATABASE_URL=postgresql://ledger:{password}@postgres/ledger\n");
    for (name, text) in [("health", HEALTH.to_owned()), ("add", ADD.replace("COLUMN", "text"))] {
        write(app.repository(), &format!("www/cgi-bin/{name}"), &text.replace("#!/bin/sh\n", &own));
    }
    app.record("insisting").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_rotated_while_each_request_logs_in_anew() {
    with_ledger("a_password_is_rotated_while_each_request_logs_in_anew", async |app| {
        let old = password(app);
        let (acknowledged, ()) = written_while(app.site(), "rotated", async {
            let said = rotate(app, 0).await;
            assert!(said.talk.contains("`postgres` has the new password"), "{}", said.talk);
            for password in [&old, &password(app)] {
                assert!(!(said.talk.contains(password) || said.output.contains(password)), "P6");
            }
        })
        .await;

        let new = password(app);
        assert!(new != old && live_password(app) == new);
        assert!(!lets_in(app, &old).await && lets_in(app, &new).await);
        none_is_missing("rotated", &acknowledged, &rows(app).await);
        serves(app, "first").await;
        // Who comes from within is let in, too.
        app.cutover(&["snapshot", "create"]).await.unwrap().expect(0).unwrap();
        let again = app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        assert!(again.talk.contains("nothing to do"), "{}", again.talk);
        told_that_the_variable_alone_changes_nothing(app).await;
    })
    .await;
}

/// The image reads it no more.
async fn told_that_the_variable_alone_changes_nothing(app: &App<'_>) {
    let file = app.site().folder().join("other.env");
    std::fs::write(&file, format!("{NAME}=another\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["env", "push", file.to_str().unwrap(), "--dry-run"];
    let said = app.cutover(&words).await.unwrap().expect(0).unwrap();
    let all = format!("{}{}", said.talk, said.output);
    assert!(all.contains("cutover secrets rotate POSTGRES_PASSWORD"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_password_that_the_release_does_not_live_with_is_the_old_one_again() {
    with_ledger("a_password_that_the_release_does_not_live_with_is_the_old_one_again", async |app| {
        let old = password(app);
        commit_insisting(app, &old);
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();
        // The gate's whole time passes while requests are held, and the way back needs some.
        let said = rotate(app, 4).await;

        assert!(
            said.talk.contains("the server of `postgres` has the password from before again"),
            "{}",
            said.talk
        );
        assert_eq!((password(app), live_password(app)), (old.clone(), old.clone()));
        assert!(lets_in(app, &old).await);
        serves(app, "insisting").await;

        // What insists no more can be rotated, twice; and an earlier release is told the present one.
        deploy(app, &Version { name: "second", ..FIRST }, 0).await;
        deploy(app, &Version { name: "third", ..FIRST }, 0).await;
        rotate(app, 0).await;
        rotate(app, 0).await;
        let new = password(app);
        app.cutover(&["rollback"]).await.unwrap().expect(0).unwrap();
        serves(app, "second").await;
        assert_eq!(live_password(app), new);
        assert!(!lets_in(app, &old).await && lets_in(app, &new).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn whenever_a_rotation_is_killed_the_server_has_the_password_that_the_live_release_is_told() {
    let name = "whenever_a_rotation_is_killed_the_server_has_the_password_that_the_live_release_is_told";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| {
        let (acknowledged, ()) = written_while(app.site(), "killed", async {
            rotate(app, 0).await;
            let journal = app.site().journal(newest(app).run).unwrap();
            let is_act = |what: &What| matches!(what, What::Intent { .. } | What::Outcome { .. });
            let steps = journal.iter().filter(|entry| is_act(&entry.what)).map(|entry| entry.seq);
            let mut killed = 0;
            for step in steps {
                let (before, old) = (newest(app).run, live_password(app));
                let mut command = app.command(&["secrets", "rotate", NAME]);
                command.env(KILL_AT, step.to_string());
                app.site().run(command).await.unwrap();
                let verdict = settled_after(app, before).await;
                let journal = app.site().journal(verdict.run).unwrap();
                let resumed = journal.iter().any(|entry| matches!(entry.what, What::Resumed { .. }));
                killed += u32::from(resumed);
                println!("killed at step {step}: exit {}, killed: {resumed}", verdict.exit().code());
                assert_ne!(verdict.exit(), Exit::Person, "nobody is needed after step {step}: {verdict:?}");
                let now = live_password(app);
                assert_eq!(password(app), now, "after step {step}");
                assert!(lets_in(app, &now).await, "after step {step}");
                assert_eq!(now == old, verdict.exit() != Exit::Done, "after step {step}");
                assert!(now == old || !lets_in(app, &old).await, "after step {step}");
            }
            assert!(killed > 10, "{killed}");
        })
        .await;
        none_is_missing("killed", &acknowledged, &rows(app).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn what_keeps_a_password_from_being_changed_is_told_before_anybody_is_held() {
    let name = "what_keeps_a_password_from_being_changed_is_told_before_anybody_is_held";
    with_ledger(name, async |app| {
        let old = password(app);
        query(app, "alter role ledger set default_transaction_read_only = on").await;
        let said = rotate(app, 7).await.talk;
        assert!(
            said.contains("the server does not let it be changed") && said.contains("read-only"),
            "{said}"
        );
        query(app, "begin read write; alter role ledger reset default_transaction_read_only; commit").await;

        // A server that has no room refuses no password.
        query(app, "alter system set max_connections = 8").await;
        app.cutover(&["backing", "restart", "postgres", "--yes"]).await.unwrap().expect(0).unwrap();
        let client = "PGPASSWORD=$POSTGRES_PASSWORD exec psql -h 127.0.0.1 -U ledger -qAt";
        let all: Vec<Session> =
            (0..8).map(|_| Session::open(app, "postgres", client, "select 1;").0).collect();
        let said = rotate(app, 7).await.talk;
        assert!(said.contains("too many") && !said.contains("changed in one place"), "{said}");
        drop(all);

        assert!(lets_in(app, &old).await, "nothing was touched");
        serves(app, "first").await;
        rotate(app, 0).await;
        assert!(!lets_in(app, &old).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_release_that_had_another_name_for_the_password_is_told_the_new_one_too() {
    let name = "a_release_that_had_another_name_for_the_password_is_told_the_new_one_too";
    with_ledger(name, async |app| {
        let (old, file) = (password(app), app.site().folder().join("other.env"));
        std::fs::write(&file, format!("LEDGER_PASSWORD={old}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        commit(app, &Version { name: "renamed", ..FIRST });
        let text = std::fs::read_to_string(app.repository().join("cutover.yml")).unwrap();
        let text = text
            .replace("POSTGRES_PASSWORD: }", "POSTGRES_PASSWORD: \"${LEDGER_PASSWORD}\" }")
            .replace("${POSTGRES_PASSWORD}", "${LEDGER_PASSWORD}");
        write(app.repository(), "cutover.yml", &text);
        app.record("renamed").unwrap();
        app.cutover(&["env", "push", file.to_str().unwrap()]).await.unwrap().expect(0).unwrap();
        app.cutover(&["deploy"]).await.unwrap().expect(0).unwrap();

        app.cutover(&["secrets", "rotate", "LEDGER_PASSWORD"]).await.unwrap().expect(0).unwrap();
        serves(app, "renamed").await;
        assert!(!lets_in(app, &old).await);
        // The instance was made by the release from before, and cutover comes in all the same.
        app.cutover(&["snapshot", "create"]).await.unwrap().expect(0).unwrap();
        app.cutover(&["rollback"]).await.unwrap().expect(0).unwrap();
        serves(app, "first").await;
        assert!(lets_in(app, &live_password(app)).await);
    })
    .await;
}
