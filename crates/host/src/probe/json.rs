//! What a JSON body must say: dotted keys and the values expected under them.

use std::collections::BTreeMap;

use cutover_core::gate::Finding;
use serde_json::Value;

/// Passes when every key has its value; the first that differs is told.
pub(crate) fn matches(body: &[u8], expected: &BTreeMap<String, String>) -> Result<(), Finding> {
    if expected.is_empty() {
        return Ok(());
    }
    let value: Value =
        serde_json::from_slice(body).map_err(|error| differs(format!("it is no JSON: {error}")))?;
    for (key, wanted) in expected {
        match find(&value, key) {
            None => return Err(differs(format!("`{key}` is not in it (expected `{wanted}`)"))),
            Some(found) if text(found) != *wanted => {
                return Err(differs(format!("`{key}` is `{}` (expected `{wanted}`)", text(found))));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The value under a dotted key; numbers count through lists. A key that has dots itself is found as it stands.
fn find<'value>(value: &'value Value, key: &str) -> Option<&'value Value> {
    if let Some(found) = value.get(key) {
        return Some(found);
    }
    key.split('.').try_fold(value, |value, part| match value {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => value.get(part),
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn differs(detail: String) -> Finding {
    Finding::Body { detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn values_of_every_kind_are_found_by_dotted_keys() {
        let body = br#"{"status":"ok","db":{"up":true,"lag":0.5},"nodes":[{"id":7}],"a.b":"c"}"#;

        let all = expect(&[
            ("status", "ok"),
            ("db.up", "true"),
            ("db.lag", "0.5"),
            ("nodes.0.id", "7"),
            ("a.b", "c"),
        ]);
        assert_eq!(matches(body, &all), Ok(()));
    }

    #[test]
    fn what_differs_is_told() {
        let told = |body: &[u8], pairs: &[(&str, &str)]| match matches(body, &expect(pairs)) {
            Err(Finding::Body { detail }) => detail,
            other => panic!("{other:?}"),
        };

        assert_eq!(
            told(br#"{"status":"starting"}"#, &[("status", "ok")]),
            "`status` is `starting` (expected `ok`)"
        );
        assert_eq!(told(b"{}", &[("db.up", "true")]), "`db.up` is not in it (expected `true`)");
        assert!(told(b"<html>", &[("status", "ok")]).starts_with("it is no JSON"));
        assert_eq!(matches(b"<html>", &BTreeMap::new()), Ok(()));
    }
}
