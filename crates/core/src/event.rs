//! What is to be heard of an app beside its runs: a line each in the host's file of events, one for each change. Alerts read them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::AppId;

/// The version of [`Event`] that this build writes.
pub const EVENT_VERSION: u32 = 1;

/// Something is from now on as it was not before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// [`EVENT_VERSION`] of who wrote it.
    pub version: u32,
    /// When it was found.
    pub at: Timestamp,
    /// Whose it is.
    pub app: AppId,
    /// What it is about.
    pub about: Subject,
    /// How that is now.
    #[serde(flatten)]
    pub condition: Condition,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The app's backups.
    Backup,
    /// Their drills.
    Drill,
}

/// How an app's backups, or their drills, are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Condition {
    /// The first one is to come.
    Awaited,
    /// As it should be.
    Good {
        /// When the newest began.
        newest: Timestamp,
    },
    /// The newest that was tried has failed.
    Failed {
        /// Why.
        why: String,
    },
    /// The newest that counts is too old.
    Old {
        /// When it began.
        newest: Timestamp,
    },
    /// There is none, although there was time enough.
    Absent,
    /// Nobody wants any: the configuration has none, or the app is gone.
    Unwanted,
}

impl Condition {
    /// Whether somebody should do something.
    pub fn is_bad(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Old { .. } | Self::Absent => true,
            Self::Awaited | Self::Good { .. } | Self::Unwanted => false,
        }
    }

    /// Whether this is another one than was told last; where nothing ever was, all that is well is no news.
    pub fn is_news(&self, told: Option<&Self>) -> bool {
        match told {
            Some(told) => std::mem::discriminant(self) != std::mem::discriminant(told),
            None => !matches!(self, Self::Good { .. } | Self::Unwanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_that_any_reader_of_json_understands() {
        let at = Timestamp::constant(1_790_000_000, 0);
        let event = |condition| Event {
            version: EVENT_VERSION,
            at,
            app: "shop/production".parse().unwrap(),
            about: Subject::Backup,
            condition,
        };
        let failed = event(Condition::Failed { why: "no room".to_owned() });
        let text = r#"{"version":1,"at":"2026-09-21T14:13:20Z","app":{"app":"shop","environment":"production"},"about":"backup","is":"failed","why":"no room"}"#;

        assert_eq!(serde_json::to_string(&failed).unwrap(), text);

        for event in [failed, event(Condition::Old { newest: at }), event(Condition::Absent)] {
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        }
    }

    #[test]
    fn what_was_told_is_no_news_again_whatever_its_details() {
        let failed = |why: &str| Condition::Failed { why: why.to_owned() };
        let good = Condition::Good { newest: Timestamp::UNIX_EPOCH };
        assert!(failed("a").is_news(None) && Condition::Awaited.is_news(None));
        assert!(!good.is_news(None) && !Condition::Unwanted.is_news(None));
        assert!(!failed("b").is_news(Some(&failed("a"))));
        assert!(good.is_news(Some(&failed("a"))) && failed("a").is_news(Some(&good)));
    }
}
