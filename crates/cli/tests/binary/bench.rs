//! A folder with an app, and a session that answers from a file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cutover_core::journal::{Entry, What};
use cutover_core::plan::Verb;
use cutover_core::state::HostState;
use cutover_core::verdict::{Outcome, Verdict};
use cutover_core::wire::{Reply, WIRE_VERSION};

pub(crate) const APP: &str =
    "app: shop\nservices:\n  web: { artifact: web, command: ./web, route: { host: shop.localhost } }\n";

const NOW: &str = "2026-11-21T14:00:00Z";

/// What becomes of the session once it has said all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It listens on, until nobody speaks any more.
    Listens,
    /// It ends once a run was asked for, as if it was killed.
    Ends,
}

/// A folder of its own for each test.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

/// What the binary did.
pub(crate) struct Did {
    pub(crate) exit: i32,
    pub(crate) data: String,
    pub(crate) talk: String,
}

impl Bench {
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Nothing above the folder is looked at.
        fs::create_dir(folder.path().join(".git")).unwrap();
        Self { folder }
    }

    pub(crate) fn with_app(text: &str) -> Self {
        let bench = Self::empty();
        bench.write("cutover.yml", text, 0o644);
        bench.write("web/web", "#!/bin/sh\n", 0o755);
        bench
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The session says hello and then these, whatever it is asked.
    pub(crate) fn session(&self, replies: &[Reply], then: Then) {
        let hello = Reply::Hello {
            version: WIRE_VERSION,
            package: "0.1.0".to_owned(),
            platform: "x86_64-linux".to_owned(),
            now: NOW.parse().unwrap(),
        };
        let lines: String = std::iter::once(&hello)
            .chain(replies)
            .map(|reply| serde_json::to_string(reply).unwrap() + "\n")
            .collect();
        self.write("session/replies", &lines, 0o644);
        // What it is asked goes to a file, so that a test can look for what must not be in it.
        let then = match then {
            Then::Listens => "cat >>\"$here/asked\"; echo >>\"$here/ended\"",
            Then::Ends => "while read -r line; do case $line in *'\"ask\":\"run\"'*) exit ;; esac; done",
        };
        let script = format!("#!/bin/sh\nhere=$(dirname \"$0\")\ncat \"$here/replies\"\n{then}\n");
        self.write("session/cutover-host", &script, 0o755);
    }

    /// What it was asked in so many conversations, once all of them have ended.
    pub(crate) fn asked(&self, conversations: usize) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        let ended = self.path().join("session/ended");
        while fs::read_to_string(&ended).unwrap_or_default().lines().count() < conversations {
            assert!(Instant::now() < deadline, "a session did not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        String::from_utf8_lossy(&fs::read(self.path().join("session/asked")).unwrap()).into_owned()
    }

    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command
            .args(words.split_whitespace())
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("USER", "ada")
            .env("CUTOVER_HOST_BINARY", self.path().join("session/cutover-host"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &str) -> Did {
        did(self.command(words).output().unwrap())
    }

    /// Runs it with something on its standard input.
    pub(crate) fn run_with_input(&self, words: &str, input: &str) -> Did {
        let mut command = self.command(words);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        did(child.wait_with_output().unwrap())
    }
}

pub(crate) fn did(output: Output) -> Did {
    Did {
        exit: output.status.code().unwrap(),
        data: String::from_utf8(output.stdout).unwrap(),
        talk: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A host where nothing is live.
pub(crate) fn state() -> Reply {
    let state = serde_json::json!({
        "app": { "app": "shop", "environment": "local" },
        "installation": "0123456789abcdef",
        "salt": "salt",
        "root": "/srv/cutover/lib",
        "now": NOW,
        "live": null,
        "table": null,
        "instances": [],
        "releases": [],
        "variables": {},
        "placeholders": [],
        "env_file_mode": 0o600,
        "artifacts": [],
        "images": {},
        "engine": null,
        "taken": [],
        "databases": {},
        "disk_free": 64_u64 << 30,
        "unfinished": null,
        "lock": null,
        "verdicts": [],
        "listeners": ["127.0.0.1:8080"],
    });
    let state: HostState = serde_json::from_value(state).unwrap();
    Reply::State { state: Box::new(state) }
}

pub(crate) fn up() -> Reply {
    Reply::Up { started: false, listeners: vec!["127.0.0.1:8080".parse().unwrap()] }
}

pub(crate) fn event(seq: u64, what: What) -> Reply {
    Reply::Event {
        entry: Box::new(Entry {
            run: "018f3c9e-0000-7000-8000-0000deadbeef".parse().unwrap(),
            seq,
            at: NOW.parse().unwrap(),
            what,
        }),
    }
}

pub(crate) fn verdict(outcome: Outcome) -> Reply {
    Reply::Verdict {
        verdict: Box::new(Verdict {
            run: "018f3c9e-0000-7000-8000-0000deadbeef".parse().unwrap(),
            app: "shop/local".parse().unwrap(),
            verb: Verb::Deploy,
            release: Some("7f3c9e1".parse().unwrap()),
            serving: Some("7f3c9e1".parse().unwrap()),
            outcome,
            allowed: Vec::new(),
            by: "ada@laptop".to_owned(),
            started: NOW.parse().unwrap(),
            finished: "2026-11-21T14:00:01.5Z".parse().unwrap(),
            switched_ms: Some(420),
            freed: None,
            warnings: Vec::new(),
        }),
    }
}
