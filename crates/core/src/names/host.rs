//! The name of a host, as people write it and as ssh is told it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::NameError;

const WHAT: &str = "host name";

/// A server, as the configuration names it: `[user@]host[:port]`, an IPv6 address in brackets. `local` is this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl HostName {
    /// This machine.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Who logs in; `None`: as ssh's own configuration says.
    pub fn user(&self) -> Option<&str> {
        self.parts().user
    }

    /// A name or an address, without brackets; or what ssh's configuration knows under this name.
    pub fn address(&self) -> &str {
        self.parts().address
    }

    /// `None`: as ssh's own configuration says.
    pub fn port(&self) -> Option<u16> {
        self.parts().port.and_then(|port| port.parse().ok())
    }

    fn parts(&self) -> Parts<'_> {
        Parts::of(&self.0)
    }
}

struct Parts<'a> {
    user: Option<&'a str>,
    address: &'a str,
    port: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, text),
        };
        let bracketed = place.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (address, port) = match bracketed {
            Some((address, "")) => (address, None),
            // Without its colon it is no port, and refused as such.
            Some((address, rest)) => (address, Some(rest.strip_prefix(':').unwrap_or(rest))),
            None => place.split_once(':').map_or((place, None), |(address, port)| (address, Some(port))),
        };
        Self { user, address, port }
    }

    /// They become arguments of ssh: nothing that could be read as an option, or be split.
    fn are_good(&self, is_bracketed: bool) -> bool {
        let is_word = |text: &str, also: &[char]| {
            let good =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || also.contains(&c);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(good)
        };
        let user = self.user.is_none_or(|user| is_word(user, &[]));
        let address = is_word(self.address, if is_bracketed { &[':'] } else { &[] });
        let port = self.port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        user && address && port
    }
}

impl FromStr for HostName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty { what: WHAT });
        }
        if Parts::of(text).are_good(text.contains('[')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Form { what: WHAT, found: text.to_owned() })
        }
    }
}

impl TryFrom<String> for HostName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String, Option<u16>) {
        let name: HostName = text.parse().unwrap();
        (name.user().map(str::to_owned), name.address().to_owned(), name.port())
    }

    #[test]
    fn user_address_and_port_are_told_apart() {
        let user = Some("deploy".to_owned());
        assert_eq!(parts("web1"), (None, "web1".to_owned(), None));
        assert_eq!(parts("deploy@one.example.com"), (user.clone(), "one.example.com".to_owned(), None));
        assert_eq!(parts("deploy@10.0.0.1:2222"), (user.clone(), "10.0.0.1".to_owned(), Some(2222)));
        assert_eq!(parts("deploy@[2001:db8::1]:22"), (user, "2001:db8::1".to_owned(), Some(22)));
        assert_eq!(parts("[::1]"), (None, "::1".to_owned(), None));
    }

    #[test]
    fn what_ssh_could_read_as_an_option_or_split_is_refused() {
        for bad in [
            "",
            "-oProxyCommand=x",
            "a@-oProxyCommand",
            "a b",
            "@web",
            "web:",
            "web:0",
            "web:99999",
            "::1",
            "[::1]22x",
            "a@b@c",
            "web;id",
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<HostName>("\"-x\"").is_err());
    }
}
