//! A running guestbook in a release's folder of its own; killed when the test ends, however it ends.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use cutover_testkit::guestbook::lay_out_files;
use cutover_testkit::probe::ProbeOptions;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A release's files, and beside them what outlives releases: the database, the ledger.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn of(version: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.becomes(version);
        place
    }

    /// The next release in the same place.
    pub(crate) fn becomes(&self, version: &str) {
        let release = self.folder.path().join("release");
        std::fs::remove_dir_all(&release).ok();
        std::fs::create_dir(&release).unwrap();
        lay_out_files(version, &release).unwrap();
    }

    pub(crate) fn with_behaviour(self, service: &str, behaviour: &str) -> Self {
        std::fs::write(self.release(service).join("behaviour.json"), behaviour).unwrap();
        self
    }

    pub(crate) fn release(&self, service: &str) -> PathBuf {
        self.folder.path().join("release").join(service)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("guestbook.db")
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger.jsonl")
    }

    pub(crate) fn command(&self, service: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestbook"));
        command
            .args(words)
            .current_dir(self.release(service))
            .env_clear()
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("DATABASE_FILE", self.database())
            .env("BOT_LEDGER", self.ledger())
            .env("CUTOVER_RELEASE", "r1")
            .kill_on_drop(true);
        command
    }

    /// Runs to the end.
    pub(crate) async fn run(&self, service: &str, words: &[&str]) -> Output {
        timeout(SOON, self.command(service, words).output()).await.expect("ends in time").unwrap()
    }

    pub(crate) async fn migrated(self) -> Self {
        let output = self.run("web", &["migrate"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self
    }

    pub(crate) async fn serve(&self) -> Instance {
        Instance::start(self.command("web", &["serve"])).await
    }
}

pub(crate) struct Instance {
    child: Child,
    log: Lines<BufReader<ChildStdout>>,
    pub(crate) address: SocketAddr,
}

impl Instance {
    /// Ready when it says where it listens.
    pub(crate) async fn start(command: Command) -> Self {
        let (child, mut log) = spawn(command);
        let line = until(&mut log, "listens on ").await;
        let address = line.rsplit(' ').next().unwrap().parse().unwrap();
        Self { child, log, address }
    }

    pub(crate) fn tell(&self, signal: Signal) {
        tell(&self.child, signal);
    }

    pub(crate) async fn ends(mut self) -> ExitStatus {
        timeout(SOON, self.child.wait()).await.expect("ends in time").unwrap()
    }

    pub(crate) async fn says(&mut self, text: &str) {
        until(&mut self.log, text).await;
    }

    pub(crate) fn probe(&self) -> ProbeOptions {
        let mut options = ProbeOptions::new(self.address, "guestbook.localhost");
        options.pace = Duration::from_millis(2);
        options.deadline = SOON;
        options
    }

    /// Status, head and body of one request, written by hand.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        ask(self.address, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: guestbook.localhost\r\nconnection: close\r\n\r\n"))
            .await
    }

    pub(crate) async fn post(&self, headers: &str, body: &str) -> Answer {
        let length = body.len();
        self.ask(&format!(
            "POST /entries HTTP/1.1\r\nhost: guestbook.localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        ))
        .await
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn ask(address: SocketAddr, request: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = timeout(SOON, exchange).await.expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

pub(crate) fn spawn(mut command: Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, log)
}

/// The first line of the log that has `text` in it.
pub(crate) async fn until(log: &mut Lines<BufReader<ChildStdout>>, text: &str) -> String {
    let reading = async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("ended without saying `{text}`");
    };
    timeout(SOON, reading).await.expect("says so in time")
}

pub(crate) fn tell(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id().expect("still runs")).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
}

pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
