//! `run` is killed with -9 at every journalled step, under traffic, with plain processes.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use cutover_suites::killing_binaries;
use cutover_suites::scenes::killed::{Killed, deployed_after_one_killed_when_told, steps_killed};
use cutover_suites::scenes::pruned::prunes_killed;
use cutover_testkit::site::Site;

/// So many sites share the steps of a matrix.
const SITES: usize = 4;

/// All steps, shared by sites that go at once.
async fn every_step(killed: Killed) {
    let sites: Vec<_> = (0..SITES).map(|_| Site::with(killing_binaries().unwrap()).unwrap()).collect();
    let all = sites.iter().zip(1..).map(|(site, first)| steps_killed(site, killed, first, SITES));
    futures_util::future::join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_killed_at_every_step_is_settled() {
    every_step(Killed::Deploy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_killed_at_every_step_is_settled() {
    every_step(Killed::Rollback).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_killed_at_every_step_loses_nothing() {
    every_step(Killed::Migration).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_after_one_that_was_killed_when_it_was_done_is_not_refused() {
    deployed_after_one_killed_when_told(&Site::with(killing_binaries().unwrap()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_killed_at_every_step_is_carried_out_all_the_same_and_takes_nothing_that_is_needed() {
    let sites: Vec<_> = (0..SITES).map(|_| Site::with(killing_binaries().unwrap()).unwrap()).collect();
    let all = sites.iter().zip(1..).map(|(site, first)| prunes_killed(site, first, SITES));
    futures_util::future::join_all(all).await;
}
