//! A change of a host: what is done, and how it is told.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::found::Listener;
use super::place;
use super::wanted::Item;
use crate::names::VariableName;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which part of setup.
    pub item: Item,
    /// What is done.
    pub act: Act,
}

/// What is done. Each act is one that may be done again: whoever was killed in the middle begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// Put this program into a folder of its own, and let the link lead to it.
    Program {
        /// Below [`place::PROGRAMS`].
        folder: String,
    },
    /// Install packages of the distribution.
    Packages {
        /// Which.
        names: BTreeSet<String>,
    },
    /// Put a file in its place.
    File {
        /// Where.
        path: String,
        /// What is in it.
        text: String,
        /// Its rights.
        mode: u32,
    },
    /// Add to the engine's own file.
    EngineFile {
        /// The whole file, with what was in it before.
        text: String,
        /// What was added, by key.
        added: std::collections::BTreeMap<String, String>,
        /// How it takes effect.
        effect: EngineEffect,
    },
    /// Start the engine, now and at boot.
    Engine,
    /// Start units now and at boot. What `cutover-host up` keeps is handed over to them with its sockets.
    Units {
        /// Which.
        names: BTreeSet<String>,
    },
    /// Let the units of proxy and watch go on with the new program.
    Renew,
    /// Make values.
    Secrets {
        /// For these names.
        names: BTreeSet<VariableName>,
    },
    /// Load rules, on trial.
    Firewall {
        /// As `nft -f` takes them.
        rules: String,
        /// What stays open, for people.
        open: BTreeSet<u16>,
        /// The same of UDP.
        #[serde(default)]
        udp: BTreeSet<u16>,
        /// Who listens now and is not heard any more.
        #[serde(default)]
        cuts: BTreeSet<Listener>,
        /// The same of those who have no port of TCP or UDP.
        #[serde(default)]
        portless: BTreeSet<String>,
    },
    /// Tell sshd to take keys only, on trial.
    Sshd {
        /// Its file.
        text: String,
        /// Who comes in by a password now, and then does not.
        #[serde(default)]
        locks_out: BTreeSet<String>,
    },
}

/// How a change of the engine's file takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineEffect {
    /// The engine is installed later, and begins with it.
    AtItsStart,
    /// Nothing runs on it, or what runs goes on: it is restarted.
    Restarted,
    /// Containers run that would not survive a restart: it reads again what it can, the rest holds from its next start on.
    ReadAgain,
}

impl Change {
    /// Whether it is taken back unless another connection confirms it.
    pub fn is_on_trial(&self) -> bool {
        matches!(self.act, Act::Firewall { .. } | Act::Sshd { .. })
    }

    /// Who listens now and is not heard any more.
    pub fn cuts(&self) -> impl Iterator<Item = &Listener> {
        let cuts = if let Act::Firewall { cuts, .. } = &self.act { Some(cuts) } else { None };
        cuts.into_iter().flatten()
    }

    /// The same of those who have no port that could be opened.
    pub fn portless(&self) -> impl Iterator<Item = &str> {
        let all = if let Act::Firewall { portless, .. } = &self.act { Some(portless) } else { None };
        all.into_iter().flatten().map(String::as_str)
    }

    /// Who comes in by a password now, and then does not.
    pub fn locks_out(&self) -> impl Iterator<Item = &str> {
        let all = if let Act::Sshd { locks_out, .. } = &self.act { Some(locks_out) } else { None };
        all.into_iter().flatten().map(String::as_str)
    }

    /// What is done, for people: one line, without a full stop.
    pub fn sentence(&self) -> String {
        match &self.act {
            Act::Program { folder } => format!("install cutover-host {folder} at {}", place::LINK),
            Act::Packages { names } => format!("install {}", list(names)),
            Act::File { path, .. } => format!("write {path} ({})", purpose(self.item, path)),
            Act::EngineFile { added, effect, .. } => {
                let keys: Vec<String> = added.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                let effect = match effect {
                    EngineEffect::AtItsStart => "before the engine's first start",
                    EngineEffect::Restarted => "and restart the engine: nothing stops with it",
                    EngineEffect::ReadAgain => {
                        "without a restart of the engine: its containers run; limits of logs hold from its next start on"
                    }
                };
                format!("add {} to {}, {effect}", keys.join(", "), place::ENGINE)
            }
            Act::Engine => "start Docker Engine, now and at boot".to_owned(),
            Act::Units { names } => format!("start {}, now and at boot", list(names)),
            Act::Renew => {
                "restart proxy and watch with the new cutover-host; their sockets stay open".to_owned()
            }
            Act::Secrets { names } => {
                let names: Vec<&str> = names.iter().map(VariableName::as_str).collect();
                format!("make values for {} in the app's env file (0600)", names.join(", "))
            }
            Act::Firewall { open, udp, cuts, portless, .. } => {
                let cuts: Vec<String> =
                    cuts.iter().map(Listener::to_string).chain(portless.clone()).collect();
                let (udp, cuts) = (named(" and UDP ", udp), named("; it cuts off ", &cuts));
                format!(
                    "let in nothing but TCP {}{udp}, published ports of containers included{cuts}; taken back unless a second connection succeeds",
                    named("", open)
                )
            }
            Act::Sshd { locks_out, .. } => {
                let locked_out = named("; it locks out, since they have no key: ", locks_out);
                format!(
                    "let sshd accept keys only, no passwords{locked_out}; taken back unless a second connection succeeds"
                )
            }
        }
    }
}

fn list(names: &BTreeSet<String>) -> String {
    named("", names)
}

/// With commas between, after a word; nothing, where there are none.
fn named<'a, T: ToString + 'a>(word: &str, all: impl IntoIterator<Item = &'a T>) -> String {
    let all: Vec<String> = all.into_iter().map(ToString::to_string).collect();
    if all.is_empty() { String::new() } else { format!("{word}{}", all.join(", ")) }
}

fn purpose(item: Item, path: &str) -> &'static str {
    match (item, path) {
        (Item::Logs, _) => "rotates the logs of cutover's own processes",
        (Item::Upgrades, _) => "security upgrades every day",
        (Item::Services, _) if path.ends_with(place::PROXY_UNIT) => "the proxy's unit",
        (Item::Services, _) if path.ends_with(place::WATCH_UNIT) => "watch's unit",
        (Item::Services, _) => "takes back at boot what was on trial when the power went",
        (Item::Firewall, _) => "loads the firewall at boot",
        _ => "settings",
    }
}
