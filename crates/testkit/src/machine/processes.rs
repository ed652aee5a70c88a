//! What runs on a server, by what its system says.

use std::fmt;

use super::server::Machine;

/// A line for each process that has words: its number, and what it is. What its environment says of an instance goes before its words.
const LIST: &str = r#"for process in /proc/[0-9]*; do
    words=$(tr '\0' ' ' <"$process/cmdline") && [ -n "$words" ] || continue
    release=$(tr '\0' '\n' <"$process/environ" | sed -n 's/^CUTOVER_RELEASE=//p' | head -n 1)
    instance=$(tr '\0' '\n' <"$process/environ" | sed -n 's/^CUTOVER_INSTANCE=//p' | head -n 1)
    echo "${process#/proc/}|$release|$instance|$words"
done 2>/dev/null
true"#;

/// Kills these, and waits for their ends: what a process has open is closed only as the last of its threads ends.
const KILL: &str = r#"kill -KILL "$@"
for process in "$@"; do
    tries=0
    while [ -d "/proc/$process" ] && [ $tries -lt 500 ]; do sleep 0.01; tries=$((tries + 1)); done
done 2>/dev/null
true"#;

/// What of cutover's own is looked for on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Run,
    Proxy,
    Watch,
    Keeper,
    Session,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Proxy => "proxy",
            Self::Watch => "watch",
            Self::Keeper => "keep",
            Self::Session => "session",
        }
    }
}

/// A process of a server.
#[derive(Clone, Debug)]
pub struct Running {
    pub pid: u32,
    /// The release and the instance that it belongs to; empty for all else.
    pub release: String,
    pub instance: String,
    pub words: String,
}

impl fmt::Display for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {} {}", self.pid, self.release, self.instance, self.words)
    }
}

impl Running {
    /// Whether it is this part of cutover.
    pub fn is(&self, part: Part) -> bool {
        let mut words = self.words.split_whitespace();
        words.next().is_some_and(|program| program.ends_with("cutover-host"))
            && words.next() == Some(part.word())
    }

    /// Whether it is an instance of an app, or what one started.
    pub fn is_instance_of(&self, app: &cutover_core::names::AppId) -> bool {
        self.instance.starts_with(&format!("{app}/")) && !self.is(Part::Keeper)
    }
}

impl Machine {
    /// All processes on it, those in containers among them.
    pub async fn processes(&self) -> anyhow::Result<Vec<Running>> {
        let said = self.exec(&["sh", "-c", LIST]).await?;
        Ok(said.lines().filter_map(parsed).collect())
    }

    /// Kills these with -9, and waits until they are gone; one that is gone already is as good. Says how many there were.
    pub async fn kill(&self, is: impl Fn(&Running) -> bool) -> anyhow::Result<usize> {
        let all = self.processes().await?;
        let numbers: Vec<String> = all.iter().filter(|one| is(one)).map(|one| one.pid.to_string()).collect();
        if !numbers.is_empty() {
            let words = ["sh", "-c", KILL, "sh"].into_iter().chain(numbers.iter().map(String::as_str));
            self.exec(&words.collect::<Vec<_>>()).await?;
        }
        Ok(numbers.len())
    }
}

fn parsed(line: &str) -> Option<Running> {
    let mut parts = line.splitn(4, '|');
    let pid = parts.next()?.parse().ok()?;
    let mut next = || Some(parts.next()?.trim().to_owned());
    Some(Running { pid, release: next()?, instance: next()?, words: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_line_of_the_list_then_it_is_known_what_runs() {
        let run = parsed("17|||/usr/local/bin/cutover-host run 0197 ").unwrap();
        assert!(run.is(Part::Run) && !run.is(Part::Proxy));
        let app = "shop/production".parse().unwrap();
        let instance = parsed("18|20-abc|shop/production/web-blue|./guestbook serve a|b").unwrap();
        assert!(instance.is_instance_of(&app) && !instance.is(Part::Run));
        assert_eq!(instance.words, "./guestbook serve a|b");
    }
}
