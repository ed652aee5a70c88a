//! Real binaries, images built by cutover, containers on a real engine, constant traffic. Each test prints how many requests it sent and how many
//! failed; without an engine none runs, and each says so.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says why it did not run"
)]

use cutover_suites::engine;
use cutover_suites::scenes::{backing, clients, crashes, databases, deploys, engines, secrets};
use cutover_testkit::site::{Binaries, OwnEngine, Site};

async fn on_engine(name: &str, scene: impl AsyncFnOnce(&Site)) {
    engine::on_engine(name, Binaries::beside_this_program().unwrap(), scene).await;
}

async fn on_own_engine(name: &str, scene: impl AsyncFnOnce(&Site, &OwnEngine)) {
    engine::on_own_engine(name, Binaries::beside_this_program().unwrap(), scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_with_replicas_and_its_rollback_fail_no_request() {
    let name = "blue_green_with_replicas_and_its_rollback_fail_no_request";
    on_engine(name, deploys::blue_green_with_replicas_and_its_rollback).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_singleton_with_a_route_is_handed_over_under_a_hold() {
    let name = "a_singleton_with_a_route_is_handed_over_under_a_hold";
    on_engine(name, deploys::a_singleton_with_a_route_is_handed_over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_kept_then_handed_over_and_never_runs_twice() {
    let name = "a_bot_is_kept_then_handed_over_and_never_runs_twice";
    on_engine(name, deploys::a_bot_is_kept_then_handed_over).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_deploy_at_once_and_one_goes_without_the_other_noticing() {
    let name = "two_apps_deploy_at_once_and_one_goes_without_the_other_noticing";
    on_engine(name, deploys::two_apps_deploy_at_once_and_one_goes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_between_services_reaches_its_own_release() {
    let name = "a_call_between_services_reaches_its_own_release";
    on_engine(name, deploys::a_call_between_services_reaches_its_own_release).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaking_migration_holds_requests_and_loses_nothing() {
    let name = "a_breaking_migration_holds_requests_and_loses_nothing";
    on_engine(name, databases::a_breaking_migration_holds_requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_is_put_back() {
    on_engine("a_migration_that_fails_is_put_back", databases::a_migration_that_fails_is_put_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_has_open_is_not_migrated() {
    let name = "a_database_that_somebody_has_open_is_not_migrated";
    on_engine(name, databases::a_database_that_somebody_has_open_is_not_migrated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_in_the_middle_changes_nothing() {
    let name = "a_client_killed_in_the_middle_changes_nothing";
    on_engine(name, clients::a_client_killed_in_the_middle_changes_nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_seen_nowhere() {
    on_engine("a_secret_is_seen_nowhere", secrets::a_secret_is_seen_nowhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_one_is_killed_by_docker_kill() {
    on_engine("of_two_replicas_one_is_killed_by_docker_kill", async |site| {
        crashes::of_two_replicas_one_is_killed(site, crashes::By::Container).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_ones_process_is_killed() {
    on_engine("of_two_replicas_ones_process_is_killed", async |site| {
        crashes::of_two_replicas_one_is_killed(site, crashes::By::Process).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backing_service_is_made_anew_when_asked() {
    let name = "a_backing_service_is_made_anew_when_asked";
    on_engine(name, backing::a_backing_service_is_made_anew_when_asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backing_service_that_never_came_up_is_mended_by_the_next_deploy() {
    let name = "a_backing_service_that_never_came_up_is_mended_by_the_next_deploy";
    on_engine(name, backing::a_backing_service_that_never_came_up_is_mended_by_the_next_deploy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backing_service_is_started_once_and_never_replaced() {
    let name = "a_backing_service_is_started_once_and_never_replaced";
    on_engine(name, backing::a_backing_service_is_started_once_and_never_replaced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_is_back_within_a_second() {
    on_engine("a_killed_proxy_is_back_within_a_second", crashes::a_killed_proxy_is_back_within_a_second)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_watch_is_back_and_nobody_notices() {
    on_engine("a_killed_watch_is_back_and_nobody_notices", crashes::a_killed_watch_is_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_engine_brings_all_back() {
    on_own_engine("a_restarted_engine_brings_all_back", engines::a_restarted_engine_brings_all_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_of_power_the_same_release_serves() {
    let name = "after_a_loss_of_power_the_same_release_serves";
    on_own_engine(name, engines::after_a_loss_of_power_the_same_release_serves).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bridge_ports_on_loopback_take_its_place() {
    on_own_engine("without_a_bridge_ports_on_loopback_take_its_place", async |site, engine| {
        engine.hide_bridge().unwrap();
        engines::without_a_bridge_ports_on_loopback_take_its_place(site).await;
    })
    .await;
}

/// Two engines, of which the first made the chains of the packet filter, and ends first; what is left then, and in the end. In a network where
/// there is nobody else.
const ENDS_BESIDE_ANOTHER: &str = r#"
mount -t tmpfs tmpfs /run/lock && ip link set lo up || exit 3
script=$1 folder=$2
found() { iptables -w -S; iptables -w -t nat -S; }
for one in a b; do "$script" own "$folder/$one" 2>&1 >"$folder/address.$one" || exit; done
DOCKER_HOST=unix://$folder/a/sock docker network create one >/dev/null
bridge=$(cat "$folder/a/engine-of-the-tests")
echo "there: $(found | grep -cE "MASQUERADE| $bridge ")"
"$script" kill "$folder/a" 2>&1 && "$script" stop "$folder/a" 2>&1
echo "beside another: $(found | grep -cE "MASQUERADE| $bridge | br-")"
echo "chains: $(found | grep -c '^-N DOCKER')"
"$script" stop "$folder/b" 2>&1
echo "in the end: $(found | grep -vc '^-P')"
"#;

#[test]
#[ignore = "long: make soak"]
fn an_engine_of_the_tests_takes_its_rules_with_it_and_the_last_one_the_chains() {
    let name = "an_engine_of_the_tests_takes_its_rules_with_it_and_the_last_one_the_chains";
    if !rustix::process::geteuid().is_root() {
        return println!("not run: {name}: the packet filter is root's");
    }
    let folder = tempfile::Builder::new().prefix("eng-").tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/engine.sh");
    let mut command = std::process::Command::new("unshare");
    command.args(["--net", "--pid", "--mount", "--fork", "--mount-proc", "bash", "-c", ENDS_BESIDE_ANOTHER]);
    command.args(["ends", script]).arg(folder.path()).env_remove("DOCKER_HOST").env_remove("TMPDIR");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(3) {
        return println!("not run: {name}: {}", said.lines().last().unwrap_or_default());
    }
    let of = |what: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {what} in {said}")).parse::<u32>().unwrap()
    };
    assert!(of("there") > 2, "{said}");
    assert_eq!((of("beside another"), of("in the end")), (0, 0), "{said}");
    assert!(of("chains") > 2, "they are the other one's, too: {said}");
}
