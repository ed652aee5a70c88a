//! What happens to servers.

use tokio::process::Command;

use super::server::{Machine, docker, run};

/// What no longer comes through: it is dropped, nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Between it and those who deploy.
    Ssh,
    /// Between it and everybody.
    All,
}

impl Cut {
    fn coming(self) -> &'static [&'static str] {
        match self {
            Self::Ssh => &["PREROUTING", "-p", "tcp", "--dport", "22", "-j", "DROP"],
            Self::All => &["PREROUTING", "-i", "eth0", "-j", "DROP"],
        }
    }

    fn going(self) -> &'static [&'static str] {
        match self {
            Self::Ssh => &["OUTPUT", "-p", "tcp", "--sport", "22", "-j", "DROP"],
            Self::All => &["OUTPUT", "-o", "eth0", "-j", "DROP"],
        }
    }
}

impl Machine {
    /// In order: everything is told to end.
    pub async fn reboot(&self) -> anyhow::Result<()> {
        docker(&["restart", self.name()]).await?;
        self.until_up().await
    }

    /// Everything ends at once; what lies on its disk stays.
    pub async fn lose_power(&self) -> anyhow::Result<()> {
        docker(&["kill", self.name()]).await.map(drop)
    }

    /// It starts again, and lets in.
    pub async fn power_on(&self) -> anyhow::Result<()> {
        docker(&["start", self.name()]).await?;
        self.until_up().await
    }

    /// Nothing on it goes on; its network stays.
    pub async fn hang(&self) -> anyhow::Result<()> {
        docker(&["pause", self.name()]).await.map(drop)
    }

    /// It goes on, and knows nothing of the time between.
    pub async fn resume(&self) -> anyhow::Result<()> {
        docker(&["unpause", self.name()]).await.map(drop)
    }

    /// Its network is cut. A reboot mends it.
    pub async fn cut(&self, what: Cut) -> anyhow::Result<()> {
        self.filter("-I", what).await
    }

    /// It is as before.
    pub async fn mend(&self, what: Cut) -> anyhow::Result<()> {
        self.filter("-D", what).await
    }

    /// From without, by this machine's own packet filter: a bare server has none. Before the server's own rules have a say.
    async fn filter(&self, word: &str, what: Cut) -> anyhow::Result<()> {
        let process = docker(&["inspect", "--format", "{{.State.Pid}}", self.name()]).await?;
        for rule in [what.coming(), what.going()] {
            let mut command = Command::new("nsenter");
            command.args(["-t", &process, "-n", "iptables", "-w", "-t", "raw", word]).args(rule);
            run(command).await?;
        }
        Ok(())
    }
}
