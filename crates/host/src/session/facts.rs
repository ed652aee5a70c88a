//! The machine as it is, looked at without an installation: a fresh host has none, and asking makes none.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::layout::Layout;
use cutover_core::names::AppId;
use cutover_core::wire::{
    EngineFacts, FoundFolder, FoundPort, HostFacts, OpenFile, PortHolder, Reply, TableFile,
};
use cutover_engine::{Engine, Product};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::Stop;
use super::serve::Session;
use crate::ports::Router as _;
use crate::router::proxy::ProxyRouter;
use crate::{listening, up};

/// Rights of the group and of others.
const OTHERS: u32 = 0o077;
/// For the engine to say what it is.
const ENGINE: Duration = Duration::from_secs(5);

impl<R, W> Session<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    pub(super) async fn facts(&mut self, app: &AppId) -> Result<(), Stop> {
        let facts = Box::new(facts(&self.layout, app).await);
        Ok(self.outgoing.send(&Reply::Facts { facts }).await?)
    }
}

async fn facts(layout: &Layout, app: &AppId) -> HostFacts {
    let (engine, data) = engine().await;
    let served = ProxyRouter::new(layout.clone()).read().await.ok();
    let (ports, host_file_trouble) = match up::http_addresses(layout) {
        Ok(addresses) => (ports(layout, addresses, served.is_some()), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let folders = [
        ("state", layout.state().to_owned()),
        ("snapshots", layout.backups().to_owned()),
        ("logs", layout.logs().to_owned()),
    ];
    let engine_data = data.map(|folder| ("images and volumes of the engine", folder));
    HostFacts {
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        system: system(),
        root: rustix::process::geteuid().is_root(),
        folders: folders
            .into_iter()
            .chain(engine_data)
            .filter_map(|(what, path)| folder(what, &path))
            .collect(),
        open_files: open_files(layout, app),
        engine_trouble: engine.as_ref().err().cloned(),
        engine: engine.ok(),
        ports,
        host_file_trouble,
        proxy: served.is_some(),
        table_file: served.map_or(TableFile::Unknown, |served| table_file(layout, &served.table)),
        supervised: up::is_up(layout) || unit_is_active("cutover-proxy.service"),
        lingers: lingers(),
        firewall_gone: *layout == Layout::system() && crate::setup::firewall_is_gone().await,
        addresses: addresses(),
    }
}

async fn engine() -> (Result<EngineFacts, String>, Option<PathBuf>) {
    let asked = async {
        let engine = Engine::connect().await.map_err(|error| error.to_string())?;
        engine.info().await.map_err(|error| error.to_string())
    };
    let late = |_| Err(format!("it does not answer within {} s", ENGINE.as_secs()));
    match tokio::time::timeout(ENGINE, asked).await.unwrap_or_else(late) {
        Err(error) => (Err(error), None),
        Ok(info) => {
            let name = match info.product {
                Product::Docker => "Docker",
                Product::Podman => "Podman",
            };
            let facts = EngineFacts {
                name: name.to_owned(),
                version: info.version,
                storage_driver: info.storage_driver,
                limits_memory: info.limits_memory,
            };
            (Ok(facts), Some(info.data_folder).filter(|folder| folder.is_dir()))
        }
    }
}

fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| std::env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The folder, or the nearest one above it that is there: what is made will lie on its disk.
fn folder(what: &str, path: &Path) -> Option<FoundFolder> {
    let there = path.ancestors().find(|folder| folder.is_dir())?;
    let figures = rustix::fs::statvfs(there).ok()?;
    let mode = fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o7777);
    Some(FoundFolder {
        what: what.to_owned(),
        path: path.display().to_string(),
        mode,
        free: figures.f_bavail.saturating_mul(figures.f_frsize),
        size: figures.f_blocks.saturating_mul(figures.f_frsize),
        inodes_free: figures.f_favail,
        inodes: figures.f_files,
    })
}

/// The env files of an app and of its releases, and the salt, where others may read them.
fn open_files(layout: &Layout, app: &AppId) -> Vec<OpenFile> {
    let releases = fs::read_dir(layout.app(app).join("releases")).into_iter().flatten().flatten();
    let of_releases = releases.map(|release| release.path().join("env"));
    let files = [layout.env_file(app), layout.installation()].into_iter().chain(of_releases);
    let open = files.filter_map(|path| {
        let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o7777;
        (mode & OTHERS != 0).then(|| OpenFile { path: path.display().to_string(), mode })
    });
    open.collect()
}

/// Where the proxy listens, else where it would and who is there.
fn ports(layout: &Layout, wanted: Vec<std::net::SocketAddr>, proxy: bool) -> Vec<FoundPort> {
    if proxy {
        let ours = up::listeners(layout).into_iter();
        return ours.map(|address| FoundPort { address, by: PortHolder::Ours }).collect();
    }
    let taken = listening::ports();
    let by = |port: u16| {
        let is_taken = taken.contains(&port);
        if is_taken { PortHolder::Other { name: up::port::holder(port) } } else { PortHolder::Nobody }
    };
    wanted.into_iter().map(|address| FoundPort { address, by: by(address.port()) }).collect()
}

/// Whether a proxy that starts would serve what is served.
fn table_file(layout: &Layout, served: &cutover_routes::RouteTable) -> TableFile {
    let Ok(bytes) = fs::read(layout.proxy().join("table.json")) else {
        return if served.owners.is_empty() { TableFile::Unknown } else { TableFile::Other };
    };
    // The proxy puts a checksum in the first line.
    let text = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
    match cutover_routes::RouteTable::from_json(text) {
        Ok(table) if cutover_routes::TableHash::of(&table) == cutover_routes::TableHash::of(served) => {
            TableFile::Served
        }
        _ => TableFile::Other,
    }
}

/// Whether systemd has the unit among those it runs; its control group is there for as long as it does.
fn unit_is_active(unit: &str) -> bool {
    ["/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice"]
        .iter()
        .any(|slice| Path::new(slice).join(unit).is_dir())
}

fn lingers() -> Option<bool> {
    if rustix::process::geteuid().is_root() || !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok()?;
    Some(Path::new("/var/lib/systemd/linger").join(user).exists())
}

/// As the kernel lists them.
fn addresses() -> Vec<IpAddr> {
    let old = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let new = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut all: Vec<IpAddr> = local_v4(&old).into_iter().map(IpAddr::V4).collect();
    all.extend(local_v6(&new).into_iter().map(IpAddr::V6));
    all.retain(|address| !address.is_loopback());
    all.sort_unstable();
    all.dedup();
    all
}

/// An address stands on the line before the one that calls it local.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let lines: Vec<&str> = trie.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].starts_with("/32 host LOCAL"));
    local.filter_map(|pair| pair[0].rsplit(' ').next()?.parse().ok()).collect()
}

fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    let digits = table.lines().filter_map(|line| line.split_whitespace().next());
    digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok()).map(Ipv6Addr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_lists_them() {
        let trie =
            "     |-- 172.17.0.0\n        /16 link UNICAST\n     |-- 172.17.0.2\n        /32 host LOCAL\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(172, 17, 0, 2)]);
        let table = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert_eq!(local_v6(table), ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]);
    }

    #[tokio::test]
    async fn a_look_at_a_fresh_machine_makes_nothing_and_tells_open_files() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(&folder.path().join("root"));
        let app: AppId = "shop/local".parse().unwrap();
        let fresh = facts(&layout, &app).await;
        assert!(!layout.state().exists());
        assert!(!fresh.proxy && fresh.folders.iter().all(|folder| folder.size > 0 && folder.free > 0));
        let file = layout.env_file(&app);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "TOKEN=hunter2\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let open = facts(&layout, &app).await.open_files;
        assert_eq!(open, [OpenFile { path: file.display().to_string(), mode: 0o640 }]);
    }
}
