//! `secrets rotate` on a real `MariaDB`: the application's user, under traffic whose every request logs in anew; one that the release does not live
//! with; and `root`, as whom cutover comes from within.

use cutover_suites::STOP_AT;
use cutover_suites::engine::Session;
use cutover_suites::stopped::{go_on, last_journal, step_of, stopped_run};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// What the host's env file says.
fn password(app: &App<'_>, name: &str) -> String {
    let text = std::fs::read_to_string(app.site().layout().env_file(app.id())).unwrap();
    let values = cutover_core::env_file::parse(&text).unwrap();
    values.get(&name.parse().unwrap()).unwrap().expose().to_owned()
}

/// Whether the server lets a user in by the way that the application comes.
async fn lets_in(app: &App<'_>, user: &str, password: &str) -> bool {
    let script = format!("MYSQL_PWD='{password}' mariadb -h mariadb -u {user} -e 'select 1'");
    let words = ["exec", "mariadb", "--", "sh", "-c", &script];
    app.cutover(&words).await.unwrap().exit == Some(0)
}

/// Rotates it, and expects this exit code.
async fn rotate(app: &App<'_>, name: &str, exit: i32) -> String {
    let told = app.cutover(&["secrets", "rotate", name]).await.unwrap().expect(exit).unwrap();
    println!("--- rotate {name} ({exit})\n{}", told.talk);
    told.talk
}

/// Rewrites a file of the repository.
fn edit(app: &App<'_>, name: &str, edit: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(app.repository().join(name)).unwrap();
    write(app.repository(), name, &edit(text));
}

