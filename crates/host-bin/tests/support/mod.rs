//! A root of its own, and conversations with the real `cutover-host session` in it. Every wait has a deadline; what was started is ended.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::wire::{Ask, Reply, WIRE_VERSION};

/// For anything that should come at once.
pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) struct Root {
    folder: tempfile::TempDir,
    http: String,
    /// A program that goes with this root, as long as it is there.
    own: Option<PathBuf>,
}

impl Root {
    pub(crate) fn new() -> Self {
        Self::listening("127.0.0.1:0")
    }

    pub(crate) fn listening(http: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), http: http.to_owned(), own: None }
    }

    /// With a copy of the program, which can be replaced and removed.
    pub(crate) fn with_its_own_program() -> Self {
        let mut root = Self::new();
        let own = root.folder.path().join("cutover-host");
        // By a process of its own: a file that is open for writing here, inherited by what another test starts, could not be executed.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_cutover-host")).arg(&own).status().unwrap();
        assert!(copied.success());
        root.own = Some(own);
        root
    }

    /// Takes the copy away; what is started from here on is the program itself.
    pub(crate) fn remove_its_own_program(&self) {
        std::fs::remove_file(self.own.as_ref().unwrap()).unwrap();
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::under(self.folder.path())
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let own = self.own.clone().filter(|own| own.exists());
        let mut command = Command::new(own.unwrap_or_else(|| env!("CARGO_BIN_EXE_cutover-host").into()));
        command.args(words).env("CUTOVER_ROOT", self.folder.path()).env("CUTOVER_HTTP", &self.http);
        command
    }

    pub(crate) fn runs(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn talk(&self) -> Conversation {
        let mut conversation = self.silent();
        let hello = Ask::Hello { version: WIRE_VERSION, package: "test".to_owned(), progress: true };
        assert!(matches!(conversation.ask(&hello), Reply::Hello { .. }));
        conversation
    }

    /// A conversation in which nothing was said yet.
    pub(crate) fn silent(&self) -> Conversation {
        let mut command = self.command(&["session"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, replies) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines() {
                if send.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Conversation { input: child.stdin.take(), child, replies }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Whatever a test has started, also when it failed.
        let ended = self.runs(&["down"]);
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() || std::thread::panicking(), "{told}");
    }
}

pub(crate) struct Conversation {
    child: Child,
    input: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Conversation {
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, ask: &Ask) {
        let mut line = serde_json::to_vec(ask).unwrap();
        line.push(b'\n');
        self.say(&line);
    }

    pub(crate) fn hear(&mut self) -> Reply {
        let line = self.replies.recv_timeout(SOON).expect("a reply was due");
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn ask(&mut self, ask: &Ask) -> Reply {
        self.send(ask);
        self.hear()
    }

    pub(crate) fn hear_failure(&mut self) -> Failure {
        match self.hear() {
            Reply::Failed { failure } => *failure,
            other => panic!("a failure was due, {other:?} came"),
        }
    }

    /// The client leaves; gives how the session ended, and what it said on its error stream.
    pub(crate) fn leaves(mut self) -> (Option<i32>, String) {
        drop(self.input.take());
        let mut said = String::new();
        let end = std::time::Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(std::time::Instant::now() < end, "the session did not end");
            std::thread::yield_now();
        };
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // Ended already, as a rule.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}
