//! An application of a developer whose production is one server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cutover_core::names::AppId;
use cutover_core::variables;
use cutover_core::verdict::Verdict;
use cutover_engine::Engine;
use serde::Deserialize;

use super::access::User;
use super::server::Machine;
use crate::guestbook::{self, Kind};
use crate::probe::ProbeOptions;
use crate::site::{Binaries, Status, Told};
use crate::{Answer, ask};

/// Where it is deployed to.
const PRODUCTION: &str = "production";
/// Another place, on the same server.
const STAGING: &str = "staging";
/// No command takes longer.
const DEADLINE: Duration = Duration::from_mins(3);

/// A repository with the guestbook, and the command line in it.
pub struct ServerApp<'a> {
    machine: &'a Machine,
    binaries: Binaries,
    kind: Kind,
    user: User,
    id: AppId,
    /// What its routes are asked for.
    host: String,
    repository: Arc<tempfile::TempDir>,
    /// What `setup:` says, between braces.
    setup: &'static str,
    /// Where it has images.
    images: Option<Arc<Images>>,
}

/// What an app has made on the developer's engine. Dropped, it goes.
struct Images {
    /// What they are made from: it stays, for other apps and other tests.
    base: String,
    /// The app's name.
    app: String,
}

impl Drop for Images {
    fn drop(&mut self) {
        const REMOVE: &str =
            r#"docker rmi $(docker images --format '{{.Repository}}:{{.Tag}}' "$1/*" "$1/*/*")"#;
        let mut command = std::process::Command::new("sh");
        let output = command.args(["-c", REMOVE, "sh", &format!("cutover/{}", self.app)]).output();
        if !std::thread::panicking() {
            assert!(output.is_ok(), "images were left behind");
        }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    verdict: Option<Verdict>,
}

impl<'a> ServerApp<'a> {
    /// As plain processes.
    pub fn of_processes(machine: &'a Machine, binaries: &Binaries, name: &str) -> anyhow::Result<Self> {
        let app = Self::new(machine, binaries, Kind::Processes, name, None)?;
        app.write_env(&format!("BOT_LEDGER={}\n", app.ledger()))?;
        Ok(app)
    }

    /// As containers, whose images `engine` builds: the developer's own, on which its name is made one that no other app has.
    pub async fn of_containers(
        machine: &'a Machine,
        binaries: &Binaries,
        engine: &Engine,
        name: &str,
    ) -> anyhow::Result<Self> {
        let base = crate::site::base_image(engine, &binaries.guestbook).await?;
        let number = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{name}-{}", number.get(..8).unwrap_or_default());
        let images = Images { base, app: name.clone() };
        Self::new(machine, binaries, Kind::Containers, &name, Some(images))
    }

    fn new(
        machine: &'a Machine,
        binaries: &Binaries,
        kind: Kind,
        name: &str,
        images: Option<Images>,
    ) -> anyhow::Result<Self> {
        let id: AppId = format!("{name}/{PRODUCTION}").parse()?;
        let repository = Arc::new(tempfile::Builder::new().prefix("app-").tempdir()?);
        let images = images.map(Arc::new);
        let (user, host) = (User::Root, host(name, PRODUCTION));
        let app =
            Self { machine, binaries: binaries.clone(), kind, user, id, host, repository, setup: "", images };
        app.git(&["init", "--quiet", "."])?;
        std::fs::write(app.path(".gitignore"), "web/guestbook\nbot/guestbook\n.env*\n")?;
        Ok(app)
    }

    /// The same, deployed as another user.
    #[must_use]
    pub fn by(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// The same, with these words of `setup:`.
    #[must_use]
    pub fn set_up_with(mut self, setup: &'static str) -> Self {
        self.setup = setup;
        self
    }

    /// The same application in its other environment, on the same server.
    pub fn staging(&self) -> anyhow::Result<Self> {
        let other = Self {
            machine: self.machine,
            binaries: self.binaries.clone(),
            kind: self.kind,
            user: self.user,
            id: format!("{}/{STAGING}", self.id.app).parse()?,
            host: host(self.id.app.as_str(), STAGING),
            repository: Arc::clone(&self.repository),
            setup: self.setup,
            images: self.images.clone(),
        };
        if self.kind == Kind::Processes {
            other.write_env(&format!("BOT_LEDGER={}\n", other.ledger()))?;
        }
        Ok(other)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.repository.path().join(name)
    }

    /// Writes the variables of its environment, which nobody else may read.
    pub fn write_env(&self, text: &str) -> anyhow::Result<()> {
        let file = self.path(&format!(".env.{}", self.id.environment));
        std::fs::write(&file, text)?;
        Ok(std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?)
    }

    pub fn id(&self) -> &AppId {
        &self.id
    }

    pub fn repository(&self) -> &Path {
        self.repository.path()
    }

    pub fn machine(&self) -> &'a Machine {
        self.machine
    }

    /// Where its bot leaves a line for each poll, on the server.
    pub fn ledger(&self) -> String {
        match self.kind {
            Kind::Processes => format!("/srv/{}.{}.ledger", self.id.app, self.id.environment),
            Kind::Containers => {
                let volume =
                    cutover_core::layout::engine_volume(&self.id, &"ledger".parse().expect("a name"));
                format!("/var/lib/docker/volumes/{volume}/_data/bot.jsonl")
            }
        }
    }