/// A release whose backing service is asked without a password how it is.
fn commit_asking_without(app: &App<'_>, version: &Version<'_>) {
    commit(app, version);
    edit(app, "cutover.yml", |text| {
        let (before, after) = text.split_once("MYSQL_PWD=$$MARIADB_PASSWORD mariadb").unwrap();
        let (_, after) = after.split_once("\"]").unwrap();
        format!("{before}mariadb-admin -h 127.0.0.1 ping\"]{after}")
    });
    app.record(version.name).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn passwords_are_rotated_and_one_that_the_release_does_not_live_with_is_the_old_one_again() {
    let name = "passwords_are_rotated_and_one_that_the_release_does_not_live_with_is_the_old_one_again";
    with_ledger(name, async |app| {
        // A check that logs in would be refused from then on, and is told of.
        let said = rotate(app, "MARIADB_PASSWORD", 7).await;
        assert!(
            said.contains("the health check of backing service `mariadb` logs in by MARIADB_PASSWORD"),
            "{said}"
        );
        commit_asking_without(app, &Version { name: "asking", ..FIRST });
        deploy_committed(app, "asking", 0).await;
        app.cutover(&["backing", "apply", "mariadb", "--yes"]).await.unwrap().expect(0).unwrap();

        let old = password(app, "MARIADB_PASSWORD");
        under_traffic(app, "rotated", "text", async {
            rotate(app, "MARIADB_PASSWORD", 0).await;
        })
        .await;
        let new = password(app, "MARIADB_PASSWORD");
        assert!(!lets_in(app, "ledger", &old).await && lets_in(app, "ledger", &new).await);
        assert!(deploy_committed(app, "asking", 0).await.contains("nothing to do"));

        let root = password(app, "MARIADB_ROOT_PASSWORD");
        let (_, ()) = written_while(app.site(), "root", async {
            rotate(app, "MARIADB_ROOT_PASSWORD", 0).await;
        })
        .await;
        let new_root = password(app, "MARIADB_ROOT_PASSWORD");
        assert!(!lets_in(app, "root", &root).await && lets_in(app, "root", &new_root).await);
        app.cutover(&["snapshot", "create"]).await.unwrap().expect(0).unwrap();
        rotate(app, "MARIADB_ROOT_PASSWORD", 0).await;

        // One that is told the password and logs in with its own all the same.
        commit_asking_without(app, &Version { name: "insisting", ..FIRST });
        for file in ["www/cgi-bin/health", "www/cgi-bin/add"] {
            edit(app, file, |text| text.replace("#!/bin/sh\n", &format!("#!/bin/sh\nMYSQL_PWD={new}\n")));
        }
        app.record("insisting").unwrap();
        deploy_committed(app, "insisting", 0).await;
        let said = rotate(app, "MARIADB_PASSWORD", 4).await;
        assert!(said.contains("the server of `mariadb` has the password from before again"), "{said}");
        assert_eq!(password(app, "MARIADB_PASSWORD"), new);
        assert!(lets_in(app, "ledger", &new).await);
        serves(app, "insisting").await;
    })
    .await;
}

/// A client of the server in its own container, as this user, with this variable's password.
fn session(app: &App<'_>, user: &str, password: &str, statement: &str) -> Session {
    let client = format!("MYSQL_PWD={password} exec mariadb -u {user} -N --batch --unbuffered");
    let (session, answer) = Session::open(app, "mariadb", &client, statement);
    assert_eq!(answer, "1");
    session
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn what_keeps_a_password_from_being_changed_is_told_before_anybody_is_held() {
    let name = "what_keeps_a_password_from_being_changed_is_told_before_anybody_is_held";
    with_ledger(name, async |app| {
        commit_asking_without(app, &Version { name: "asking", ..FIRST });
        deploy_committed(app, "asking", 0).await;
        app.cutover(&["backing", "apply", "mariadb", "--yes"]).await.unwrap().expect(0).unwrap();
        let old = password(app, "MARIADB_PASSWORD");

        // A server that has no room refuses no password.
        query(app, "alter user ledger@'%' with max_user_connections 1").await;
        let one = session(app, "ledger", "$MARIADB_PASSWORD", "select 1;");
        let said = rotate(app, "MARIADB_PASSWORD", 7).await;
        assert!(said.contains("no connection left for `ledger`") && said.contains("error 1226"), "{said}");
        assert!(!said.contains("changed in one place"), "{said}");
        drop(one);
        query(app, "alter user ledger@'%' with max_user_connections 0").await;

        query(app, "revoke create user, update on *.* from root@localhost").await;
        let said = rotate(app, "MARIADB_PASSWORD", 7).await;
        assert!(said.contains("the server does not let it be changed") && said.contains("CREATE USER"), "{said}");
        let give = "MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -h mariadb -u root -e \"grant all on *.* to root@localhost with grant option\"";
        app.cutover(&["exec", "mariadb", "--", "sh", "-c", give]).await.unwrap().expect(0).unwrap();

        query(app, "alter user ledger@'%' identified via unix_socket").await;
        let said = rotate(app, "MARIADB_PASSWORD", 7).await;
        assert!(said.contains("`ledger`@`%` logs in by unix_socket"), "{said}");
        query(app, &format!("alter user ledger@'%' identified by '{old}'")).await;
        assert!(lets_in(app, "ledger", &old).await, "nothing was touched");
        serves(app, "asking").await;

        // Who has the password gets the new one wherever he comes from, and nobody else does.
        query(app, &format!("create user ledger@localhost identified by '{old}'")).await;
        query(app, "create user ledger@'10.9.9.9' identified by 'other'").await;
        let said = rotate(app, "MARIADB_PASSWORD", 0).await;
        assert!(said.contains("`ledger`@`10.9.9.9` has another password, and keeps it"), "{said}");
        let new = password(app, "MARIADB_PASSWORD");
        assert!(lets_in(app, "ledger", &new).await && !lets_in(app, "ledger", &old).await);
        let of = |password: &str| {
            format!("select group_concat(host order by host) from mysql.user where user = 'ledger' and authentication_string = password('{password}')")
        };
        assert_eq!(query(app, &of(&new)).await, "%,localhost");
        assert_eq!(query(app, &of("other")).await, "10.9.9.9");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_change_that_still_waits_in_the_server_when_its_run_is_killed_comes_to_nothing() {
    let name = "a_change_that_still_waits_in_the_server_when_its_run_is_killed_comes_to_nothing";
    with_ledger_of(name, killing_binaries().unwrap(), async |app| {
        commit_asking_without(app, &Version { name: "asking", ..FIRST });
        deploy_committed(app, "asking", 0).await;
        app.cutover(&["backing", "apply", "mariadb", "--yes"]).await.unwrap().expect(0).unwrap();
        rotate(app, "MARIADB_PASSWORD", 0).await;
        let is_change = |what: &What| matches!(what, What::Intent { step: Step::Password { .. }, .. });
        let at = step_of(&last_journal(app).await, is_change);
        let (before, old) = (newest(app).run, password(app, "MARIADB_PASSWORD"));
        let waiting = "select count(*) from information_schema.processlist where info like 'alter user%'";

        let mut command = app.command(&["secrets", "rotate", "MARIADB_PASSWORD"]);
        command.env(STOP_AT, at.to_string());
        let rotated = app.site().run(command);
        let killed = async {
            let run = stopped_run(app.site()).await;
            let lock =
                session(app, "root", "$MARIADB_ROOT_PASSWORD", "flush tables with read lock; select 1;");
            go_on(run);
            let waits = async || (query(app, waiting).await == "1").then_some(());
            wait_until("the statement waits in the server", SOON, waits).await.unwrap();
            kill_process(Pid::from_raw(i32::try_from(run).unwrap()).unwrap(), Signal::KILL).unwrap();
            lock
        };
        let (_, lock) = tokio::join!(rotated, killed);
        let verdict = settled_after(app, before).await;
        assert_ne!(verdict.exit(), Exit::Person, "{verdict:?}");
        assert_eq!(query(app, waiting).await, "0", "it was ended before anything was decided");
        drop(lock);

        assert_eq!(password(app, "MARIADB_PASSWORD"), old);
        assert!(lets_in(app, "ledger", &old).await);
        serves(app, "asking").await;
        rotate(app, "MARIADB_PASSWORD", 0).await;
        assert!(!lets_in(app, "ledger", &old).await);
    })
    .await;
}
