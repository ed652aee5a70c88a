//! What can happen to deploys on servers, under traffic: at some stages that are drawn by a seed (`CUTOVER_SEED`), and in the soak at all.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use cutover_suites::matrix::{Fault, Matrix, Moment, table};
use cutover_suites::scenes::killed::{draw, seed};
use cutover_suites::servers::on_server;
use cutover_suites::{engine, killing_binaries};
use cutover_testkit::machine::{Image, Machine, ServerApp};

/// What needs packages from elsewhere, or keeps people out, is tried in its own suite.
const PLAIN: &str = "docker: false, upgrades: false, time: false, firewall: false, ssh_hardening: false";
const WITH_ENGINE: &str = "upgrades: false, time: false, firewall: false, ssh_hardening: false";

async fn of_processes(machine: &Machine) -> Matrix<'_> {
    let app = ServerApp::of_processes(machine, &killing_binaries().unwrap(), "shop").unwrap();
    Matrix::begin(app.set_up_with(PLAIN)).await
}

async fn of_containers(machine: &Machine) -> Matrix<'_> {
    let (binaries, engine) = (killing_binaries().unwrap(), engine::usable().await.unwrap());
    let app = ServerApp::of_containers(machine, &binaries, &engine, "shop").await.unwrap();
    Matrix::begin(app.set_up_with(WITH_ENGINE)).await
}

/// Each of these happens once, at a moment that the seed draws.
async fn some(mut matrix: Matrix<'_>, faults: &[Fault]) {
    let moments: Vec<Moment> = Moment::all().collect();
    let seed = seed();
    for (number, fault) in (0..).zip(faults) {
        let drawn = draw(seed.wrapping_add(number), 1, moments.len() as u64)[0];
        matrix.case(*fault, moments[usize::try_from(drawn).unwrap() - 1]).await;
    }
    println!("{}", table(&matrix.end().await));
}

/// `CUTOVER_CASE="hung at bake"`: whoever looks into a case tries it alone.
fn wanted(fault: Fault, moment: Moment) -> bool {
    std::env::var("CUTOVER_CASE").map_or(true, |case| format!("{fault} at {moment}").starts_with(&case))
}

/// Each of these happens at every moment.
async fn all(mut matrix: Matrix<'_>, faults: &[Fault]) {
    for fault in faults {
        for moment in Moment::all() {
            if wanted(*fault, moment) {
                matrix.case(*fault, moment).await;
            }
        }
    }
    println!("{}", table(&matrix.end().await));
}

/// What takes seconds until the client has noticed is tried at processes; what has to do with an engine, where there is one.
const SOME_OF_PROCESSES: [Fault; 4] =
    [Fault::ClientKilled, Fault::NetworkCut, Fault::ProxyKilled, Fault::Hung];
const SOME_OF_CONTAINERS: [Fault; 4] =
    [Fault::SshdKilled, Fault::RunKilled, Fault::EngineRestarted, Fault::PowerLost];

/// All that can happen where there are no containers.
const WITHOUT_ENGINE: [Fault; 7] = [
    Fault::ClientKilled,
    Fault::NetworkCut,
    Fault::SshdKilled,
    Fault::RunKilled,
    Fault::ProxyKilled,
    Fault::PowerLost,
    Fault::Hung,
];

#[tokio::test(flavor = "multi_thread")]
async fn deploys_of_processes_come_to_an_end_whatever_happens_at_some_stage() {
    on_server(
        "deploys_of_processes_come_to_an_end_whatever_happens_at_some_stage",
        Image::Debian13,
        async |machine| {
            some(of_processes(machine).await, &SOME_OF_PROCESSES).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploys_of_containers_come_to_an_end_whatever_happens_at_some_stage() {
    on_server(
        "deploys_of_containers_come_to_an_end_whatever_happens_at_some_stage",
        Image::Engine20,
        async |machine| {
            some(of_containers(machine).await, &SOME_OF_CONTAINERS).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn deploys_of_processes_come_to_an_end_whatever_happens_at_any_stage() {
    on_server(
        "deploys_of_processes_come_to_an_end_whatever_happens_at_any_stage",
        Image::Debian13,
        async |machine| {
            all(of_processes(machine).await, &WITHOUT_ENGINE).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn deploys_of_containers_come_to_an_end_whatever_happens_at_any_stage() {
    on_server(
        "deploys_of_containers_come_to_an_end_whatever_happens_at_any_stage",
        Image::Engine26,
        async |machine| {
            all(of_containers(machine).await, &Fault::ALL).await;
        },
    )
    .await;
}