    /// Commits the guestbook's release `version` under this subject, with `edit` applied to its configuration, and pages of its own, so that
    /// no two releases are alike.
    pub fn commit(
        &self,
        version: &str,
        subject: &str,
        edit: impl FnOnce(&str) -> String,
    ) -> anyhow::Result<()> {
        self.commit_with(version, subject, edit, &[])
    }

    /// The same, with these files besides: path and text.
    pub fn commit_with(
        &self,
        version: &str,
        subject: &str,
        edit: impl FnOnce(&str) -> String,
        files: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        guestbook::lay_out(version, self.kind, &self.binaries.guestbook, self.repository())?;
        let file = self.path("cutover.yml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, edit(&self.own(&text)))?;
        std::fs::write(self.path("web/pages/about.html"), format!("<p>{subject}</p>"))?;
        std::fs::write(self.path("bot/greeting.txt"), format!("hello {subject}"))?;
        for (name, text) in files {
            std::fs::write(self.path(name), text)?;
        }
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject])
    }

    /// The example's configuration with this application's name, host, base image and server; the other environment has another host.
    fn own(&self, text: &str) -> String {
        let own = text.replace("app: guestbook", &format!("app: {}", self.id.app));
        let own = own.replace("guestbook.localhost", &host(self.id.app.as_str(), PRODUCTION));
        let base = self.images.as_ref().map_or("scratch", |images| images.base.as_str());
        let own = own.replace("${BASE_IMAGE:-scratch}", &format!("${{BASE_IMAGE:-{base}}}"));
        let target = self.machine.target(self.user);
        let (own, setup) = (own.trim_end(), self.setup);
        let staging = host(self.id.app.as_str(), STAGING);
        format!(
            "{own}\nenvironments:\n  {PRODUCTION}: {{ hosts: [\"{target}\"], setup: {{ {setup} }} }}\n  \
             {STAGING}: {{ hosts: [\"{target}\"], setup: {{ {setup} }}, services: {{ web: {{ route: {{ host: {staging} }} }} }} }}\n"
        )
    }

    fn git(&self, words: &[&str]) -> anyhow::Result<()> {
        crate::site::git(self.repository(), words)
    }

    /// The command line, not yet started. Nothing of this machine is told to it but how to reach the server.
    pub fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.binaries.cutover);
        command.current_dir(self.repository()).args(words).stdin(Stdio::null()).kill_on_drop(true);
        for name in [variables::ROOT, variables::HTTP, variables::HTTPS] {
            command.env_remove(name);
        }
        // What setup brings there.
        command.env(variables::HOST_BINARY, &self.binaries.host);
        command
            .env(variables::ENVIRONMENT, self.id.environment.as_str())
            .env(variables::SSH, self.machine.ssh_program());
        command
    }

    /// The command line, to its end.
    pub async fn cutover(&self, words: &[&str]) -> anyhow::Result<Told> {
        let began = Instant::now();
        let mut command = self.command(words);
        let output = tokio::time::timeout(DEADLINE, command.output())
            .await
            .with_context(|| format!("no end within {DEADLINE:?}: {:?}", command.as_std()))??;
        Ok(Told::new(&output, began.elapsed()))
    }

    /// The image that its images are made from, on the developer's engine.
    pub fn base(&self) -> Option<&str> {
        self.images.as_ref().map(|images| images.base.as_str())
    }

    /// Its server has the image that its images are made from, as one has that builds them itself.
    pub async fn base_to_server(&self) -> anyhow::Result<()> {
        let base = self.base().context("it has no images")?;
        let file = self.machine.folder().join("base.tar");
        let saved = file.display().to_string();
        super::server::docker(&["save", "--output", &saved, base]).await?;
        self.machine.put(&file, "/root/base.tar").await?;
        self.machine.exec(&["docker", "load", "--quiet", "--input", "/root/base.tar"]).await.map(drop)?;
        Ok(std::fs::remove_file(file)?)
    }

    /// What `status --json` says.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let told = self.cutover(&["status", "--json"]).await?;
        let last = told.output.lines().last().unwrap_or_default();
        let line: Option<Line> = serde_json::from_str(last).ok();
        line.and_then(|line| line.status).with_context(|| format!("{}\n{}", told.output, told.talk))
    }

    /// What `history --json` says, the newest first.
    pub async fn history(&self) -> anyhow::Result<Vec<Verdict>> {
        let told = self.cutover(&["history", "--json"]).await?.expect(0)?;
        let lines = told.output.lines().map(|line| Ok(serde_json::from_str::<Line>(line)?.verdict));
        let all: anyhow::Result<Vec<_>> = lines.collect();
        Ok(all?.into_iter().flatten().collect())
    }

    /// What the public route answers.
    pub async fn ask(&self, path: &str) -> std::io::Result<Answer> {
        ask(self.traffic().address, &self.host, path).await
    }

    /// Traffic to it.
    pub fn traffic(&self) -> ProbeOptions {
        self.machine.traffic(&self.host)
    }
}

/// What the routes of an app are asked for, in each of its environments.
fn host(app: &str, environment: &str) -> String {
    if environment == PRODUCTION { format!("{app}.example") } else { format!("{environment}.{app}.example") }
}
