//! What takes long says how far it is: in bytes that grow, to whoever began it and to who comes later.

use cutover_suites::engine::{containers, docker};
use cutover_testkit::site::{App, Told};
use serde_json::Value;

use super::{half_a_dump, query, with_ledger};

/// Random rows: what is packed does not become small.
const ROWS: &str = "insert into entries select i || string_agg(md5(random()::text), '') from generate_series(1, 18000) i, generate_series(1, 40) group by i";

/// In the place of a tool of the server: its input or its output goes in pieces, with a pause between.
fn slow(app: &App<'_>, tool: &str, script: &str) {
    let container = containers(app, "postgres");
    let real = docker(app.site(), &["exec", &container, "readlink", "-f", &format!("/usr/bin/{tool}")]);
    let made = format!(
        "printf '%s\n' '#!/bin/sh' '{}' > /usr/bin/{tool}.slow; chmod 755 /usr/bin/{tool}.slow; ln -sf /usr/bin/{tool}.slow /usr/bin/{tool}",
        script.replace("TOOL", &real)
    );
    docker(app.site(), &["exec", &container, "sh", "-c", &made]);
}

fn slow_dumps(app: &App<'_>, pause: &str) {
    let pieces =
        format!("for i in 1 2 3 4 5 6; do dd bs=1048576 count=1 <&3 2>/dev/null; sleep {pause}; done");
    slow(
        app,
        "pg_dump",
        &format!("TOOL \"$@\" > /tmp/dump.whole || exit 1; exec 3</tmp/dump.whole; {pieces}; exec cat <&3"),
    );
}

/// The bytes of each object about such work, with what is known of all of them.
fn told(by: &Told, what: &str) -> Vec<(u64, String)> {
    let lines = by.output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let progress = lines.filter(|line| line["kind"] == "progress").map(|line| line["progress"].clone());
    progress
        .filter(|progress| progress["what"] == what)
        .map(|progress| {
            (progress["bytes"].as_u64().unwrap(), progress["of"]["known"].as_str().unwrap().to_owned())
        })
        .collect()
}

fn grow(told: &[(u64, String)], known: &str) {
    // A dump begins while its server is asked how much it will be.
    let unknown = told.iter().take_while(|(_, of)| of == "not").count();
    let told = &told[unknown..];
    assert!(told.iter().all(|(_, of)| of == known), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{told:?}");
    assert!(told.len() > 1 && told[0].0 < told[told.len() - 1].0, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_says_how_far_it_is_and_who_comes_later_hears_it_too() {
    with_ledger("a_snapshot_says_how_far_it_is_and_who_comes_later_hears_it_too", async |app| {
        query(app, ROWS).await;
        slow_dumps(app, "0.5");
        let later = async {
            half_a_dump(app).await;
            app.cutover(&["attach", "--json"]).await.unwrap().expect(0).unwrap()
        };
        let (created, attached) = tokio::join!(app.cutover(&["snapshot", "create", "--json"]), later);
        let created = created.unwrap().expect(0).unwrap();

        grow(&told(&created, "dumped"), "about");
        grow(&told(&attached, "dumped"), "about");
        assert!(!created.talk.contains("dumped"), "an object a second is enough: {}", created.talk);

        slow(
            app,
            "pg_restore",
            "for i in 1 2 3 4 5; do head -c 1048576; sleep 0.5; done > /tmp/begins; { cat /tmp/begins; cat; } | TOOL \"$@\"",
        );
        let listed = app.cutover(&["snapshot", "list", "--json"]).await.unwrap().expect(0).unwrap();
        let newest: Value = serde_json::from_str(listed.output.lines().next().unwrap()).unwrap();
        let name = newest["snapshot"]["name"].as_str().unwrap();
        let verified = app.cutover(&["snapshot", "verify", name, "--json"]).await.unwrap().expect(0).unwrap();
        grow(&told(&verified, "read back"), "exactly");

        let runs = app.site().layout().run_folders();
        let left: Vec<_> = std::fs::read_dir(runs).into_iter().flatten().collect();
        assert!(left.is_empty(), "nothing of it is left: {left:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn without_a_terminal_a_long_dump_is_told_in_a_line() {
    with_ledger("without_a_terminal_a_long_dump_is_told_in_a_line", async |app| {
        query(app, ROWS).await;
        slow_dumps(app, "4");
        let created = app.cutover(&["snapshot", "create"]).await.unwrap().expect(0).unwrap();
        println!("{}", created.talk);
        let line = "  snapshot   take a snapshot of main: dumped ";
        let lines: Vec<&str> = created.talk.lines().filter_map(|told| told.strip_prefix(line)).collect();
        assert!(matches!(lines.len(), 2 | 3), "{}", created.talk);
        assert!(lines.iter().all(|told| told.contains(" of about ") && told.ends_with("/s")), "{lines:?}");
    })
    .await;
}
