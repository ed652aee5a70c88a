//! What a deploy does about a backing service that is there already, in every state that an earlier one can have left it in.

use cutover_core::plan::{BackingPlan, HostPlan, Planned, WhyNot};
use cutover_core::state::{ReleaseRecord, RestartPolicy};

use crate::world::{Host, incoming, todo};

const SHOP: &str = r"
app: shop
services:
  web: { artifact: web, command: ./web, port: 8000, health: { path: /health } }
backing:
  store: { artifact: store, command: ./store, port: 6000, health: { tcp: 6000 } }
";

/// A host whose first deploy made the store, and died before it knew whether that is healthy.
fn died_before_its_gate() -> (Host, HostPlan) {
    let mut host = Host::new(SHOP);
    let first = host.deploy("v1").unwrap();
    let store = incoming(&first).into_iter().find(|gated| gated.spec.service.as_str() == "store").unwrap();
    host.run(&store);
    host.state.instances[0].restart = RestartPolicy::No;
    host.state.releases.push(ReleaseRecord {
        release: first.release.clone().unwrap(),
        sequence: 1,
        lived: false,
        migrations: Vec::new(),
        warm_until: None,
    });
    (host, first)
}

fn backing(plan: &HostPlan) -> &BackingPlan {
    todo(&plan.backing)
}

#[test]
fn given_one_whose_run_died_before_its_gate_then_it_is_gated_as_it_was_made() {
    let (mut host, first) = died_before_its_gate();
    // Of another commit, whose store is the same.
    let mut contents = host.contents("v2");
    contents.insert("store".parse().unwrap(), host.contents("v1")[&"store".parse().unwrap()].clone());

    let plan = host.deploy_of(contents).unwrap();

    assert_eq!(backing(&plan).instances, backing(&first).instances);
    assert_eq!(backing(&plan).retire, []);
}

#[test]
fn given_one_that_never_was_healthy_and_is_mended_in_the_file_then_it_is_made_anew() {
    let (mut host, first) = died_before_its_gate();
    host.stop("store");
    host.text = SHOP.replace("port: 6000", "environment: { PASSWORD: word }, port: 6000");

    let plan = host.deploy("v1").unwrap();

    let (was, is) = (&backing(&first).instances[0].spec, &backing(&plan).instances[0].spec);
    assert_eq!(backing(&plan).retire.iter().map(|gone| &gone.name).collect::<Vec<_>>(), [&was.name]);
    assert_eq!((&is.name, is.address), (&was.name, was.address));
    assert_eq!(is.release, plan.release.as_ref().unwrap().id);
    assert!(!plan.notes.iter().any(|note| note.contains("backing service")), "{:?}", plan.notes);
}

#[test]
fn given_one_that_a_live_release_stands_on_then_no_deploy_replaces_it() {
    let mut host = Host::serving(SHOP);

    let differs = host.deploy("v2").unwrap();
    assert_eq!(differs.backing, Planned::NotNeeded(WhyNot::Present));
    assert!(
        differs.notes.iter().any(|note| note.contains("`cutover backing apply store`")),
        "{:?}",
        differs.notes
    );

    // Down, and not admitted: it is started as it was made.
    host.stop("store");
    host.state.instances.iter_mut().for_each(|found| found.restart = RestartPolicy::No);
    let down = host.deploy("v2").unwrap();
    assert_eq!(backing(&down).retire, []);
    let store = host.state.instances.iter().find(|found| found.service.as_str() == "store").unwrap();
    assert_eq!(backing(&down).instances[0].spec.hash(), store.spec);
}
