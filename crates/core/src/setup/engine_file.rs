//! The engine's own file, `daemon.json`: what is missing is added, what stands there stays.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::found::EngineTold;
use super::place;

/// Bounds of a container's log where nothing says otherwise: five files of 20 MB.
const LIMITS: [(&str, &str); 2] = [("max-size", "20m"), ("max-file", "5")];

/// What was added, by key.
pub(super) type Added = BTreeMap<String, String>;

/// The file with the limits in it, and what had to be added; `Err`: it is no JSON object, and is left alone.
pub(super) fn merged(found: Option<&str>, told: &EngineTold) -> Result<(String, Added), String> {
    let mut file = read(found)?;
    let mut added = Added::new();
    if limits_fit(&file, told) {
        let options = file.entry("log-opts").or_insert_with(|| json!({}));
        let options = options.as_object_mut().ok_or("`log-opts` in it is not an object")?;
        for (key, value) in LIMITS {
            if !options.contains_key(key) {
                options.insert(key.to_owned(), json!(value));
                added.insert(format!("log-opts.{key}"), value.to_owned());
            }
        }
    }
    if !file.contains_key("live-restore") && !told.swarm && !told.flags.contains("live-restore") {
        file.insert("live-restore".to_owned(), json!(true));
        added.insert("live-restore".to_owned(), "true".to_owned());
    }
    Ok((text(&file), added))
}

/// Other drivers have other options, or keep logs elsewhere; and the engine does not start with the same key in the file and as a flag.
fn limits_fit(file: &Map<String, Value>, told: &EngineTold) -> bool {
    let in_file = file.get("log-driver").and_then(Value::as_str);
    let unknown = if told.flags.contains("log-driver") { "" } else { "json-file" };
    let driver = in_file.or(told.log_driver.as_deref()).unwrap_or(unknown);
    matches!(driver, "json-file" | "local") && !told.flags.contains("log-opt")
}

/// What a person should know of what was not added.
pub(super) fn left_out(found: Option<&str>, told: &EngineTold) -> Vec<String> {
    let file = read(found).unwrap_or_default();
    let mut told_of = Vec::new();
    if told.swarm && !file.contains_key("live-restore") && !told.flags.contains("live-restore") {
        told_of.push(format!(
            "live-restore was not added to {}: the engine is part of a swarm, and would not start with it",
            place::ENGINE
        ));
    }
    if told.flags.contains("log-opt") {
        told_of.push(format!(
            "limits of logs were not added to {}: the engine is started with --log-opt, and would not start with both",
            place::ENGINE
        ));
    }
    told_of
}

/// The file without what was added and still stands there as it was added; `None`: nothing would be left in it.
///
/// # Errors
/// When it is no JSON object.
pub fn without(found: &str, added: &BTreeMap<String, String>) -> Result<Option<String>, String> {
    let mut file = read(Some(found))?;
    for (key, value) in added {
        match key.split_once('.') {
            Some((outer, inner)) => {
                let Some(options) = file.get_mut(outer).and_then(Value::as_object_mut) else { continue };
                if options.get(inner).is_some_and(|found| is(found, value)) {
                    options.remove(inner);
                }
                if options.is_empty() {
                    file.remove(outer);
                }
            }
            None if file.get(key).is_some_and(|found| is(found, value)) => {
                file.remove(key);
            }
            None => {}
        }
    }
    Ok((!file.is_empty()).then(|| text(&file)))
}

fn is(found: &Value, added: &str) -> bool {
    match found {
        Value::String(text) => text == added,
        Value::Bool(flag) => added == if *flag { "true" } else { "false" },
        _ => false,
    }
}

fn read(found: Option<&str>) -> Result<Map<String, Value>, String> {
    match found.map(str::trim) {
        None | Some("") => Ok(Map::new()),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(file)) => Ok(file),
            Ok(_) => Err("it holds no JSON object".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn text(file: &Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(file.clone()))
}
