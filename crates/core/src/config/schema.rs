//! The JSON Schema of cutover.yml, made from the key tables: for editors.

use serde_json::{Map, Value, json};

use super::keys::ROOT;
use super::shape::{Key, Naming, Pairs, Shape};

/// The JSON Schema (draft 2020-12) of cutover.yml.
pub fn schema() -> Value {
    let mut schema = of(&ROOT);
    if let Value::Object(object) = &mut schema {
        object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        object.insert("title".to_owned(), json!("cutover.yml"));
        object.insert("required".to_owned(), json!(["app"]));
    }
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Text | Shape::Secret => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Flag => json!({ "anyOf": [{ "type": "boolean" }, reference()] }),
        Shape::Whole { least, most } => {
            let mut number = json!({ "type": "integer", "minimum": least });
            if *most < i64::MAX {
                number["maximum"] = json!(most);
            }
            json!({ "anyOf": [number, reference()] })
        }
        Shape::Form(form) => json!({
            "anyOf": [{ "type": ["string", "number"], "pattern": form.pattern }, reference()],
            "description": form.expected,
        }),
        Shape::OneOf(words) => json!({ "anyOf": [{ "enum": words }, reference()] }),
        Shape::Words => {
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": ["string", "number", "boolean"] } }] })
        }
        Shape::List(item) => json!({ "type": ["array", "null"], "items": of(item) }),
        Shape::Map(naming, inner) => map(*naming, &of(inner)),
        Shape::Pairs(pairs) => {
            let scalar = json!({ "type": ["string", "number", "boolean", "null"] });
            let naming = if *pairs == Pairs::Public { Naming::Free } else { Naming::Variable };
            json!({ "anyOf": [map(naming, &scalar), { "type": "array", "items": { "type": "string" } }] })
        }
        Shape::Keys(_) => object(shape.keys()),
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(of).collect::<Vec<_>>() }),
        Shape::Anything => json!({}),
    }
}

/// Text with a reference may become anything.
fn reference() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn map(naming: Naming, inner: &Value) -> Value {
    let names = match naming {
        Naming::Variable => r"^([A-Za-z_][A-Za-z0-9_]*|x-.*)$",
        Naming::Free => ".*",
        Naming::Environment | Naming::Service | Naming::Database | Naming::Volume => {
            r"^([a-z0-9][a-z0-9_-]*|x-.*)$"
        }
    };
    json!({ "type": ["object", "null"], "additionalProperties": inner, "propertyNames": { "pattern": names } })
}

fn object(keys: impl Iterator<Item = &'static Key>) -> Value {
    let mut properties = Map::new();
    for key in keys.filter(|key| key.is_usable()) {
        let mut property = of(&key.shape);
        if let (Value::Object(property), false) = (&mut property, key.about.is_empty()) {
            property.insert("description".to_owned(), json!(key.about));
        }
        // The first table wins: cutover's own key before Compose's.
        properties.entry(key.name).or_insert(property);
    }
    json!({
        "type": ["object", "null"],
        "properties": properties,
        "patternProperties": { "^x-": {} },
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_the_keys_and_refuses_others() {
        let schema = schema();
        let service = &schema["properties"]["services"]["additionalProperties"];
        assert_eq!(service["additionalProperties"], json!(false));
        assert!(service["properties"]["health"]["properties"]["path"].is_object());
        assert!(service["properties"]["privileged"].is_null());
        assert_eq!(schema["properties"]["keep"]["description"], json!("Releases that rollback can reach."));
    }
}
