//! Networks, addresses and ports on a real engine.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use cutover_engine::{Endpoint, Kind, NetworkSpec, Networking, Port, Protocol, Subnet};
use support::{Place, command, on_engine};

/// A subnet that no network here uses; tests run side by side, so each asks for its own number.
async fn free_subnet(place: &Place, wanted: u8) -> Subnet {
    let used = place.engine.subnets_in_use().await.unwrap();
    (0..=255_u8)
        .map(|step| Subnet { address: [10, 213, wanted.wrapping_add(step), 0].into(), prefix: 24 })
        .find(|candidate| !used.iter().any(|other| other.overlaps(*candidate)))
        .unwrap()
}

async fn network(place: &Place, what: &str, number: u8) -> (NetworkSpec, Subnet) {
    let subnet = free_subnet(place, number).await;
    let handed_out = Subnet { prefix: 25, ..subnet };
    let spec = NetworkSpec {
        name: place.name(what),
        subnet: Some(subnet),
        handed_out: Some(handed_out),
        labels: place.labels(),
        ..NetworkSpec::default()
    };
    place.engine.create_network(&spec).await.unwrap();
    (spec, subnet)
}

#[test]
fn addresses_are_fixed_and_names_resolve_on_their_network_only() {
    on_engine("addresses_are_fixed_and_names_resolve_on_their_network_only", |place| async move {
        let engine = &place.engine;
        let (blue, subnet) = network(&place, "blue", 10).await;
        let (green, _) = network(&place, "green", 20).await;
        assert_eq!(
            engine.create_network(&blue).await.unwrap(),
            engine.inspect_network(&blue.name).await.unwrap().id
        );

        let address = std::net::Ipv4Addr::from_bits(subnet.address.to_bits() + 200);
        let place_on = |network: &NetworkSpec, alias: &str, address| Endpoint {
            network: network.name.clone(),
            aliases: vec![alias.to_owned()],
            address,
        };
        let mut web = place.idle("web");
        web.networking = Networking::Joined(vec![
            place_on(&blue, "web", Some(address)),
            place_on(&green, "web-too", None),
        ]);
        let web_id = engine.create(&web).await.unwrap().id;
        engine.start(&web_id).await.unwrap();
        let found = engine.inspect(&web_id).await.unwrap();
        assert_eq!(found.networks[&blue.name].address, Some(address));
        assert!(found.networks[&green.name].address.is_some());
        let listed = engine.list(&place.labels()).await.unwrap();
        assert_eq!(listed[0].networks[&blue.name].address, Some(address));

        let mut asks = place.idle("asks");
        asks.networking = Networking::Joined(vec![place_on(&blue, "asks", None)]);
        let asks_id = engine.create(&asks).await.unwrap().id;
        engine.start(&asks_id).await.unwrap();
        let seen = engine.inspect_network(&blue.name).await.unwrap().containers;
        assert_eq!(seen[&web_id], Some(address));

        let resolves = async |name: &str| {
            engine.exec(&asks_id, &command(&["nslookup", name, "127.0.0.11"])).await.unwrap()
        };
        assert!(resolves("web").await.output.contains(&address.to_string()));
        assert_ne!(resolves("web-too").await.code, 0);

        // A fixed address is had once only, outlives a restart, and is free again after leaving.
        let mut twin = place.idle("twin");
        twin.networking = Networking::Joined(vec![place_on(&blue, "twin", Some(address))]);
        let twin_id = engine.create(&twin).await.unwrap().id;
        assert_eq!(engine.start(&twin_id).await.unwrap_err().kind, Kind::Conflict);
        engine.stop(&web_id, Duration::from_secs(5)).await.unwrap();
        engine.start(&web_id).await.unwrap();
        assert_eq!(engine.inspect(&web_id).await.unwrap().networks[&blue.name].address, Some(address));
        engine.leave(&web_id, &blue.name).await.unwrap();
        engine.leave(&web_id, &blue.name).await.unwrap();
        engine.start(&twin_id).await.unwrap();
        engine.join(&web_id, &place_on(&blue, "late", None)).await.unwrap();
        engine.join(&web_id, &place_on(&blue, "late", None)).await.unwrap();
        assert_eq!(resolves("late").await.code, 0);

        let error = engine.remove_network(&blue.name).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{error}");
    });
}

#[test]
fn a_subnet_in_use_is_a_conflict_and_is_listed() {
    on_engine("a_subnet_in_use_is_a_conflict_and_is_listed", |place| async move {
        let (first, subnet) = network(&place, "first", 40).await;
        assert!(place.engine.subnets_in_use().await.unwrap().contains(&subnet));
        let second = NetworkSpec { name: place.name("second"), ..first.clone() };
        let error = place.engine.create_network(&second).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{error}");
        let theirs = NetworkSpec { labels: [("else".to_owned(), "1".to_owned())].into(), ..first };
        assert_eq!(place.engine.create_network(&theirs).await.unwrap_err().kind, Kind::Exists);
    });
}

#[test]
fn a_published_port_is_found_and_cannot_be_had_twice() {
    on_engine("a_published_port_is_found_and_cannot_be_had_twice", |place| async move {
        let engine = &place.engine;
        let port =
            |host| Port { container: 8080, protocol: Protocol::Tcp, address: [127, 0, 0, 1].into(), host };
        let mut spec = place.spec("web", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp");
        spec.ports = vec![port(None)];
        let id = engine.create(&spec).await.unwrap().id;
        engine.start(&id).await.unwrap();
        let bound = engine.inspect(&id).await.unwrap().ports[0].clone();
        assert_eq!((bound.container, bound.address.to_string().as_str()), (8080, "127.0.0.1"));
        tokio::net::TcpStream::connect((bound.address, bound.host)).await.unwrap();

        let mut twin = place.idle("twin");
        twin.ports = vec![port(Some(bound.host))];
        let twin = engine.create(&twin).await.unwrap().id;
        let error = engine.start(&twin).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{error}");
    });
}
