//! Processes of an account: ended where it may do nothing any more. Its sessions' own processes are root's and end with their connection.

use std::time::{Duration, Instant};

use cutover_core::failure::Failure;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::system::{ask, failed};

/// For a process to end, after each signal.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Ends whatever runs as this user; `false`: nothing did.
///
/// # Errors
/// When something of it does not end.
pub(super) async fn end(user: &str) -> Result<bool, Failure> {
    let said = ask(&["id", "-u", user]).await;
    let Some(uid) = said.out.trim().parse().ok().filter(|uid| *uid != 0) else { return Ok(false) };
    if of(uid).is_empty() {
        return Ok(false);
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            // Also those that began meanwhile.
            let left = of(uid);
            if left.is_empty() {
                return Ok(true);
            }
            for pid in left {
                tell(pid, uid, signal);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let left: Vec<String> = of(uid).iter().map(u32::to_string).collect();
    if left.is_empty() {
        return Ok(true);
    }
    Err(failed(&format!("end the connections of `{user}`"))
        .because(format!("these of its processes do not end: {}", left.join(", "))))
}

/// Looked at again once the handle cannot come to mean another process.
fn tell(pid: u32, uid: u32, signal: Signal) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { return };
    if runs_as(pid) == Some(uid)
        && let Err(error) = pidfd_send_signal(&handle, signal)
    {
        tracing::debug!(pid, %error, "no signal was sent");
    }
}

/// By number.
fn of(uid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| runs_as(*pid) == Some(uid)).collect()
}

/// Whose it is; `None`: it has ended. The owner of its folder is root where a process may not be looked into, as sshd's may not.
fn runs_as(pid: u32) -> Option<u32> {
    real_user(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn real_user(status: &str) -> Option<u32> {
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next();
    // One that nobody has waited for yet runs no more.
    if matches!(value("State:"), Some("Z" | "X")) {
        return None;
    }
    value("Uid:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_by_the_user_they_run_as() {
        let own = rustix::process::getuid().as_raw();
        assert!(of(own).contains(&std::process::id()));
        assert!(!of(own.wrapping_sub(7)).contains(&std::process::id()));
    }

    #[test]
    fn one_that_has_ended_is_nobodys() {
        let status = "Name:\tsshd\nState:\tS (sleeping)\nUid:\t998\t998\t998\t998\n";
        assert_eq!(real_user(status), Some(998));
        assert_eq!(real_user(&status.replace("S (sleeping)", "Z (zombie)")), None);
        assert_eq!(real_user(""), None);
    }
}
