//! Limits of an instance that the kernel keeps for single processes. Memory, CPU share and the number of processes of a whole instance need
//! control groups: they are not kept for plain processes.
// Nothing of ours runs between fork and exec: the soft limit is set on the keeper just for the start of its child, the hard one on the child
// right after. (A hard limit that the keeper lowered for itself might not be raised again.)

use std::collections::BTreeMap;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Soft limits that were changed, to be put back.
#[derive(Debug)]
pub(super) struct Lowered {
    before: Vec<(Resource, Rlimit)>,
}

/// Sets the soft limits that the next child inherits.
pub(super) fn lower(ulimits: &BTreeMap<String, (i64, i64)>) -> Lowered {
    let mut before = Vec::new();
    for (name, resource, wanted) in known(ulimits) {
        let now = getrlimit(resource);
        match setrlimit(resource, soft_only(now, wanted)) {
            Ok(()) => before.push((resource, now)),
            Err(error) => tracing::warn!(%error, name, "a limit could not be set"),
        }
    }
    Lowered { before }
}

/// Sets both limits of a child that was just started, as far as we may.
pub(super) fn settle(child: Pid, ulimits: &BTreeMap<String, (i64, i64)>) {
    for (name, resource, wanted) in known(ulimits) {
        if let Err(error) = prlimit(Some(child), resource, wanted) {
            tracing::warn!(%error, name, "a hard limit could not be set");
        }
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        for (resource, limit) in self.before.drain(..) {
            if let Err(error) = setrlimit(resource, limit) {
                tracing::warn!(%error, "a limit of the keeper could not be put back");
            }
        }
    }
}

/// The limits the kernel knows, with what is wanted of them; a negative number is no limit.
fn known(ulimits: &BTreeMap<String, (i64, i64)>) -> impl Iterator<Item = (&str, Resource, Rlimit)> {
    ulimits.iter().filter_map(|(name, (soft, hard))| {
        let (soft, hard) = (u64::try_from(*soft).ok(), u64::try_from(*hard).ok());
        Some((name.as_str(), resource(name)?, Rlimit { current: least(soft, hard), maximum: hard }))
    })
}

fn soft_only(now: Rlimit, wanted: Rlimit) -> Rlimit {
    Rlimit { current: least(wanted.current, now.maximum), maximum: now.maximum }
}

/// The lesser of two limits, of which `None` is no limit.
fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (limit, None) | (None, limit) => limit,
    }
}

/// Compose's names.
fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_soft_limit_moves_and_never_past_the_hard_one() {
        let now = Rlimit { current: Some(1024), maximum: Some(4096) };
        let wanted = |current| Rlimit { current, maximum: current };
        assert_eq!(soft_only(now, wanted(Some(64))), Rlimit { current: Some(64), maximum: Some(4096) });
        assert_eq!(soft_only(now, wanted(Some(9999))), Rlimit { current: Some(4096), maximum: Some(4096) });
        assert_eq!(soft_only(now, wanted(None)), Rlimit { current: Some(4096), maximum: Some(4096) });
    }

    #[test]
    fn names_are_those_of_compose_and_a_negative_number_is_no_limit() {
        let ulimits = BTreeMap::from([("nofile".to_owned(), (10, -1)), ("nonsense".to_owned(), (1, 1))]);
        let found: Vec<_> = known(&ulimits).collect();
        assert_eq!(found, [("nofile", Resource::Nofile, Rlimit { current: Some(10), maximum: None })]);
    }
}
