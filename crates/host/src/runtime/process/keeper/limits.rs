//! Limits of an instance that the kernel keeps for single processes. Memory, CPU share and the number of processes of a whole instance need
//! control groups: they are not kept for plain processes.
// A limit is lowered on the keeper itself just for the start of its child, because nothing of ours runs between fork and exec.

use std::collections::BTreeMap;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits that were changed, to be put back.
#[derive(Debug)]
pub(super) struct Lowered {
    before: Vec<(Resource, Rlimit)>,
}

/// Sets what the next child inherits. The hard limit follows only where it can be undone, which takes root.
pub(super) fn lower(ulimits: &BTreeMap<String, (i64, i64)>) -> Lowered {
    let mut before = Vec::new();
    for (name, (soft, hard)) in ulimits {
        let Some(resource) = resource(name) else { continue };
        let now = getrlimit(resource);
        let wanted = wanted(now, *soft, *hard, rustix::process::geteuid().is_root());
        match setrlimit(resource, wanted) {
            Ok(()) => before.push((resource, now)),
            Err(error) => tracing::warn!(%error, name, "a limit could not be set"),
        }
    }
    Lowered { before }
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

fn wanted(now: Rlimit, soft: i64, hard: i64, root: bool) -> Rlimit {
    let (soft, hard) = (u64::try_from(soft).ok(), u64::try_from(hard).ok());
    let maximum = if root { hard } else { now.maximum };
    Rlimit { current: least(soft, maximum), maximum }
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
    fn without_root_only_the_soft_limit_moves_and_never_past_the_hard_one() {
        let now = Rlimit { current: Some(1024), maximum: Some(4096) };
        assert_eq!(wanted(now, 2048, 9999, false), Rlimit { current: Some(2048), maximum: Some(4096) });
        assert_eq!(wanted(now, 9999, 9999, false), Rlimit { current: Some(4096), maximum: Some(4096) });
        assert_eq!(wanted(now, -1, -1, true), Rlimit { current: None, maximum: None });
        assert_eq!(wanted(now, 10, 20, true), Rlimit { current: Some(10), maximum: Some(20) });
    }
}
