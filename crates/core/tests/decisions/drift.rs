//! What is told of a host that is otherwise than it was recorded.

use cutover_core::drift;
use cutover_core::state::{ExitStatus, FoundInstance, InstanceState, RestartPolicy};
use cutover_core::wire::{HostFacts, OpenFile, TableFile};
use cutover_routes::RouteState;

use super::world::{Host, WEB};

/// What a person did by hand.
type Touch<'a> = &'a dyn Fn(&mut Host);

/// What is told, each with what mends it.
fn told(host: &Host, facts: &HostFacts) -> Vec<String> {
    let found = drift::find(&host.state, facts, None);
    found.into_iter().map(|drift| format!("{} → {}", drift.what, drift.mend)).collect()
}

fn serving() -> Host {
    let mut host = Host::serving(WEB);
    // The world of these tests keeps no store of artifacts.
    host.state.artifacts = host.state.releases.iter().flat_map(|record| record.release.artifacts()).collect();
    host
}

fn web(host: &mut Host) -> &mut FoundInstance {
    host.state.instances.iter_mut().find(|found| found.service.as_str() == "web").unwrap()
}

#[test]
fn given_a_host_as_it_was_recorded_then_nothing_is_told() {
    assert_eq!(told(&serving(), &HostFacts::default()), Vec::<String>::new());
}

#[test]
fn given_an_instance_that_was_touched_by_hand_then_it_and_its_remedy_are_told() {
    let down = |host: &mut Host| {
        let exit = ExitStatus { code: Some(137), signal: None, out_of_memory: false, error: None, at: None };
        web(host).state = InstanceState::Exited { exit };
    };
    let cases: [(&str, Touch<'_>); 3] = [
        ("is down: it exited with code 137", &down),
        ("is not there", &|host| host.state.instances.clear()),
        ("would not come back after an exit or a reboot", &|host| web(host).restart = RestartPolicy::No),
    ];
    for (what, touch) in cases {
        let mut host = serving();
        touch(&mut host);
        let told = told(&host, &HostFacts::default());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(what) && told[0].contains("`cutover restart web`"), "{told:?}");
    }
}

#[test]
fn given_a_stray_that_runs_then_it_is_told_unless_a_run_goes_on() {
    let mut host = serving();
    let mut stray = web(&mut host).clone();
    stray.name = "web-green-1-0badcafe".parse().unwrap();
    host.state.instances.push(stray);
    assert!(told(&host, &HostFacts::default())[0].contains("nothing that is live has it"));
    host.state.unfinished = Some("018f3c9e-0000-7000-8000-0000deadbeef".parse().unwrap());
    assert!(!told(&host, &HostFacts::default()).iter().any(|told| told.contains("0badcafe")));
}

#[test]
fn given_a_table_that_was_edited_then_what_differs_is_told() {
    let mut host = serving();
    let owner = host.state.app.owner();
    let table = &mut host.state.table.as_mut().unwrap().table;
    let route = &mut table.owners.get_mut(&owner).unwrap().routes[0];
    let RouteState::Serving { targets } = &mut route.state else { panic!() };
    targets[0].id = "somebody-else".to_owned();
    let facts = HostFacts { table_file: TableFile::Other, ..HostFacts::default() };
    let told = told(&host, &facts);
    assert!(told[0].contains("leads to somebody-else, which is not live"), "{told:?}");
    assert!(told[1].contains("the table on the disk is not the one that is served"), "{told:?}");
    let table = &mut host.state.table.as_mut().unwrap().table;
    table.owners.get_mut(&owner).unwrap().routes.clear();
    let told = self::told(&host, &HostFacts::default());
    assert!(told[0].contains("the route of `web` is not in the table"), "{told:?}");
}

#[test]
fn given_a_file_others_can_read_or_content_that_is_gone_then_each_is_told() {
    let mut host = serving();
    host.state.artifacts.clear();
    let file = OpenFile { path: "/var/lib/cutover/apps/shop/local/env".to_owned(), mode: 0o644 };
    let told = told(&host, &HostFacts { open_files: vec![file], ..HostFacts::default() });
    assert!(told[0].contains("mode is 0644 → `chmod 600 "), "{told:?}");
    assert!(told[1].contains("of `web` is gone from the host"), "{told:?}");
}

#[test]
fn given_an_app_that_wrote_into_its_own_artifact_then_diff_and_the_next_deploy_name_it() {
    let mut host = serving();
    let artifact = host.state.artifacts.first().unwrap().clone();
    host.state.written.insert(artifact, ["app.db".to_owned()].into());
    let told = told(&host, &HostFacts::default());
    assert!(told[0].contains("has written app.db into its own folder"), "{told:?}");

    let tells = |plan: &cutover_core::plan::HostPlan| plan.notes.iter().any(|note| note.contains("app.db"));
    assert!(tells(&host.deploy("v2").unwrap()));
    // Nothing goes with what stays.
    assert!(!tells(&host.deploy("v1").unwrap()));
}
