//! `secrets rotate` on a real `MariaDB`: the application's user, under traffic whose every request logs in anew; one that the release does not live
//! with; and `root`, as whom cutover comes from within.

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
