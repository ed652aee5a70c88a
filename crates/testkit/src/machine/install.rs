//! What makes a server a host.

use super::server::Machine;
use crate::site::Binaries;
use crate::wait_until;

const PROGRAM: &str = "/usr/local/bin/cutover-host";
const UNIT: &str = "[Unit]
After=network.target docker.service
[Service]
ExecStart=/usr/local/bin/cutover-host up
KillMode=process
Restart=always
RestartSec=100ms
[Install]
WantedBy=multi-user.target
";

impl Machine {
    /// Puts `cutover-host` on it, with proxy and watch from now on and after each start of it.
    pub async fn install(&self, binaries: &Binaries) -> anyhow::Result<()> {
        self.put(&binaries.host, PROGRAM).await?;
        let unit = self.folder().join("cutover.service");
        std::fs::write(&unit, UNIT)?;
        self.put(&unit, "/etc/systemd/system/cutover.service").await?;
        self.exec(&["systemctl", "daemon-reload"]).await?;
        self.exec(&["systemctl", "enable", "--now", "cutover.service"]).await?;
        let address = self.traffic("").address;
        let listens = async || tokio::net::TcpStream::connect(address).await.ok();
        wait_until("the proxy listens", std::time::Duration::from_mins(1), listens).await?;
        Ok(())
    }
}
