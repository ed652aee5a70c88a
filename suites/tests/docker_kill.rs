//! `run` is killed with -9 at journalled steps, under traffic, with containers on a real engine: at some that are drawn by a seed
//! (`CUTOVER_SEED`), and in the soak at every one.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use cutover_suites::scenes::killed::{Killed, killed_when_told, seed, some_steps_killed, steps_killed};
use cutover_suites::{engine, killing_binaries};

/// So many steps of each kind of run are drawn.
const SOME: usize = 8;

async fn some(name: &str, killed: Killed) {
    engine::on_engine(name, killing_binaries().unwrap(), async |site| {
        some_steps_killed(site, killed, SOME, seed()).await;
    })
    .await;
}

async fn all(name: &str, killed: Killed) {
    engine::on_engine(name, killing_binaries().unwrap(), async |site| {
        steps_killed(site, killed, 1, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_killed_at_some_steps_is_settled() {
    some("a_deploy_killed_at_some_steps_is_settled", Killed::Deploy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_killed_at_some_steps_is_settled() {
    some("a_rollback_killed_at_some_steps_is_settled", Killed::Rollback).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_killed_at_some_steps_loses_nothing() {
    some("a_migration_killed_at_some_steps_loses_nothing", Killed::Migration).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_killed_when_it_was_told_leaves_nothing() {
    let name = "a_deploy_killed_when_it_was_told_leaves_nothing";
    engine::on_engine(name, killing_binaries().unwrap(), async |site| killed_when_told(site).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_deploy_killed_at_every_step_is_settled() {
    all("a_deploy_killed_at_every_step_is_settled", Killed::Deploy).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_rollback_killed_at_every_step_is_settled() {
    all("a_rollback_killed_at_every_step_is_settled", Killed::Rollback).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn a_migration_killed_at_every_step_loses_nothing() {
    all("a_migration_killed_at_every_step_loses_nothing", Killed::Migration).await;
}
