//! What happens to a deploy, its client, or its server.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use cutover_testkit::machine::{Cut, Machine, Part};
use rustix::process::{Pid, Signal, kill_process};

use super::moment::Followed;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ClientKilled,
    /// Between client and server everything is dropped, until the client has noticed.
    NetworkCut,
    SshdKilled,
    RunKilled,
    ProxyKilled,
    EngineRestarted,
    PowerLost,
    /// Nothing on the server goes on, until the client has noticed.
    Hung,
}

/// Lets a run go on that stopped itself.
const GO_ON: &str = r#"for process in /proc/[0-9]*; do
    if tr '\0' ' ' <"$process/cmdline" | grep -q '^[^ ]*cutover-host run '; then kill -CONT "${process#/proc/}"; fi
done 2>/dev/null
true"#;

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::ClientKilled,
        Self::NetworkCut,
        Self::SshdKilled,
        Self::RunKilled,
        Self::ProxyKilled,
        Self::EngineRestarted,
        Self::PowerLost,
        Self::Hung,
    ];

    /// Whether nobody can be answered meanwhile, whoever serves.
    pub fn takes_the_server_down(self) -> bool {
        matches!(self, Self::PowerLost | Self::Hung)
    }

    /// Whether only the way between client and server is concerned, of which a run needs nothing once it began (P7).
    pub fn is_of_the_client(self) -> bool {
        matches!(self, Self::ClientKilled | Self::NetworkCut | Self::SshdKilled)
    }

    /// Lets it happen; gives the client's exit code, and how long it took the client to notice where it had to.
    pub(super) async fn strike(self, machine: &Machine, mut deploy: Followed) -> anyhow::Result<Ended> {
        let began = Instant::now();
        match self {
            Self::ClientKilled => {
                kill(&deploy);
                go_on(machine).await?;
            }
            Self::NetworkCut => {
                machine.cut(Cut::Ssh).await?;
                go_on(machine).await?;
                let ended = Ended::of(deploy, began).await?;
                machine.mend(Cut::Ssh).await?;
                return Ok(ended);
            }
            Self::SshdKilled => {
                machine.kill(|one| one.words.contains("sshd")).await?;
                go_on(machine).await?;
                machine.until_up().await?;
            }
            Self::RunKilled => {
                machine.kill(|one| one.is(Part::Run)).await?;
            }
            Self::ProxyKilled => {
                machine.kill(|one| one.is(Part::Proxy)).await?;
                let gone = SystemTime::now();
                go_on(machine).await?;
                return Ok(Ended { proxy_gone: Some(gone), ..Ended::of(deploy, began).await? });
            }
            Self::EngineRestarted => {
                // Systemd counts how often it was asked to start it, and takes a third time within a minute for a failure.
                machine.exec(&["systemctl", "reset-failed", "docker"]).await?;
                machine.exec(&["systemctl", "restart", "--no-block", "docker"]).await?;
                go_on(machine).await?;
                machine.exec(&["systemctl", "restart", "docker"]).await?;
            }
            Self::PowerLost => {
                machine.lose_power().await?;
                machine.power_on().await?;
            }
            Self::Hung => {
                machine.hang().await?;
                let noticed = deploy.client.wait();
                tokio::time::timeout(NOTICES, noticed).await??;
                let noticed = began.elapsed();
                machine.resume().await?;
                go_on(machine).await?;
                let ended = Ended::of(deploy, began).await?;
                return Ok(Ended { noticed: Some(noticed), ..ended });
            }
        }
        Ended::of(deploy, began).await
    }
}

/// For a client to notice that nobody is there any more.
const NOTICES: Duration = Duration::from_mins(1);
/// For a client to end.
const END: Duration = Duration::from_mins(3);

/// How a client ended.
pub(super) struct Ended {
    /// None: killed.
    pub(super) exit: Option<i32>,
    pub(super) said: String,
    /// How long after the fault.
    pub(super) noticed: Option<Duration>,
    /// From when on the proxy that was killed is gone: what began later was not inside it.
    pub(super) proxy_gone: Option<SystemTime>,
}

impl Ended {
    async fn of(deploy: Followed, began: Instant) -> anyhow::Result<Self> {
        let (exit, said) = deploy.end(END).await?;
        Ok(Self { exit, said, noticed: Some(began.elapsed()), proxy_gone: None })
    }
}

fn kill(deploy: &Followed) {
    let pid = deploy.client.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        kill_process(pid, Signal::KILL).unwrap_or_default();
    }
}

async fn go_on(machine: &Machine) -> anyhow::Result<()> {
    machine.exec(&["sh", "-c", GO_ON]).await.map(drop)
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::ClientKilled => "client killed",
            Self::NetworkCut => "network cut",
            Self::SshdKilled => "sshd killed",
            Self::RunKilled => "run killed",
            Self::ProxyKilled => "proxy killed",
            Self::EngineRestarted => "engine restarted",
            Self::PowerLost => "power lost",
            Self::Hung => "hung",
        })
    }
}
