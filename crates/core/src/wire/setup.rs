//! What `setup`, `teardown` and `key` say.

use serde::{Deserialize, Serialize};

use crate::names::AppId;
use crate::setup::{Change, Wanted};

/// From the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "setup", rename_all = "snake_case")]
pub enum SetupAsk {
    /// What is to be done → [`SetupReply::Decision`].
    Look {
        /// What is wanted.
        wanted: Box<Wanted>,
    },
    /// Do it → [`SetupReply::Changed`] for each change; where something is on trial then [`SetupReply::Trial`], else `done`.
    Change {
        /// What is wanted.
        wanted: Box<Wanted>,
    },
    /// Let this program go on in the place of the one before → [`SetupReply::Told`].
    Upgrade {
        /// The folder it belongs in.
        program: String,
    },
    /// By another connection: what is on trial stays → `done`.
    Confirm {
        /// Of the trial.
        token: String,
    },
    /// What is on trial is taken back now → `done`.
    TakeBack {
        /// Of the trial.
        token: String,
    },
    /// What `teardown` would undo → [`SetupReply::Told`].
    LookUndo {
        /// Who asks.
        app: AppId,
    },
    /// Undo what setup did → [`SetupReply::Told`].
    Undo {
        /// Who asks.
        app: AppId,
    },
    /// The keys of the deploy user → [`SetupReply::Keys`].
    Keys,
    /// Let a key in, limited to sessions → `done`.
    AddKey {
        /// As in a `.pub` file.
        key: String,
    },
    /// Let keys in no longer → [`SetupReply::Told`].
    RevokeKey {
        /// A fingerprint, or a comment.
        key: String,
    },
}

/// From the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "setup", rename_all = "snake_case")]
pub enum SetupReply {
    /// What is to be done.
    Decision {
        /// In order.
        changes: Vec<Change>,
        /// Sentences.
        warnings: Vec<String>,
    },
    /// This was done.
    Changed {
        /// It.
        change: Box<Change>,
    },
    /// Something is on trial: it is taken back unless another connection confirms it.
    Trial {
        /// To confirm it by.
        token: String,
        /// Until it is taken back.
        seconds: u64,
        /// What is on trial.
        changes: Vec<Change>,
    },
    /// Sentences.
    Told {
        /// A line each.
        lines: Vec<String>,
    },
    /// Keys of the deploy user.
    Keys {
        /// By fingerprint.
        keys: Vec<DeployKey>,
    },
}

/// A key of the deploy user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployKey {
    /// `SHA256:…`, as ssh-keygen shows it.
    pub fingerprint: String,
    /// `ssh-ed25519` …
    pub kind: String,
    /// What its owner called it.
    pub comment: String,
}
