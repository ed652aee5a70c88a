//! What can happen to deploys on servers, under traffic: at some stages that are drawn by a seed (`CUTOVER_SEED`), and in the soak at all.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops where it fails, and says its numbers"
)]

use cutover_suites::matrix::{Case, Change, Fault, Kind, Matrix, Moment, table, try_all};
use cutover_suites::scenes::killed::{draw, seed};
use cutover_suites::servers::on_server;
use cutover_testkit::machine::Image;

/// Each of these happens once, to a deploy and at a moment that the seed draws.
async fn some(mut matrix: Matrix<'_>, faults: &[Fault]) {
    let drawn: Vec<(Moment, Change)> =
        Moment::all().flat_map(|moment| Change::ALL.map(|change| (moment, change))).collect();
    let seed = seed();
    for (number, fault) in (0..).zip(faults) {
        let place = draw(seed.wrapping_add(number), 1, drawn.len() as u64)[0];
        let (moment, change) = drawn[usize::try_from(place).unwrap() - 1];
        matrix.case(Case { fault: *fault, moment, change }).await;
    }
    println!("{}", table(&matrix.end().await));
}

/// What takes seconds until the client has noticed is tried at processes; what has to do with an engine, where there is one.
const SOME_OF_PROCESSES: [Fault; 4] =
    [Fault::ClientKilled, Fault::NetworkCut, Fault::ProxyKilled, Fault::Hung];
const SOME_OF_CONTAINERS: [Fault; 4] =
    [Fault::SshdKilled, Fault::RunKilled, Fault::EngineRestarted, Fault::PowerLost];

/// All that can happen where there are no containers. What takes longest first.
const WITHOUT_ENGINE: [Fault; 7] = [
    Fault::Hung,
    Fault::NetworkCut,
    Fault::PowerLost,
    Fault::RunKilled,
    Fault::ProxyKilled,
    Fault::SshdKilled,
    Fault::ClientKilled,
];
const WITH_ENGINE: [Fault; 8] = [
    Fault::Hung,
    Fault::NetworkCut,
    Fault::EngineRestarted,
    Fault::PowerLost,
    Fault::RunKilled,
    Fault::ProxyKilled,
    Fault::SshdKilled,
    Fault::ClientKilled,
];

#[tokio::test(flavor = "multi_thread")]
async fn deploys_of_processes_come_to_an_end_whatever_happens_at_some_stage() {
    on_server(
        "deploys_of_processes_come_to_an_end_whatever_happens_at_some_stage",
        Image::Debian13,
        async |machine| {
            some(Matrix::of(Kind::Processes, machine).await, &SOME_OF_PROCESSES).await;
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
            some(Matrix::of(Kind::Containers, machine).await, &SOME_OF_CONTAINERS).await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn deploys_of_processes_come_to_an_end_whatever_happens_at_any_stage() {
    let name = "deploys_of_processes_come_to_an_end_whatever_happens_at_any_stage";
    try_all(name, Kind::Processes, Image::Debian13, Case::chosen(&WITHOUT_ENGINE)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make soak"]
async fn deploys_of_containers_come_to_an_end_whatever_happens_at_any_stage() {
    let name = "deploys_of_containers_come_to_an_end_whatever_happens_at_any_stage";
    try_all(name, Kind::Containers, Image::Engine26, Case::chosen(&WITH_ENGINE)).await;
}
