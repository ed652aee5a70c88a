//! The text of env files: `NAME=value`, comments, quotes as Compose reads them.

use crate::names::VariableName;
use crate::secret::{Secret, Secrets};

/// A line that could not be read. It names the line, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct EnvFileError {
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong, without the value.
    pub problem: String,
}

/// Reads an env file; all bad lines at once.
///
/// # Errors
/// Every line that is not a comment, empty, or `NAME=value`.
pub fn parse(text: &str) -> Result<Secrets, Vec<EnvFileError>> {
    let mut secrets = Secrets::new();
    let mut errors = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line.strip_prefix("export ").unwrap_or(line)) {
            Ok((name, value)) => {
                secrets.insert(name, value);
            }
            Err(problem) => errors.push(EnvFileError { line: index + 1, problem }),
        }
    }
    if errors.is_empty() { Ok(secrets) } else { Err(errors) }
}

fn parse_line(line: &str) -> Result<(VariableName, Secret), String> {
    let (name, value) = line.split_once('=').ok_or("no `=` in it")?;
    let name = name
        .trim()
        .parse::<VariableName>()
        .map_err(|_| "what stands before `=` is not a variable's name".to_owned())?;
    Ok((name, Secret::new(unquote(value.trim())?)))
}

fn unquote(value: &str) -> Result<String, String> {
    if let Some(inner) = value.strip_prefix('\'') {
        let end = inner.find('\'').ok_or("a single quote is not closed")?;
        return Ok(inner[..end].to_owned());
    }
    if let Some(inner) = value.strip_prefix('"') {
        return unquote_double(inner);
    }
    // An unquoted value ends where a comment begins.
    Ok(value.split(" #").next().unwrap_or(value).trim_end().to_owned())
}

fn unquote_double(inner: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Ok(text),
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err("a double quote is not closed".to_owned())
}

/// The value as [`parse`] reads it back.
pub(crate) fn quote(value: &str) -> String {
    let mut text = String::from("\"");
    for character in value.chars() {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Whether a value is a placeholder that somebody forgot to fill in.
pub fn is_placeholder(value: &str) -> bool {
    let upper = value.trim().to_ascii_uppercase().replace(['-', ' '], "_");
    upper.contains("CHANGE_ME")
        || upper.contains("CHANGEME")
        || matches!(upper.as_str(), "TODO" | "FIXME" | "<SECRET>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_it_went() {
        let values =
            ["plain", "", "with space # and hash", "q\"uote'd", "back\\slash", "two\nlines", "$dollar ${X}"];
        let secrets: Secrets = values
            .iter()
            .enumerate()
            .map(|(i, v)| (format!("V{i}").parse().unwrap(), Secret::new(*v)))
            .collect();
        let read = parse(&secrets.to_env_file()).unwrap();
        for (index, value) in values.iter().enumerate() {
            assert_eq!(read.get(&format!("V{index}").parse().unwrap()).unwrap().expose(), *value);
        }
    }

    #[test]
    fn all_bad_lines_are_told_without_their_values() {
        let errors = parse("GOOD=1\nhunter2\n9X=hunter2\nY=\"hunter2\n").unwrap_err();
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(errors.iter().all(|e| !e.to_string().contains("hunter2")));
    }

    #[test]
    fn placeholders_are_known() {
        assert!(is_placeholder("CHANGE_ME"));
        assert!(is_placeholder("please-change-me"));
        assert!(!is_placeholder("exchange"));
    }
}
