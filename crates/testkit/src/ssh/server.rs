//! The server: a listener on a free port of loopback, and for each connection an `sshd` that speaks with it (`sshd -i`), so that no port is
//! guessed and what it may do is read anew each time. All of them are ended by their own numbers.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;

use super::keys::KeyPair;

/// Where a real one keeps an empty folder; it does not start without.
const EMPTY: &str = "/run/sshd";

/// An `sshd` of a test's own. Dropped, all it started ends.
pub struct SshServer {
    folder: PathBuf,
    address: SocketAddr,
    host_key: Mutex<KeyPair>,
    client_key: KeyPair,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    connections: Mutex<Vec<Child>>,
}

impl SshServer {
    /// Starts one with all it has below `folder`, which must be there and empty. Sessions get `variables`.
    pub fn start(folder: &Path, variables: &[(&str, String)]) -> anyhow::Result<Self> {
        let sshd = super::sshd().context("there is no sshd")?;
        std::fs::create_dir_all(EMPTY)?;
        let host_key = KeyPair::make(&folder.join("host_key"))?;
        let client_key = KeyPair::make(&folder.join("client_key"))?;
        std::fs::write(folder.join("authorized_keys"), format!("{}\n", client_key.public))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = {
            let (shared, folder) = (Arc::clone(&shared), folder.to_owned());
            std::thread::spawn(move || accept(&listener, &sshd, &folder, &shared))
        };
        let (host_key, accepting) = (Mutex::new(host_key), Some(accepting));
        let folder = folder.to_owned();
        let server = Self { folder, address, host_key, client_key, shared, accepting };
        server.configure(variables, "")?;
        Ok(server)
    }

    /// What sessions get from now on, and more lines of its configuration.
    pub fn configure(&self, variables: &[(&str, String)], more: &str) -> anyhow::Result<()> {
        let place = |name: &str| self.folder.join(name).display().to_string();
        let mut text = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nPrintLastLog no\nLogLevel VERBOSE\n{more}",
            place("host_key"),
            place("authorized_keys"),
        );
        let pairs: Vec<String> =
            variables.iter().map(|(name, value)| format!("\"{name}={value}\"")).collect();
        if !pairs.is_empty() {
            // One line: of several only the first counts.
            writeln!(text, "SetEnv {}", pairs.join(" "))?;
        }
        Ok(std::fs::write(self.folder.join("sshd_config"), text)?)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file of the key that it lets in.
    pub fn client_key(&self) -> &Path {
        &self.client_key.private
    }

    /// A line of `known_hosts` for it, as it is reached at `address`.
    pub fn known_at(&self, address: SocketAddr) -> String {
        let key = self.host_key.lock().unwrap_or_else(PoisonError::into_inner);
        format!("[{}]:{} {}\n", address.ip(), address.port(), key.public)
    }

    /// It is another machine from now on, or says so.
    pub fn change_host_key(&self) -> anyhow::Result<()> {
        for name in ["host_key", "host_key.pub"] {
            std::fs::remove_file(self.folder.join(name))?;
        }
        let key = KeyPair::make(&self.folder.join("host_key"))?;
        *self.host_key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    /// Lets in whom these lines name.
    pub fn authorize(&self, lines: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.folder.join("authorized_keys"), lines)?)
    }

    /// The line of the key that it lets in at first.
    pub fn client_line(&self) -> &str {
        &self.client_key.public
    }

    /// How many of its connections are open.
    pub fn connections(&self) -> usize {
        let mut all = self.shared.connections();
        all.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        all.len()
    }

    /// Ends each connection at once, with -9.
    pub fn kill_connections(&self) {
        self.shared.end_connections();
    }

    /// What it wrote of itself.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("sshd.log")).unwrap_or_default()
    }
}

impl Shared {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_connections(&self) {
        for mut child in self.connections().drain(..) {
            // One that is over already is as good.
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }
}

fn accept(listener: &TcpListener, sshd: &Path, folder: &Path, shared: &Shared) {
    for connection in listener.incoming() {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        // A client that hears nothing of it says so.
        if let Ok(child) = connection.and_then(|connection| speak(connection, sshd, folder)) {
            shared.connections().push(child);
        }
    }
}

fn speak(connection: TcpStream, sshd: &Path, folder: &Path) -> std::io::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("sshd.log"))?;
    let (input, output) = (OwnedFd::from(connection.try_clone()?), OwnedFd::from(connection));
    let mut command = Command::new(sshd);
    command.args(["-i", "-e", "-f"]).arg(folder.join("sshd_config"));
    command.env_clear().stdin(input).stdout(output).stderr(log).spawn()
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for one.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap_or_default();
        }
        self.shared.end_connections();
    }
}
