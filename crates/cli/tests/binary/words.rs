//! What is said where there is nothing, or where something is wrong before any host is asked.

use std::fs;

use crate::bench::{APP, Bench, Then, state};

#[test]
fn an_empty_folder_says_the_next_step_whatever_the_verb() {
    let bench = Bench::empty();
    for verb in ["status", "deploy", "plan", "check", "rollback", "logs"] {
        let did = bench.run(verb);
        assert_eq!((did.exit, did.data.as_str()), (10, ""), "{verb}");
        let shown = did.talk.replace(&bench.path().display().to_string(), "[folder]");
        // macOS and others reach temporary folders by more than one name.
        let shown = shown.replace(&fs::canonicalize(bench.path()).unwrap().display().to_string(), "[folder]");
        insta::allow_duplicates! {
            insta::assert_snapshot!(shown, @r"
        error: there is no cutover.yml
          cause: neither in [folder] nor above it, up to the repository's top
          state: nothing was touched
          next:  go to the app's folder, or name the file: `--file PATH`
                 or write a first one, and run `cutover check`:
                   app: my-app
                   services:
                     web: { artifact: build, command: ./server, route: { path: / } }
        ");
        }
    }
}

#[test]
fn check_says_what_is_good() {
    let bench = Bench::with_app(APP);
    let did = bench.run("check");
    assert_eq!((did.exit, did.talk.as_str()), (0, ""));
    insta::assert_snapshot!(did.data, @r"
        cutover.yml is good (checked for local)
        ");
    let did = bench.run("check --json");
    insta::assert_snapshot!(did.data, @r#"
        {"version":1,"kind":"checked","file":"cutover.yml","environments":["local"],"notes":[]}
        "#);
}

#[test]
fn problems_are_told_all_at_once_for_people_and_for_programs() {
    let bench = Bench::with_app("app: shop\nservices:\n  web: { artifact: web, comand: ./web, port: 0 }\n");
    let did = bench.run("deploy --json");
    assert_eq!(did.exit, 10);
    let kinds: Vec<String> = did
        .data
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| format!("{} {}", line["kind"], line["line"]))
        .collect();
    assert_eq!(kinds, ["\"problem\" 3", "\"problem\" 3", "\"problem\" 3", "\"failure\" null"]);
    assert!(did.talk.contains("did you mean `command`?"), "{}", did.talk);
}

#[test]
fn a_missing_host_binary_is_told_with_its_remedy() {
    let did = Bench::with_app(APP).run("status");
    assert_eq!(did.exit, 1);
    assert!(did.talk.contains("`cutover-host` was not found"), "{}", did.talk);
    assert!(did.talk.contains("name it in CUTOVER_HOST_BINARY"), "{}", did.talk);
}

#[test]
fn several_environments_and_none_named_is_refused_with_their_names() {
    let bench = Bench::with_app(&format!("{APP}environments:\n  staging: {{}}\n  production: {{}}\n"));
    let did = bench.run("status");
    assert_eq!(did.exit, 2, "{}", did.talk);
    assert!(did.talk.contains("staging") && did.talk.contains("production"), "{}", did.talk);
}

#[test]
fn wrong_usage_exits_with_two_and_help_with_nought() {
    let bench = Bench::empty();
    assert_eq!(bench.run("deploy --no-such-option").exit, 2);
    let help = bench.run("--help");
    assert_eq!((help.exit, help.talk.as_str()), (0, ""));
    for line in ["10  configuration wrong", "CUTOVER_ENV", "rollback"] {
        assert!(help.data.contains(line), "{}", help.data);
    }
}

#[test]
fn an_env_file_that_others_can_read_is_refused() {
    let bench = Bench::with_app(APP);
    bench.write(".env", "TOKEN=hunter2-secret\n", 0o644);
    let did = bench.run("deploy");
    assert_eq!(did.exit, 7);
    assert!(did.talk.contains("chmod 600"), "{}", did.talk);
}

#[test]
fn a_missing_artifact_is_told() {
    let bench = Bench::with_app(APP);
    bench.session(&[state()], Then::Listens);
    fs::remove_dir_all(bench.path().join("web")).unwrap();
    let did = bench.run("deploy");
    assert_eq!(did.exit, 10, "{}", did.talk);
    insta::assert_snapshot!(did.talk, @r"
        error: the artifact of `web` cannot be had
          cause: web is not there
          state: nothing was touched: nothing is serving
          next:  build it first; `services.web.artifact` says where it lies, beside cutover.yml
        ");
}

#[test]
fn the_schema_is_json() {
    let did = Bench::empty().run("schema");
    assert_eq!(did.exit, 0);
    let schema: serde_json::Value = serde_json::from_str(&did.data).unwrap();
    assert!(schema["properties"]["services"].is_object());
}
