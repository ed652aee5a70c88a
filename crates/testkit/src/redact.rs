//! What differs from run to run and from machine to machine is replaced by its name, so that a text a user reads can be compared as a whole.
//! One list for all suites.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What is replaced, and by which name. The group `value`, where there is one, is what is replaced; several different values in one text are
/// numbered in the order in which they come.
const PATTERNS: [(&str, &str); 21] = [
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "RUN"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\b)", "WHEN"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\.(?:HASH|pack)\.(?P<value>[0-9a-f]{32})\b", "DRAFT"),
    (r"\bcutover/[^ :]+:(?P<value>[0-9a-f]{12})\b", "TAG"),
    (r"\b[0-9a-f]{40}\b", "COMMIT"),
    (r"\bSHA256:(?P<value>[A-Za-z0-9+/]{43})", "FINGERPRINT"),
    (r"\bshop-(?P<value>[0-9a-f]{8})\b", "APP"),
    (r"(?:---> |Running in |container )(?P<value>[0-9a-f]{12})\b", "LAYER"),
    (r"-(?:blue|green)-\d+-(?P<value>[0-9a-f]{8})\b", "END"),
    (
        r#"(?:\b(?:release|commit|artifact|layer) |--release |--to |"release":"|on record: |, )(?P<value>[0-9a-f]{7,12})\b"#,
        "ID",
    ),
    (r"\((?P<value>\d+ (?:try|tries) in \d+(?:\.\d+)?s)\)", "TRIES"),
    (r"\b(?P<value>\d+(?:\.\d+)?s) after its start", "TIME"),
    (r"\b(?:process|pid) (?P<value>\d+)\b", "PID"),
    (r"(?::|-p |port |port: |expected: |\()(?P<value>[1-6]\d{4})\b", "PORT"),
    (r"\b(?P<value>\d+(?:\.\d+)? (?:B|KiB|MiB|GiB))\b", "SIZE"),
    (r"this cutover-host knows (?P<value>\d+)", "VERSION"),
    (r"\btaken by (?P<value>.+) \(process", "PROGRAM"),
    (r"\bPATH \((?P<value>/[^)]*)\)", "FOLDERS"),
    (r"\b(?P<value>\d+) ms\b", "MILLISECONDS"),
    (r"\((?P<value>\d+ times)\)", "TIMES"),
];

static LIST: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let compiled = PATTERNS.iter().filter_map(|(pattern, name)| Some((Regex::new(pattern).ok()?, *name)));
    compiled.collect()
});

/// The text with stable names; `places` are folders of this run, each with its name, the longest path first.
pub fn redact(text: &str, places: &[(&Path, &str)]) -> String {
    let mut text = text.to_owned();
    for (place, name) in places {
        text = text.replace(&*place.to_string_lossy(), name);
    }
    for (pattern, name) in LIST.iter() {
        text = replaced(&text, pattern, name);
    }
    text
}

fn replaced(text: &str, pattern: &Regex, name: &str) -> String {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let named = |captures: &Captures<'_>| {
        let whole = &captures[0];
        let value = captures.name("value").map_or(whole, |value| value.as_str());
        let number = seen.len() + 1;
        let name = seen
            .entry(value.to_owned())
            .or_insert_with(|| if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        whole.replace(value, name)
    };
    pattern.replace_all(text, named).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_failure_then_only_what_is_of_this_run_is_renamed() {
        let text = "release 7f3c9e1 was not put live, release 41d0aa2 is serving; GET /health answered 500 (12 tries in 30s)\n\
                    127.0.0.1:20017, not port 20018; /tmp/site-x/root/lib; exited 0.3s after its start; within 4s";
        assert_eq!(
            redact(text, &[(Path::new("/tmp/site-x"), "SITE")]),
            "release ID was not put live, release ID-2 is serving; GET /health answered 500 (TRIES)\n\
             127.0.0.1:PORT, not port PORT-2; SITE/root/lib; exited TIME after its start; within 4s"
        );
    }

    #[test]
    fn given_the_list_then_each_pattern_of_it_is_one() {
        assert_eq!(LIST.len(), PATTERNS.len());
    }
}
