//! How instances of some content behave on the simulated host, and what its migration does.

/// How instances of a content behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// Ends at once.
    pub exits: bool,
    /// Never passes its gate.
    pub unhealthy: bool,
    /// Passes its gate, but its public route never answers as it should.
    pub mute: bool,
    /// Passes its gate, then answers its public route with errors.
    pub errors: bool,
    /// What its migration does.
    pub migration: Migration,
    /// The schema version to which its `down` command leads; `None`: that fails.
    pub down: Option<u32>,
    /// Logs in with this password, whatever it is told.
    pub password: Option<&'static str>,
    /// The schema versions it can live with, from and to; `None`: it asks for nothing.
    pub schemas: Option<(u32, u32)>,
}

/// What a migration does to the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Migration {
    /// Nothing is pending.
    #[default]
    None,
    /// Brings the schema to this version.
    To(u32),
    /// Changes half of it and fails.
    Half,
    /// Works on the copy, fails on the database itself.
    FailsForReal(u32),
}
