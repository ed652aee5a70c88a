//! The keeper's children as the kernel hands them over. The keeper is the reaper of all that descends from its child, so that "all of it is
//! gone" is exact: there is no child left to wait for.

use cutover_core::state::ExitStatus;
use jiff::Timestamp;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus};

use super::super::processes;

/// What became of a look for ended children.
pub(super) enum Reaped {
    /// This one ended, and its number is free again.
    Ended(Pid, WaitStatus),
    /// Others live.
    OthersLive,
    /// There is none.
    NoneLeft,
}

/// Takes in one child that has ended.
pub(super) fn reap() -> Reaped {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Reaped::Ended(pid, status),
            Ok(None) => return Reaped::OthersLive,
            Err(Errno::INTR) => {}
            Err(_) => return Reaped::NoneLeft,
        }
    }
}

/// Whether a child has ended and was not taken in: until then its number, and its group's, belong to it.
pub(super) fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}

/// Sends a signal to the whole group of a child that was not taken in yet.
pub(super) fn signal_group(leader: Pid, signal: Signal) {
    tell(rustix::process::kill_process_group(leader, signal));
}

/// Sends a signal to one child that was not taken in yet.
pub(super) fn signal_one(pid: Pid, signal: Signal) {
    tell(rustix::process::kill_process(pid, signal));
}

/// All children, those adopted from children that ended included. None can vanish before it is taken in, so their numbers are safe to use.
pub(super) fn all() -> Vec<Pid> {
    let own = std::process::id().cast_signed();
    let children = processes::all().into_iter().filter(|stat| stat.parent == own && !stat.ended);
    children.filter_map(|stat| Pid::from_raw(stat.id.pid)).collect()
}

/// Kills every child; each that ends hands its own children over.
pub(super) fn kill_all() {
    for pid in all() {
        signal_one(pid, Signal::KILL);
    }
}

/// How a child ended.
pub(super) fn exit(status: WaitStatus) -> ExitStatus {
    ExitStatus {
        code: status.exit_status(),
        signal: status.terminating_signal(),
        out_of_memory: false,
        error: None,
        at: Some(Timestamp::now()),
    }
}

fn tell(sent: rustix::io::Result<()>) {
    match sent {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => tracing::warn!(%error, "a signal could not be sent"),
    }
}
