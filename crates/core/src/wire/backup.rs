//! What `backup` says.

use serde::{Deserialize, Serialize};

use crate::backup::{BackupRecord, BackupSettings, KnownBackup};
use crate::names::AppId;

/// What is to be done with the backups of an app, by the settings of whoever asks: a host that was lost knows none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOrder {
    /// Whose.
    pub app: AppId,
    /// Where they lie, and what they are encrypted with.
    pub settings: BackupSettings,
    /// Who asks.
    pub by: String,
    /// What.
    pub work: BackupWork,
}

/// What is done with backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum BackupWork {
    /// Make one, and read it back → [`BackupTold::Made`].
    Run,
    /// Those that the repository has → [`BackupTold::Listed`].
    List,
    /// Read all of the repository, and put one back into a folder for a moment → [`BackupTold::Verified`].
    Verify {
        /// Which; `None`: the newest.
        id: Option<String>,
    },
    /// Put one back beside everything for a trial, ask its databases what `drill` says, and take it away again → [`BackupTold::Drilled`].
    Drill {
        /// Which; `None`: the newest that counts.
        id: Option<String>,
    },
    /// Put one back into a folder → [`BackupTold::Restored`].
    Beside {
        /// Which; `None`: the newest that counts.
        id: Option<String>,
        /// An absolute path of the host, where nothing is.
        folder: String,
    },
    /// Bring the databases of one among the snapshots, from where each is put in its place → [`BackupTold::Recalled`].
    Recall {
        /// Which; `None`: the newest that counts.
        id: Option<String>,
    },
    /// Bring all of one to a host that has nothing of the app, for the deploy that follows → [`BackupTold::Restored`].
    All {
        /// Which; `None`: the newest that counts.
        id: Option<String>,
    },
    /// Take away those beyond `keep` → [`BackupTold::Pruned`].
    Prune,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum BackupTold {
    /// One was made.
    Made {
        /// It.
        record: BackupRecord,
        /// What people should know.
        remarks: Vec<String>,
    },
    /// All that there are.
    Listed {
        /// The newest first.
        backups: Vec<KnownBackup>,
    },
    /// The repository is whole, and a backup of it can be put back.
    Verified {
        /// Which was put back.
        id: String,
        /// What was found good, a line each.
        lines: Vec<String>,
    },
    /// It came back, and all was as it should be.
    Drilled {
        /// Which.
        id: String,
        /// What was found good, a line each.
        lines: Vec<String>,
    },
    /// It was put back.
    Restored {
        /// Which.
        id: String,
        /// What was put where, a line each.
        lines: Vec<String>,
    },
    /// Its databases are among the snapshots.
    Recalled {
        /// Which.
        id: String,
        /// How each is put in its place, a line each.
        lines: Vec<String>,
    },
    /// Those beyond `keep` are gone.
    Pruned {
        /// Which are gone.
        gone: Vec<KnownBackup>,
        /// How many stay.
        stay: usize,
    },
}
