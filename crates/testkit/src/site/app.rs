//! An application as its developer has it: a git repository, and the command line in it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cutover_core::journal::LockHolder;
use cutover_core::names::{AppId, ReleaseId};
use cutover_core::verdict::Verdict;
use serde::Deserialize;

use super::{Site, Told};
use crate::guestbook::{self, Kind};
use crate::probe::ProbeOptions;

/// The name that the example's configuration has, and the host of its route.
const EXAMPLE: (&str, &str) = ("app: guestbook", "guestbook.localhost");
/// What the example's images are made from, unless told.
const EXAMPLE_BASE: &str = "${BASE_IMAGE:-scratch}";

/// An application in a repository of its own.
pub struct App<'a> {
    site: &'a Site,
    id: AppId,
    host: String,
    repository: PathBuf,
}

/// What is asked of `status --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub live: Option<LiveRelease>,
    pub lock: Option<LockHolder>,
    /// The newest run's verdict.
    pub last: Option<Verdict>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct LiveRelease {
    pub release: ReleaseId,
    pub subject: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    status: Option<Status>,
}

impl<'a> App<'a> {
    pub(super) fn new(site: &'a Site, id: AppId, repository: PathBuf, host: &str) -> anyhow::Result<Self> {
        std::fs::create_dir(&repository)?;
        let app = Self { site, id, host: host.to_owned(), repository };
        app.git(&["init", "--quiet", "."])?;
        std::fs::write(app.repository.join(".gitignore"), "web/guestbook\nbot/guestbook\n.env*\n")?;
        if site.kind() == Kind::Processes {
            app.add_to_env(&format!("BOT_LEDGER={}", app.ledger().display()))?;
        }
        Ok(app)
    }

    /// Writes its `.env`, which nobody else may read.
    pub fn write_env(&self, text: &str) -> anyhow::Result<()> {
        let env = self.env_file();
        std::fs::write(&env, text)?;
        Ok(std::fs::set_permissions(&env, std::os::unix::fs::PermissionsExt::from_mode(0o600))?)
    }

    fn env_file(&self) -> PathBuf {
        match self.id.environment.as_str() {
            "local" => self.repository.join(".env"),
            other => self.repository.join(format!(".env.{other}")),
        }
    }

    /// Adds a line to it.
    pub fn add_to_env(&self, line: &str) -> anyhow::Result<()> {
        let before = std::fs::read_to_string(self.env_file()).unwrap_or_default();
        self.write_env(&format!("{before}{line}\n"))
    }

    /// Its name and environment. On an engine, where all share one space of names, the name is of this site alone.
    pub fn id(&self) -> &AppId {
        &self.id
    }

    /// Where its bot leaves a line for each poll.
    pub fn ledger(&self) -> PathBuf {
        match self.site.docker() {
            None => self.site.folder().join(format!("{}.ledger", self.id.app)),
            Some(_) => self.volume("ledger").join("bot.jsonl"),
        }
    }

    /// The folder of one of its volumes.
    pub fn volume(&self, name: &str) -> PathBuf {
        let name = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        match self.site.docker() {
            None => self.site.layout().volume(&self.id, &name),
            Some(docker) => docker.volume(&self.id, &name),
        }
    }

    pub fn repository(&self) -> &Path {
        &self.repository
    }

    pub fn site(&self) -> &'a Site {
        self.site
    }

    /// Commits the guestbook's release `version`, with `edit` applied to its configuration.
    pub fn commit(&self, version: &str, edit: impl FnOnce(&str) -> String) -> anyhow::Result<()> {
        let binary = &self.site.binaries().guestbook;
        guestbook::lay_out(version, self.site.kind(), binary, &self.repository)
            .with_context(|| format!("the guestbook's {version} could not be laid out"))?;
        let file = self.repository.join("cutover.yml");
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, edit(&self.own(&text)))?;
        self.record(version)
    }

    /// A configuration with this application's name, host and base image in place of the example's.
    pub fn own(&self, text: &str) -> String {
        let own = text.replace(EXAMPLE.0, &format!("app: {}", self.id.app)).replace(EXAMPLE.1, &self.host);
        let own = self.site.remote.as_ref().map_or(own.clone(), |remote| remote.own(&own));
        match self.site.docker() {
            None => own,
            Some(docker) => own.replace(EXAMPLE_BASE, &format!("${{BASE_IMAGE:-{}}}", docker.base())),
        }
    }

    /// Commits whatever lies in the repository now.
    pub fn record(&self, subject: &str) -> anyhow::Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject])
    }

    fn git(&self, words: &[&str]) -> anyhow::Result<()> {
        git(&self.repository, words)
    }

    /// The command line, not yet started.
    pub fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = self.site.command(&self.site.binaries().cutover);
        command.current_dir(&self.repository).args(words);
        if let Some(remote) = &self.site.remote {
            remote.near(&mut command);
        }
        command
    }

    /// The command line, to its end.
    pub async fn cutover(&self, words: &[&str]) -> anyhow::Result<Told> {
        let _alone = self.site.alone_at_first().await;
        let told = self.site.run(self.command(words)).await?;
        if words.first() == Some(&"deploy") && told.exit == Some(0) {
            self.site.has_networks();
        }
        Ok(told)
    }

    /// Commits `version` as it stands in the example, and deploys it.
    pub async fn deploy(&self, version: &str) -> anyhow::Result<Told> {
        self.commit(version, str::to_owned)?;
        self.cutover(&["deploy"]).await
    }

    /// What `status --json` says.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let told = self.cutover(&["status", "--json"]).await?.expect(0)?;
        let line: Line = serde_json::from_str(told.output.lines().last().unwrap_or_default())
            .with_context(|| format!("not understood: {}", told.output))?;
        line.status.context("status said nothing")
    }

    /// The subject of the live release's commit: which version it is.
    pub async fn serving(&self) -> anyhow::Result<String> {
        let live = self.status().await?.live.context("nothing is live")?;
        Ok(live.subject.unwrap_or_default())
    }

    /// Traffic to it.
    pub fn traffic(&self) -> anyhow::Result<ProbeOptions> {
        self.site.traffic(&self.host)
    }
}

/// Git in a repository, as a developer whose own configuration has no say.
pub(crate) fn git(repository: &Path, words: &[&str]) -> anyhow::Result<()> {
    let mut command = std::process::Command::new("git");
    command.current_dir(repository).args(["-c", "user.name=A developer"]);
    command.args(["-c", "user.email=developer@example.com", "-c", "commit.gpgsign=false"]).args(words);
    let output = command.output().context("git is needed")?;
    if !output.status.success() {
        bail!("git {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
