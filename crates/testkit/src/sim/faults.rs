//! Fault points: every call of a port is one, numbered from 1.

/// What goes wrong at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and has not happened.
    Fail,
    /// It never answers; the run is killed at its deadline.
    Hang,
    /// The process dies before it.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
    /// It fails with "unknown", and happens a little later all the same.
    Late,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Fail, Self::Hang, Self::CrashBefore, Self::CrashAfter, Self::Late];
}

/// Which call goes wrong, and how; then, in the recovery, another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// Call number and fault of the run.
    pub first: Option<(u64, Fault)>,
    /// Calls after the first fault, and the fault then: a crash during recovery.
    pub second: Option<(u64, Fault)>,
}
