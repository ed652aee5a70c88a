//! Which services a deploy makes anew, and which it keeps.

use cutover_core::hash::ContentHash;
use cutover_core::plan::{Change, ServicePlan, Verb};
use cutover_core::request::Request;
use cutover_core::state::FoundEngine;

use crate::world::{Host, ask};

const SHOP: &str = r#"
app: shop
services:
  web:
    image: web:latest
    environment: { API: "${services.api.url}" }
    port: 8000
    route: { host: shop.example.com }
    health: { path: /health }
  api:
    image: api:latest
    port: 8001
    strategy: blue-green
    health: { path: /health }
  bot:
    image: bot:latest
    ready: { log: polling }
"#;

fn engine() -> FoundEngine {
    FoundEngine {
        name: "Docker".to_owned(),
        version: "1".to_owned(),
        platform: "linux/amd64".to_owned(),
        bridge_reachable: true,
        subnets: Vec::new(),
        range: cutover_core::defaults::SUBNETS.to_owned(),
        networks: [].into(),
        volumes: [].into(),
    }
}

#[test]
fn given_a_container_that_calls_a_changed_one_then_it_is_made_anew_with_it() {
    // In both colours at once it would meet the new one before its gate.
    let mut host = Host::new(SHOP);
    host.state.engine = Some(engine());
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    let mut contents = host.contents("v1");
    contents.extend(host.contents("v2").into_iter().filter(|(name, _)| name.as_str() == "api"));

    let plan = host.deploy_of(contents).unwrap();

    let of = |name: &str| &plan.services[&name.parse().unwrap()];
    let why = |plan: &ServicePlan| match plan {
        ServicePlan::Replaced { why, .. } => why.clone(),
        _ => Vec::new(),
    };
    assert_eq!(why(of("api")), [Change::Content]);
    assert_eq!(why(of("web")), [Change::Url]);
    assert_eq!(*of("bot"), ServicePlan::Kept);
}

#[test]
fn given_two_apps_on_an_engine_then_removing_one_takes_only_its_own_networks() {
    let mut host = Host::new(SHOP);
    let edge = cutover_core::layout::edge_network(&host.state.installation);
    let own = cutover_core::layout::backing_network(&host.state.app);
    let other = cutover_core::layout::backing_network(&"blog/local".parse().unwrap());
    let networks = [&edge, &own, &other].map(|name| (name.clone(), "10.0.0.0/24".to_owned()));
    host.state.engine = Some(FoundEngine { networks: networks.into(), ..engine() });
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);

    let plan = host.plan(&ask(Verb::Remove)).unwrap();

    assert_eq!(plan.record.networks, [own]);
}

#[test]
fn given_an_app_that_was_removed_then_its_data_can_still_be_taken() {
    let mut host = Host::new(SHOP);
    let volumes = || std::collections::BTreeSet::from(["cutover-shop-local-data".to_owned()]);
    host.state.engine = Some(FoundEngine { volumes: volumes(), ..engine() });
    let told = host.plan(&ask(Verb::Remove)).unwrap_err().failure();
    assert!(told.next.iter().any(|next| next.contains("`cutover remove --volumes`")), "{told:?}");

    let plan = host.plan(&Request { volumes: true, ..ask(Verb::Remove) }).unwrap();

    assert!(plan.record.data);
    assert_eq!(
        plan.record.volumes.iter().map(|one| one.name.clone()).collect::<Vec<_>>(),
        Vec::from_iter(volumes())
    );
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    // What a volume's data was made with stays with it.
    assert!(host.plan(&ask(Verb::Remove)).unwrap().record.env_stays);
}

#[test]
fn given_a_name_that_no_service_asks_for_then_setting_it_says_so() {
    let text = "app: shop\nservices:\n  web: { artifact: web, command: ./web, environment: { TOKEN: } }\n";
    let mut host = Host::new(text);
    host.state.variables = Some([("TOKEN".parse().unwrap(), ContentHash::of(b"first"))].into());
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    let overlay = ["TOKEN", "TYPOO"].map(|name| (name.parse().unwrap(), ContentHash::of(b"value")));

    let plan = host.plan(&Request { overlay: overlay.into(), ..ask(Verb::Environment) }).unwrap();

    assert_eq!(
        plan.notes,
        ["no service asks for TYPOO: name it under `environment:` without a value, and deploy"]
    );
}

#[test]
fn given_backups_and_nothing_that_changed_then_the_release_is_the_live_one_until_they_change() {
    let text = |keep: u32| {
        format!(
            "app: shop\nservices:\n  web: {{ artifact: web, command: ./web, environment: {{ TOKEN: }} }}\n\
             backup: {{ to: /backups, password: \"${{TOKEN}}\", keep: {{ daily: {keep} }} }}\n"
        )
    };
    let mut host = Host::new(&text(7));
    host.state.variables = Some([("TOKEN".parse().unwrap(), ContentHash::of(b"first"))].into());
    let first = host.deploy("v1").unwrap();
    host.carry_out(&first);
    let live = first.release.unwrap().id;

    assert_eq!(host.deploy("v1").unwrap().release.unwrap().id, live);
    host.text = text(8);
    assert_ne!(host.deploy("v1").unwrap().release.unwrap().id, live);
}
