//! Fault points: every call of a port is one, numbered from 1.

/// What goes wrong at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and has not happened.
    Fail,
    /// It never answers; the run is ended at its deadline.
    Hang,
    /// The process dies before it.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
    /// It fails with "unknown", and happens a little later all the same.
    Late,
    /// The host loses power after it and comes back: what is not started again by its policy stays down.
    PowerLoss,
    /// Nothing goes wrong; somebody asks to cancel.
    Cancel,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fail,
        Self::Hang,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Late,
        Self::PowerLoss,
        Self::Cancel,
    ];
}

/// Which call goes wrong, and how; then another one of those that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// Call number and fault of the run.
    pub first: Option<(u64, Fault)>,
    /// Calls after the first fault, and the fault then: a crash during recovery.
    pub second: Option<(u64, Fault)>,
}
