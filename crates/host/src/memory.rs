//! What the kernel says of this host's memory.

use std::fs;

/// So many bytes by this name: `MemTotal`; `None`: it does not say.
pub(crate) fn told(name: &str) -> Option<u64> {
    bytes(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read_by_its_whole_name() {
        let text = "MemTotal:        2014308 kB\nMemFree:          100352 kB\nMemAvailable:     987136 kB\n";
        assert_eq!(bytes(text, "MemAvailable"), Some(987_136 * 1024));
        assert_eq!(bytes(text, "Mem"), None);
        assert_eq!(bytes(text, "SwapTotal"), None);
    }
}
