//! What a single word of the command line is read as, and what is said of one that cannot be.

use std::time::Duration;

use cutover_core::names::{ServiceName, VariableName};
use cutover_core::plan::Rule;
use jiff::{SignedDuration, Timestamp};

/// A moment, or a time ago.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since {
    At(Timestamp),
    Ago(SignedDuration),
}

pub(crate) fn variable(text: &str) -> Result<(VariableName, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok((name.parse().map_err(|_| "what stands before `=` is not a variable's name")?, value.to_owned()))
}

pub(crate) fn assignment(text: &str) -> Result<(VariableName, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    Ok((name.parse().map_err(|_| "a variable's name is letters, digits and `_`")?, value))
}

pub(crate) fn image(text: &str) -> Result<(ServiceName, String), String> {
    let (service, reference) = text.split_once('=').ok_or("SERVICE=REF is expected")?;
    if reference.is_empty() {
        return Err("the image's reference is missing after `=`".to_owned());
    }
    Ok((service.parse().map_err(|error| format!("{error}"))?, reference.to_owned()))
}

pub(crate) fn rule(text: &str) -> Result<Rule, String> {
    let known = Rule::ALL.into_iter().find(|rule| rule.as_str() == text);
    match known {
        Some(rule) if rule.can_be_allowed() => Ok(rule),
        Some(rule) => Err(format!("`{}` cannot be let pass", rule.as_str())),
        None => {
            let names: Vec<&str> =
                Rule::ALL.into_iter().filter(|rule| rule.can_be_allowed()).map(Rule::as_str).collect();
            Err(format!("the rules are: {}", names.join(", ")))
        }
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|_| "a time such as 30s, 5m or 1h is expected")?;
    Duration::try_from(parsed).map_err(|_| "a time is not negative".to_owned())
}

pub(crate) fn since(text: &str) -> Result<Since, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(Since::At(moment));
    }
    let ago =
        duration(text).map_err(|_| "a time ago such as 10m, or a moment such as 2026-11-21T14:00:00Z")?;
    SignedDuration::try_from(ago).map(Since::Ago).map_err(|_| "too long ago".to_owned())
}
