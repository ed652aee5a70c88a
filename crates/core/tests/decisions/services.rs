//! Which services a deploy makes anew, and which it keeps.

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

    let plan = host.plan(&Request { contents, ..ask(Verb::Deploy) }).unwrap();

    let of = |name: &str| &plan.services[&name.parse().unwrap()];
    let why = |plan: &ServicePlan| match plan {
        ServicePlan::Replaced { why, .. } => why.clone(),
        _ => Vec::new(),
    };
    assert_eq!(why(of("api")), [Change::Content]);
    assert_eq!(why(of("web")), [Change::Url]);
    assert_eq!(*of("bot"), ServicePlan::Kept);
}
