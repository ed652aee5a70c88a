//! The six releases, one after another on one database, and the knobs that make a release fail.

use crate::instance::{Place, said};

#[tokio::test]
async fn given_the_releases_in_order_then_each_behaves_as_the_demonstration_needs() {
    let place = Place::of("v1").migrated().await;
    let first = place.serve().await;
    assert!(first.get("/").await.body.contains("<h1>Guestbook</h1>"));
    assert_eq!(first.get("/version").await.json()["schema"], 1);
    first.post("", "name=Ada&message=hello").await;
    drop(first);

    place.becomes("v2");
    let unchanged = place.run("web", &["migrate"]).await;
    assert_eq!(said(&unchanged), "the database is at schema version 1\n");
    assert!(place.serve().await.get("/").await.body.contains("<h1>Our guestbook</h1>"));

    place.becomes("v3");
    let unmigrated = place.run("web", &["serve"]).await;
    assert_eq!(unmigrated.status.code(), Some(1));
    assert!(said(&unmigrated).contains("does not fit the database"), "{}", said(&unmigrated));
    assert_eq!(
        said(&place.run("web", &["migrate"]).await),
        "applied 002_visitors\nthe database is at schema version 2\n"
    );
    assert!(place.serve().await.get("/").await.body.contains("<strong>Ada</strong>"));

    place.becomes("v4");
    let sick = place.serve().await;
    assert_eq!((sick.get("/health").await.status, sick.get("/").await.status), (500, 200));
    drop(sick);

    place.becomes("v6");
    let failing = place.serve().await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(failing.get("/").await.status);
    }
    assert_eq!(statuses, [vec![200; 10], vec![500; 2]].concat());
    assert_eq!((failing.get("/health").await.status, failing.get("/version").await.status), (200, 200));
}

#[tokio::test]
async fn given_the_fifth_release_then_its_migration_fails_half_way() {
    let place = Place::of("v3").migrated().await;
    place.becomes("v5");

    let failed = place.run("web", &["migrate"]).await;

    assert_eq!(failed.status.code(), Some(1));
    let said = said(&failed);
    assert!(said.contains("applied 003_likes"), "{said}");
    assert!(
        said.contains("migration 004_tidy_messages failed, and is undone: no such column: mesage"),
        "{said}"
    );
    assert_eq!(place.serve().await.get("/version").await.json()["schema"], 3);
}

#[tokio::test]
async fn given_another_database_on_the_command_line_then_that_one_is_migrated() {
    let place = Place::of("v1");
    let copy = place.database().with_file_name("copy.db");

    let migrated = place.run("web", &["migrate", "--database", copy.to_str().unwrap()]).await;

    assert!(migrated.status.success());
    assert!(copy.exists() && !place.database().exists());
}

#[tokio::test]
async fn given_a_release_that_cannot_start_then_its_log_says_why() {
    for (behaviour, code, reason) in [
        (r#"{"exit_at_start": 7}"#, 7, "exit with 7"),
        (r#"{"requires": ["SECRET_KEY"]}"#, 1, "environment variable SECRET_KEY is not set"),
        (r#"{"exit_after_ms": 1, "database": "memory"}"#, 1, "exit now"),
        (r#"{"oops": 1}"#, 1, "unknown field `oops`"),
        ("{}", 1, "is not there; `guestbook migrate` makes it"),
    ] {
        let place = Place::of("v1").with_behaviour("web", behaviour);
        let ended = place.run("web", &["serve"]).await;
        assert_eq!(ended.status.code(), Some(code), "{behaviour}");
        assert!(said(&ended).contains(reason), "{behaviour}: {}", said(&ended));
    }
}

#[tokio::test]
async fn given_a_list_of_hosts_then_another_host_is_refused() {
    let behaviour = r#"{"database": "memory", "hosts": ["guestbook.localhost"]}"#;
    let place = Place::of("v1").with_behaviour("web", behaviour);
    let app = place.serve().await;

    let refused = app.ask("GET /health HTTP/1.1\r\nhost: 127.0.0.1:1\r\nconnection: close\r\n\r\n").await;

    assert_eq!((refused.status, refused.body.as_str()), (400, "Invalid host header: 127.0.0.1:1\n"));
    assert_eq!(app.get("/health").await.status, 200);
}

#[tokio::test]
async fn given_wrong_words_then_the_usage_is_told() {
    let place = Place::of("v1");
    let ended = place.run("web", &["server"]).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(said(&ended).starts_with("usage: guestbook"));
}
