//! A plan whose new network got another subnet: somebody was quicker, so all its addresses move with it.

use serde_json::Value;

use crate::addresses::Subnet;
use crate::hash::ContentHash;
use crate::plan::{HostPlan, NetworkSpec};
use crate::state::FoundEngine;

/// What is an address, and not somebody's text, in a plan.
const ADDRESSES: [&str; 4] = ["address", "subnet", "range", "tcp"];

/// The plan with its absent network `name` where it can be now: in the subnet that it has meanwhile, or in another free one. `None`: there is
/// none, or the network that is there is too small for it.
pub fn elsewhere(plan: &HostPlan, name: &str, engine: &FoundEngine) -> Option<HostPlan> {
    let networks = &plan.backing.todo()?.networks;
    let planned = |network: &NetworkSpec| Subnet::parse(&network.subnet);
    let from = planned(networks.iter().find(|network| network.name == name)?)?;
    let to = if let Some(there) = engine.networks.get(name) {
        Subnet::parse(there).filter(|there| there.prefix() == from.prefix())?
    } else {
        let in_use = engine.subnets.iter().filter_map(|subnet| Subnet::parse(subnet));
        let used: Vec<Subnet> = in_use.chain(networks.iter().filter_map(planned)).collect();
        let range = Subnet::parse(&engine.range)?;
        // Who met once would meet again, were the run not part of where the search begins.
        let begin = ContentHash::of_parts(&[name, &plan.run.to_string()]).number();
        range.choose(from.prefix(), &used, begin)?
    };
    let mut value = serde_json::to_value(plan).ok()?;
    move_all(&mut value, from, to);
    serde_json::from_value(value).ok()
}

fn move_all(value: &mut Value, from: Subnet, to: Subnet) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| move_all(item, from, to)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if ADDRESSES.contains(&name.as_str()) => {
                        if let Some(moved) = moved(text, from, to) {
                            *text = moved;
                        }
                    }
                    field => move_all(field, from, to),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `address`, `address:port` or `address/prefix` of one subnet, at the same place in the other.
fn moved(text: &str, from: Subnet, to: Subnet) -> Option<String> {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (address, rest) = text.split_at(end);
    let address = from.at_the_same_place(address.parse().ok()?, to)?;
    Some(format!("{address}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_place_and_other_texts_stay() {
        let subnet = |text: &str| Subnet::parse(text).unwrap();
        let mut value = serde_json::json!({
            "address": "10.213.4.200:8000",
            "networks": [{ "subnet": "10.213.4.0/22", "range": "10.213.4.0/23" }],
            "targets": [{ "address": { "tcp": "10.213.7.9:80" } }, { "address": "10.213.8.9" }],
            "command": ["10.213.4.200"],
            "UPSTREAM": "10.213.4.200",
        });

        move_all(&mut value, subnet("10.213.4.0/22"), subnet("10.213.64.0/22"));

        assert_eq!(
            value,
            serde_json::json!({
                "address": "10.213.64.200:8000",
                "networks": [{ "subnet": "10.213.64.0/22", "range": "10.213.64.0/23" }],
                "targets": [{ "address": { "tcp": "10.213.67.9:80" } }, { "address": "10.213.8.9" }],
                "command": ["10.213.4.200"],
                "UPSTREAM": "10.213.4.200",
            })
        );
    }
}
