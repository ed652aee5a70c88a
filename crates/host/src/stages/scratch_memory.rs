//! Memory for a rehearsal on a server that has none to spare: it gets what is free and no more, so that nothing live is ended for it.

use cutover_core::names::InstanceName;
use cutover_core::plan::{InstanceSpec, ScratchRehearsal};
use cutover_core::rules::size;

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
    let specs = [&mut plan.server, &mut plan.migration.spec].into_iter();
    let specs = specs.chain(plan.migration.pending.as_deref_mut());
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
    fn given_a_limit_then_it_stays_unless_that_much_is_not_there() {
        let lowered = |mut limit: Option<u64>| (lower(&mut limit, 600 * MIB), limit);

        assert_eq!(lowered(Some(512 * MIB)), (None, Some(512 * MIB)));
        assert_eq!(lowered(Some(2048 * MIB)), (Some(2048 * MIB), Some(600 * MIB)));
        assert_eq!(lowered(None), (None, Some(600 * MIB)), "nothing is without one");
    }
}
