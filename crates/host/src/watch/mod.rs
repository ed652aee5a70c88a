//! Keeps instances and routes true after crash and reboot, settles runs that died, probes health.
#[cfg(test)]
pub(crate) mod fake;
