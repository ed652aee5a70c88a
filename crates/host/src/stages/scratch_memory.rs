//! Memory for a rehearsal on a server that has none to spare: it gets what is free and no more, so that nothing live is ended for it. Whether that was
//! too little is asked where it did not go well.

use cutover_core::defaults::ENGINE_CALL;
use cutover_core::names::InstanceName;
use cutover_core::plan::{InstanceSpec, ScratchRehearsal};
use cutover_core::rules::size;
use cutover_core::state::InstanceState;

use super::Act;
use crate::ports::Exec;

/// What is live may need more at any moment.
const STAYS: u64 = 128 << 20;
/// A server and a migration come up with so much each.
const LEAST: u64 = 128 << 20;

/// Bounds server and migration by what is free, each; lines for people where that is less than the limit that the live one has.
///
/// # Errors
/// Why there is too little for a rehearsal.
pub(super) fn bound(plan: &mut ScratchRehearsal, available: u64) -> Result<Vec<String>, String> {
    let room = room(available)?;
    let specs = std::iter::once(&mut plan.server).chain(plan.migration.specs_mut());
    let lowered = |spec: &mut InstanceSpec| {
        lower(&mut spec.settings.memory, room).map(|was| told(&spec.name, room, was))
    };
    Ok(specs.filter_map(lowered).collect())
}

/// How much each of them may have.
fn room(available: u64) -> Result<u64, String> {
    let room = available.saturating_sub(STAYS);
    if room >= 2 * LEAST {
        return Ok(room);
    }
    Err(format!(
        "{} of memory are available on this host, and the scratch server and the migration need {} beside what is live",
        size(available),
        size(STAYS + 2 * LEAST)
    ))
}

/// A limit that is no larger than what is there; the one it had, where that was.
fn lower(limit: &mut Option<u64>, room: u64) -> Option<u64> {
    let had = limit.replace(limit.unwrap_or(room).min(room));
    had.filter(|had| *had > room)
}

fn told(name: &InstanceName, room: u64, was: u64) -> String {
    format!("{name} gets {} of memory, not {}: no more is available on this host", size(room), size(was))
}

/// Where a container sees what the kernel counts of it (cgroups of either version).
const COUNTED: [&str; 3] =
    ["cat", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Whether the kernel ended the scratch server, or a process of it, for want of memory. A server whose process was ended goes on, and so its engine tells
/// nothing of it.
pub(super) async fn ran_out(act: &Act<'_>, server: &InstanceSpec) -> bool {
    let Ok(runtime) = act.ports.runtime(server.runtime()) else { return false };
    let found = runtime.inspect(act.app(), &server.name).await;
    match found.ok().flatten().map(|found| found.state) {
        Some(InstanceState::Exited { exit }) => exit.out_of_memory,
        Some(_) => {
            let words = COUNTED.map(str::to_owned).to_vec();
            let counted = runtime.exec(act.app(), &server.name, &Exec { words, timeout: ENGINE_CALL }).await;
            counted.is_ok_and(|counted| has_killed(&counted.output))
        }
        None => false,
    }
}

fn has_killed(counted: &[String]) -> bool {
    let killed = |line: &String| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    counted.iter().filter_map(killed).any(|killed: u64| killed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn given_too_little_memory_then_nothing_is_begun_and_the_reason_has_both_figures() {
        assert_eq!(room(384 * MIB), Ok(256 * MIB));
        let refused = room(383 * MIB).unwrap_err();
        assert!(refused.contains("383.0 MiB") && refused.contains("384.0 MiB"), "{refused}");
    }

    #[test]
    fn given_what_the_kernel_counts_then_processes_that_it_ended_are_known() {
        let has_killed = |text: &str| has_killed(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let missing = "cat: /sys/fs/cgroup/memory.events: No such file or directory";

        assert!(has_killed(&format!("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n{missing}")));
        assert!(!has_killed(&format!("oom_kill_disable 1\nunder_oom 0\noom_kill 0\n{missing}")));
        assert!(has_killed("low 0\nhigh 0\nmax 41\noom 1\noom_kill 1\noom_group_kill 0"));
        assert!(!has_killed("low 0\nhigh 0\nmax 41\noom 1\noom_kill 0\noom_group_kill 1"), "nobody yet");
    }

    #[test]
    fn given_a_limit_then_it_stays_unless_that_much_is_not_there() {
        let lowered = |mut limit: Option<u64>| (lower(&mut limit, 600 * MIB), limit);

        assert_eq!(lowered(Some(512 * MIB)), (None, Some(512 * MIB)));
        assert_eq!(lowered(Some(2048 * MIB)), (Some(2048 * MIB), Some(600 * MIB)));
        assert_eq!(lowered(None), (None, Some(600 * MIB)), "nothing is without one");
    }
}
