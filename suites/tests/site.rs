//! Real binaries, plain processes, constant traffic: deploys of every shape, and every process killed. Each test prints how many requests it
//! sent and how many failed.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use cutover_suites::scenes::{clients, crashes, databases, deploys, secrets};
use cutover_testkit::site::Site;

fn site() -> Site {
    Site::new().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_with_replicas_and_its_rollback_fail_no_request() {
    deploys::blue_green_with_replicas_and_its_rollback(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_singleton_with_a_route_is_handed_over_under_a_hold() {
    deploys::a_singleton_with_a_route_is_handed_over(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_is_kept_then_handed_over_and_never_runs_twice() {
    deploys::a_bot_is_kept_then_handed_over(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_apps_deploy_at_once_and_one_goes_without_the_other_noticing() {
    deploys::two_apps_deploy_at_once_and_one_goes(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_between_services_reaches_its_own_release() {
    deploys::a_call_between_services_reaches_its_own_release(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaking_migration_holds_requests_and_loses_nothing() {
    databases::a_breaking_migration_holds_requests(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_is_put_back() {
    databases::a_migration_that_fails_is_put_back(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaking_migration_is_taken_back_by_its_own_command() {
    databases::a_breaking_migration_is_taken_back_by_its_own_command(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_in_the_middle_changes_nothing() {
    clients::a_client_killed_in_the_middle_changes_nothing(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_seen_nowhere() {
    secrets::a_secret_is_seen_nowhere(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_is_back_within_a_second() {
    crashes::a_killed_proxy_is_back_within_a_second(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_watch_is_back_and_nobody_notices() {
    crashes::a_killed_watch_is_back(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_keeper_is_back_and_nobody_notices() {
    crashes::a_killed_keeper_is_back(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_replicas_one_is_killed_by_hand() {
    crashes::of_two_replicas_one_is_killed(&site(), crashes::By::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_was_killed_at_once_the_same_release_serves() {
    crashes::after_all_was_killed_at_once_the_same_release_serves(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_has_open_is_not_migrated() {
    databases::a_database_that_somebody_has_open_is_not_migrated(&site()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_run_beside_a_deploy_that_may_migrate() {
    databases::nothing_is_run_beside_a_deploy_that_may_migrate(&site()).await;
}
