//! What can happen to deploys on servers, under traffic: at some stages that are drawn by a seed (`CUTOVER_SEED`), and in the soak at all.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use cutover_suites::killing_binaries;
use cutover_suites::matrix::{Fault, Matrix, Moment, table};
use cutover_suites::scenes::killed::{draw, seed};
use cutover_suites::servers::on_server;
use cutover_testkit::machine::{Image, Machine, ServerApp};

async fn of_processes(machine: &Machine) -> Matrix<'_> {
    let binaries = killing_binaries().unwrap();
    machine.install(&binaries).await.unwrap();
    Matrix::begin(ServerApp::of_processes(machine, &binaries, "shop").unwrap()).await
}

/// All that can happen where there are no containers.
fn without_engine() -> impl Iterator<Item = Fault> {
    Fault::ALL.into_iter().filter(|fault| *fault != Fault::EngineRestarted)
}

#[tokio::test(flavor = "multi_thread")]
async fn deploys_of_processes_come_to_an_end_whatever_happens_at_some_stage() {
    on_server("deploys_of_processes_come_to_an_end", Image::Debian13, async |machine| {
        let mut matrix = of_processes(machine).await;
        let moments: Vec<Moment> = Moment::all().collect();
        let seed = seed();
        for (number, fault) in (0..).zip(without_engine()) {
            let drawn = draw(seed.wrapping_add(number), 1, moments.len() as u64)[0];
            matrix.case(fault, moments[usize::try_from(drawn).unwrap() - 1]).await;
        }
        println!("{}", table(&matrix.end().await));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn deploys_of_processes_come_to_an_end_whatever_happens_at_any_stage() {
    on_server("deploys_of_processes_come_to_an_end_at_any_stage", Image::Debian13, async |machine| {
        let mut matrix = of_processes(machine).await;
        for fault in without_engine() {
            for moment in Moment::all() {
                matrix.case(fault, moment).await;
            }
        }
        println!("{}", table(&matrix.end().await));
    })
    .await;
}
