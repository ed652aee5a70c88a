//! A list as people write it: nothing, one, or a list of several. Use with `#[serde(default, with = "crate::one_or_more")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

pub(crate) fn serialize<S: Serializer, T: Serialize>(all: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    match all {
        [] => serializer.serialize_none(),
        [one] => one.serialize(serializer),
        more => more.serialize(serializer),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMore::One(one)) => vec![one],
        Some(OneOrMore::More(more)) => more,
    })
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Of {
        #[serde(default, with = "super")]
        all: Vec<Named>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Named {
        name: String,
    }

    #[test]
    fn none_one_and_several_are_written_as_they_were_before_there_could_be_several() {
        for (text, names) in [
            (r#"{"all":null}"#, &[][..]),
            (r#"{"all":{"name":"a"}}"#, &["a"][..]),
            (r#"{"all":[{"name":"a"},{"name":"b"}]}"#, &["a", "b"][..]),
        ] {
            let of: Of = serde_json::from_str(text).unwrap();
            assert_eq!(of.all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), names);
            assert_eq!(serde_json::to_string(&of).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<Of>("{}").unwrap().all, []);
    }
}
