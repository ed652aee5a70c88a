use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cutover_core::plan::Rule;
use cutover_core::request::Request;

use super::*;
use crate::asked::{Asked, Brings, Conduct, ExecAsked};

fn now() -> Timestamp {
    "2026-11-21T14:00:00Z".parse().unwrap()
}

fn parsed(words: &str) -> Result<(Place, Command), clap::Error> {
    let words = std::iter::once("cutover").chain(words.split_whitespace());
    Arguments::try_parse_from(words).and_then(|arguments| arguments.into_command("ada@laptop", now()))
}

fn asked(words: &str) -> (Place, Asked) {
    match parsed(words).unwrap() {
        (place, Command::Change(asked)) => (place, *asked),
        (_, other) => panic!("{other:?}"),
    }
}

fn refused(words: &str) -> String {
    parsed(words).unwrap_err().to_string()
}

#[test]
fn clap_finds_no_fault_in_the_definitions() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
}

#[test]
fn a_deploy_becomes_a_request_and_what_the_client_brings() {
    let (place, asked) = asked(
        "deploy production --commit main --image web=shop@sha256:1 --skip-migrations --no-bake --all --wait --yes \
         --allow older-commit -v DOMAIN=example.com --from-env --json",
    );
    assert_eq!(place.environment.unwrap().as_str(), "production");
    assert!(place.json);
    assert_eq!(
        asked.request,
        Request {
            skip_migrations: true,
            no_bake: true,
            all: true,
            allow: BTreeSet::from([Rule::OlderCommit]),
            ..request(Verb::Deploy, "ada@laptop")
        }
    );
    assert_eq!(
        asked.brings,
        Brings {
            commit: Some("main".to_owned()),
            images: BTreeMap::from([("web".parse().unwrap(), "shop@sha256:1".to_owned())]),
            variables: BTreeMap::from([("DOMAIN".parse().unwrap(), "example.com".to_owned())]),
            from_env: true,
            ..Brings::default()
        }
    );
    assert_eq!(
        asked.conduct,
        Conduct { dry_run: false, wait: true, detach: false, yes: true, stage_only: false }
    );
}

#[test]
fn plan_is_a_deploy_that_is_only_shown() {
    let (plan, deploy) = (asked("plan staging --dirty").1, asked("deploy staging --dirty --dry-run").1);
    assert_eq!(plan, deploy);
    assert!(plan.conduct.dry_run);
}

#[test]
fn a_version_is_part_of_where_the_release_comes_from() {
    let (_, asked) = asked("deploy --version 1.4.2");
    assert_eq!(asked.request.source.version.as_deref(), Some("1.4.2"));
    assert_eq!(asked.brings.version.as_deref(), Some("1.4.2"));
}

#[test]
fn other_verbs_carry_what_was_said_of_them() {
    let (_, rollback) = asked("rollback production --to 41d0aa2 --restore-db");
    assert_eq!(rollback.request.to.unwrap().as_str(), "41d0aa2");
    assert!(rollback.request.restore_databases);
    let (_, stop) = asked("stop web bot");
    assert_eq!((stop.request.verb, stop.request.services.len()), (Verb::Stop, 2));
    let (_, remove) = asked("remove --volumes --yes");
    assert!(remove.request.volumes && remove.conduct.yes);
    let (_, set) = asked("env set TOKEN GREETING=a=b --no-deploy");
    assert!(set.conduct.stage_only);
    let values: Vec<Option<String>> = set.brings.change.set.into_values().collect();
    assert_eq!(values, [Some("a=b".to_owned()), None]);
    let (_, rotate) = asked("secrets rotate TOKEN");
    assert_eq!((rotate.request.verb, rotate.brings.change.set.len()), (Verb::SecretsRotate, 0));
    assert_eq!(rotate.brings.change.made.unwrap().as_str(), "TOKEN");
    let (_, given) = asked("secrets rotate TOKEN --ask --dry-run");
    assert!(given.conduct.dry_run && given.brings.change.made.is_none());
    assert_eq!(given.brings.change.set.into_values().collect::<Vec<_>>(), [None]);
    let (_, unset) = asked("env unset TOKEN");
    assert_eq!(unset.request.unset.len(), 1);
}

#[test]
fn logs_from_some_time_ago_become_a_moment() {
    let (_, Command::Logs(logs)) = parsed("logs web -f --since 10m --tail 5").unwrap() else { panic!() };
    assert_eq!(logs.since, Some("2026-11-21T13:50:00Z".parse().unwrap()));
    assert!(logs.follow && logs.tail == Some(5));
    let (_, Command::Logs(logs)) = parsed("logs --since 2026-11-20T00:00:00Z").unwrap() else { panic!() };
    assert_eq!(logs.since, Some("2026-11-20T00:00:00Z".parse().unwrap()));
}

#[test]
fn what_stands_behind_the_service_is_the_command_options_and_all() {
    let (_, command) = parsed("exec --once web ls -la --json").unwrap();
    let words = ["ls", "-la", "--json"].map(str::to_owned).to_vec();
    assert_eq!(
        command,
        Command::Exec(ExecAsked { once: true, service: "web".parse().unwrap(), command: words })
    );
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    assert!(refused("deploy --allow no-such-rule").contains("the rules are: migration-without-snapshot"));
    assert!(refused("deploy --allow foreign-route").contains("cannot be let pass"));
    assert!(refused("deploy production -e staging").contains("two environments are named"));
    assert!(refused("deploy --image web").contains("SERVICE=REF is expected"));
    assert!(refused("status --wait 5m").contains("--check"));
    assert!(refused("deploy --commit main --dirty").contains("cannot be used with"));
    assert!(refused("-e Production deploy").contains("lower-case letter"));
}

#[test]
fn status_waits_only_when_it_checks() {
    let check = |words: &str| match parsed(words).unwrap().1 {
        Command::Status { check } => check,
        other => panic!("{other:?}"),
    };
    assert_eq!(check("status"), None);
    assert_eq!(check("status --check"), Some(Duration::ZERO));
    assert_eq!(check("status --check --wait 5m"), Some(Duration::from_mins(5)));
}
