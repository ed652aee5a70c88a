//! How much memory the processes of `cutover-host` have had at their peak, while something was done with them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cutover_testkit::site::{Found, Process, Site};

use crate::bench::kernel;

/// That no process of `cutover-host` has more than so many bytes is a promise, whatever the size of what it works on.
pub const MOST: u64 = 64_000_000;

/// Between two looks at the processes; the kernel keeps the peak of each.
const LOOK: Duration = Duration::from_millis(20);

/// The most resident bytes of each kind of process of this site's `cutover-host` until `acts` is over, by its word; and what `acts` gave.
pub async fn peaks_while<T>(site: &Site, acts: impl Future<Output = T>) -> (BTreeMap<String, u64>, T) {
    let over = AtomicBool::new(false);
    let acts = Box::pin(acts);
    let acting = async {
        let given = acts.await;
        over.store(true, Ordering::Relaxed);
        given
    };
    let looking = async {
        let mut peaks = BTreeMap::new();
        while !over.load(Ordering::Relaxed) {
            for found in site.processes() {
                let peak = is_host(&found, site).then(|| kernel::peak(found.pid)).flatten();
                if let Some(peak) = peak {
                    let most = peaks.entry(word(&found.process)).or_default();
                    *most = peak.max(*most);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        peaks
    };
    tokio::join!(looking, acting)
}

fn is_host(found: &Found, site: &Site) -> bool {
    let program = std::fs::read_link(format!("/proc/{}/exe", found.pid));
    program.is_ok_and(|program| program.file_name() == site.binaries().host.file_name())
}

fn word(process: &Process) -> String {
    match process {
        Process::Other(words) => words.split(' ').nth(1).unwrap_or_default().to_owned(),
        Process::Keeper(_) => "keep".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The peaks, as one line for people.
pub fn told(peaks: &BTreeMap<String, u64>) -> String {
    let each = peaks.iter().map(|(word, bytes)| format!("{word} {} MB", bytes.div_ceil(1_000_000)));
    each.collect::<Vec<_>>().join(", ")
}
