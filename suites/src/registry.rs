//! A registry of a test's own, on loopback, that lets nobody in without its password: the distribution's `docker-registry`.

use std::io::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use cutover_engine::Engine;
use cutover_testkit::{SOON, wait_until};

use crate::engine::{SHELL_IMAGE, shell_image};

/// Who is let in.
pub const USER: &str = "acme";
/// With this password. It is planted: no output may show it.
pub const PASSWORD: &str = "hunter2-registry";
/// The same as `htpasswd -B` writes it, and as the client's file has it.
const HASHED: &str = "acme:$2y$05$Tf//XSeHF9qS/wkXZ2xes.7T8cN5CXYFiOatTTKnzKkraNhByTPAO";
const ENCODED: &str = "YWNtZTpodW50ZXIyLXJlZ2lzdHJ5";

/// A registry. Dropped, it ends, and what it kept goes.
pub struct Registry {
    folder: tempfile::TempDir,
    address: SocketAddr,
    engine: String,
    child: Option<Child>,
}

impl Registry {
    /// Starts one; `Err` says why there is none.
    pub async fn start(engine: &Engine) -> std::result::Result<Self, String> {
        let told = |error: Error| format!("docker-registry: {error}");
        shell_image(engine)?;
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).map_err(told)?;
        let folder = tempfile::tempdir().map_err(told)?;
        let mut registry = Self { folder, address, engine: engine.address().to_owned(), child: None };
        registry.write_files().map_err(told)?;
        registry.up().await.map_err(told)?;
        Ok(registry)
    }

    /// Its host name and port, as images are named.
    pub fn server(&self) -> String {
        self.address.to_string()
    }

    fn write_files(&self) -> Result<()> {
        let (folder, address) = (self.folder.path().display(), self.address);
        let write = |name: &str, text: &str| std::fs::write(self.folder.path().join(name), text);
        write("htpasswd", &format!("{HASHED}\n"))?;
        write("config.json", &format!("{{\"auths\":{{\"{address}\":{{\"auth\":\"{ENCODED}\"}}}}}}"))?;
        write(
            "config.yml",
            &format!(
                "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {folder}/data }} }}\nhttp: {{ addr: \"{address}\" }}\n\
                 auth: {{ htpasswd: {{ realm: tests, path: {folder}/htpasswd }} }}\nlog: {{ level: warn }}\n"
            ),
        )
    }

    /// Starts it, again where it was stopped.
    ///
    /// # Errors
    /// The program is not there, or does not listen in time.
    pub async fn up(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.path("log"))?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(self.path("config.yml"));
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        let listens = async || tokio::net::TcpStream::connect(self.address).await.ok();
        wait_until("the registry listens", SOON, listens).await.map(drop).map_err(Error::other)
    }

    /// Ends it.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
    }

    /// Keeps a web server that answers `text` on `/` under `name`; the engine then has none of it. Gives its digest.
    ///
    /// # Errors
    /// What the engine's own client said.
    pub fn keep(&self, name: &str, text: &str) -> Result<String> {
        let folder = self.path("build");
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        let lines = ["RUN mkdir /www && echo ", text, " > /www/index.html"].concat();
        let dockerfile = format!(
            "FROM {SHELL_IMAGE}\n{lines}\nCMD [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n"
        );
        std::fs::write(folder.join("Dockerfile"), dockerfile)?;
        let image = format!("{}/{name}", self.address);
        self.docker(&[
            "build",
            "--quiet",
            "--network",
            "none",
            "--tag",
            &image,
            &folder.display().to_string(),
        ])?;
        let pushed = self.docker(&["push", &image])?;
        self.docker(&["rmi", "--force", &image])?;
        let digest = pushed.split_whitespace().find(|word| word.starts_with("sha256:"));
        digest.map(str::to_owned).ok_or_else(|| Error::other(format!("no digest in: {pushed}")))
    }

    /// The engine's own client, let in here.
    ///
    /// # Errors
    /// What it said.
    pub fn docker(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("docker");
        command.arg("--config").arg(self.folder.path()).args(words).env("DOCKER_HOST", &self.engine);
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(if status.success() { &stdout } else { &stderr }).into_owned();
        if status.success() { Ok(said) } else { Err(Error::other(format!("docker {words:?}: {said}"))) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.down();
    }
}
