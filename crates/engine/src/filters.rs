//! How the engine's list calls take their conditions.

use std::collections::{BTreeMap, HashMap};

/// Things that carry every one of these labels with that value; an empty value asks for the label alone.
pub(crate) fn by_labels(labels: &BTreeMap<String, String>) -> HashMap<String, Vec<String>> {
    let condition = |(key, value): (&String, &String)| {
        if value.is_empty() { key.clone() } else { format!("{key}={value}") }
    };
    HashMap::from([("label".to_owned(), labels.iter().map(condition).collect())])
}
