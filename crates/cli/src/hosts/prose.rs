//! What ssh and sudo say when they do not get us there. They have one exit code for everything, so that their words are read: here, and
//! nowhere else, each with a captured sample. What is not known is told as it was said.

/// Why ssh ended before there was a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreached {
    /// No key of this host is known.
    UnknownKey,
    /// Another key is known: its file and line, and the fingerprint of the one that was sent.
    ChangedKey { known_in: Option<String>, sent: Option<String>, removed_by: Option<String> },
    /// The key is marked as stolen.
    RevokedKey,
    /// None of our keys is let in.
    Denied,
    /// Nobody listens there.
    Refused,
    /// Nobody answers.
    TimedOut,
    /// No way leads there.
    Unreachable,
    /// The name means nothing.
    Unresolved,
    /// The user's own configuration cannot be read.
    Configuration,
    /// Anything else.
    Other,
}

/// The words that each is known by, the most telling first: words that come with others later.
const KNOWN_BY: [(&str, Unreached); 11] = [
    ("was revoked and you have requested strict checking", Unreached::RevokedKey),
    ("host key is known for", Unreached::UnknownKey),
    ("Bad configuration option", Unreached::Configuration),
    ("Could not resolve hostname", Unreached::Unresolved),
    ("Permission denied", Unreached::Denied),
    ("Too many authentication failures", Unreached::Denied),
    ("Connection refused", Unreached::Refused),
    ("Connection timed out", Unreached::TimedOut),
    ("Operation timed out", Unreached::TimedOut),
    ("No route to host", Unreached::Unreachable),
    ("Network is unreachable", Unreached::Unreachable),
];

/// What ssh said, read.
pub(super) fn ssh(said: &[String]) -> Unreached {
    let has = |words: &str| said.iter().any(|line| line.contains(words));
    if has("has changed and you have requested strict checking") || has("IDENTIFICATION HAS CHANGED") {
        let offending = said.iter().find(|line| line.starts_with("Offending "));
        let known_in = offending.and_then(|line| line.split_once(" key in ")).map(|(_, place)| place);
        let sent = said.iter().find_map(|line| line.trim().strip_prefix("SHA256:"));
        let removed = said.iter().map(|line| line.trim()).find(|line| line.starts_with("ssh-keygen -f "));
        return Unreached::ChangedKey {
            known_in: known_in.map(str::to_owned),
            sent: sent.map(|hash| format!("SHA256:{}", hash.trim_end_matches('.'))),
            removed_by: removed.map(str::to_owned),
        };
    }
    let known = KNOWN_BY.iter().find(|(words, _)| has(words));
    known.map_or(Unreached::Other, |(_, unreached)| unreached.clone())
}

/// What sudo said about its own refusal; `None`: it did not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sudo {
    /// We may not.
    Refused,
    /// What we may run is not where sudo looks.
    NotFound,
}

/// What sudo said, read.
pub(super) fn sudo(said: &[String]) -> Option<Sudo> {
    let has = |words: &str| said.iter().any(|line| line.contains(words));
    if has("sudo: cutover-host: command not found") {
        return Some(Sudo::NotFound);
    }
    let refused = ["sudo: ", "is not in the sudoers file", "is not allowed to execute"];
    refused.into_iter().any(has).then_some(Sudo::Refused)
}

/// The lines that say something to a person who reads the cause: no frames, and nothing twice.
pub(super) fn telling(said: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in said.iter().map(|line| line.trim_end()) {
        if !line.trim().is_empty() && !line.starts_with("@@@") && !lines.iter().any(|known| known == line) {
            lines.push(line.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(said: &[String]) -> &'static str {
        match (sudo(said), ssh(said)) {
            (Some(Sudo::Refused), _) => "no sudo",
            (Some(Sudo::NotFound), _) => "no program for sudo",
            (None, Unreached::UnknownKey) => "unknown key",
            (None, Unreached::ChangedKey { .. }) => "changed key",
            (None, Unreached::RevokedKey) => "revoked key",
            (None, Unreached::Denied) => "denied",
            (None, Unreached::Refused) => "refused",
            (None, Unreached::TimedOut) => "timed out",
            (None, Unreached::Unreachable) => "unreachable",
            (None, Unreached::Unresolved) => "unresolved",
            (None, Unreached::Configuration) => "configuration",
            (None, Unreached::Other) => "other",
        }
    }

    #[test]
    fn each_captured_sample_is_read_as_what_it_is() {
        let mut count = 0;
        for part in include_str!("samples/ssh.txt").split("== ").skip(1) {
            let mut lines = part.lines().map(str::to_owned);
            let name = lines.next().unwrap();
            let said: Vec<String> = lines.collect();
            assert_eq!(read_as(&said), name, "{said:?}");
            count += 1;
            if name == "changed key" {
                let Unreached::ChangedKey { known_in, sent, removed_by } = ssh(&said) else {
                    panic!("{said:?}")
                };
                assert_eq!(known_in.unwrap(), "/home/ann/.ssh/known_hosts:1");
                assert_eq!(sent.unwrap(), "SHA256:dDLS1hxK8wiBGFT0r+YeAEkqUo0ceoBVcvQ6F7Q3uCU");
                assert!(removed_by.unwrap().ends_with("-R \"[127.0.0.1]:22771\""));
            }
        }
        assert!(count >= 16, "{count}");
    }
}
