//! What a visitor sends: an entry as a form of a page, or as JSON of a program.

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;

/// Longest name and message, in characters.
const LONGEST_NAME: usize = 100;
const LONGEST_MESSAGE: usize = 4_000;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FormError {
    #[error("the entry is not understood: {0}")]
    Unreadable(String),
    #[error("`{0}` is missing or empty")]
    Empty(&'static str),
    #[error("`{field}` is longer than {limit} characters")]
    TooLong { field: &'static str, limit: usize },
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct EntryForm {
    pub(crate) name: String,
    pub(crate) message: String,
}

impl EntryForm {
    pub(crate) fn parse(content_type: Option<&HeaderValue>, body: &Bytes) -> Result<Self, FormError> {
        let is_json = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let entry = if is_json {
            serde_json::from_slice(body).map_err(|error| FormError::Unreadable(error.to_string()))?
        } else {
            Self::from_form(body)
        };
        entry.trimmed()
    }

    fn from_form(body: &Bytes) -> Self {
        let mut entry = Self::default();
        for (field, value) in form_urlencoded::parse(body) {
            match field.as_ref() {
                "name" => entry.name = value.into_owned(),
                "message" => entry.message = value.into_owned(),
                _ => {}
            }
        }
        entry
    }

    fn trimmed(self) -> Result<Self, FormError> {
        Ok(Self {
            name: checked("name", &self.name, LONGEST_NAME)?,
            message: checked("message", &self.message, LONGEST_MESSAGE)?,
        })
    }
}

fn checked(field: &'static str, value: &str, limit: usize) -> Result<String, FormError> {
    let value = value.trim();
    if value.is_empty() {
        return Err(FormError::Empty(field));
    }
    if value.chars().count() > limit {
        return Err(FormError::TooLong { field, limit });
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_form_or_json_then_the_entry_is_the_same() {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        let expected = EntryForm { name: "Ada & Co".into(), message: "hé".into() };
        let form = EntryForm::parse(None, &Bytes::from_static(b"name=Ada+%26+Co&message=+h%C3%A9+&x=1"));
        let sent = EntryForm::parse(Some(&json), &Bytes::from(r#"{"name":"Ada & Co","message":"hé"}"#));
        assert_eq!(form.unwrap(), expected);
        assert_eq!(sent.unwrap(), expected);
    }

    #[test]
    fn given_a_wrong_entry_then_the_fault_is_named() {
        let parse = |body: String| EntryForm::parse(None, &Bytes::from(body)).unwrap_err();
        assert_eq!(parse("name=Ada&message=+".into()), FormError::Empty("message"));
        let long = format!("name={}&message=x", "a".repeat(101));
        assert_eq!(parse(long), FormError::TooLong { field: "name", limit: 100 });
    }
}
