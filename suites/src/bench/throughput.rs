//! The proxy beside nginx as a proxy: the same upstream, the same load generator, in turns.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cutover_host::ports::Router as _;
use cutover_host::router::proxy::ProxyRouter;
use cutover_routes::{Address, Entry, Route, RouteState, RouteTable, Target};
use cutover_testkit::site::Site;
use cutover_testkit::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::figures::ratios;
use super::idle::megabytes;
use super::kernel;
use super::sheet::Section;

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 64;
const ROUND: Duration = Duration::from_secs(3);
const UP: Duration = Duration::from_secs(10);
const SIZES: [(&str, usize); 2] = [("1 KiB", 1024), ("64 KiB", 64 * 1024)];

pub(super) async fn measure() -> anyhow::Result<Section> {
    let mut section = Section::new("The proxy beside nginx as a proxy: HTTP/1.1, 64 connections kept alive");
    for program in ["nginx", "wrk"] {
        if !is_there(program) {
            section.not_run(format!("`{program}` is not installed"));
            return Ok(section);
        }
    }
    let site = Site::new()?;
    let upstream = Nginx::start(site.folder(), "upstream", &|address| serving(address))?;
    for (_, size) in SIZES {
        std::fs::write(site.folder().join(format!("upstream/{size}")), vec![b'x'; size])?;
    }
    upstream.is_up().await?;
    let nginx = Nginx::start(site.folder(), "proxy", &|address| proxying(address, upstream.address))?;
    nginx.is_up().await?;
    let ours = Ours::start(&site, upstream.address).await?;
    for (name, size) in SIZES {
        let path = format!("/{size}");
        // Each meets its files and its upstream once before it counts.
        for address in [ours.address, nginx.address] {
            load(address, &path, Duration::from_millis(500)).await?;
        }
        let (mut of_ours, mut of_nginx) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_ours.push(Load::of(ours.address, &[ours.pid()?], &path).await?);
            of_nginx.push(Load::of(nginx.address, &nginx.pids()?, &path).await?);
        }
        report(&mut section, name, &of_ours, &of_nginx);
    }
    Ok(section)
}

fn report(section: &mut Section, size: &str, ours: &[Load], nginx: &[Load]) {
    let each = |loads: &[Load], of: fn(&Load) -> f64| loads.iter().map(of).collect::<Vec<_>>();
    let rate: fn(&Load) -> f64 = |load| load.rate;
    section
        .row(
            format!("{size}: requests a second, over nginx's"),
            "×",
            &ratios(&each(ours, rate), &each(nginx, rate)),
        )
        .note("more is better; the goal is the proxy issue's");
    section.row("  cutover", "/s", &each(ours, rate));
    section.row("  nginx", "/s", &each(nginx, rate));
    for (name, unit, of) in FIGURES {
        section.row(format!("  {name}: cutover"), unit, &each(ours, of));
        section.row(format!("  {name}: nginx"), unit, &each(nginx, of));
    }
}

/// A figure of a round: its name, its unit, how it is read.
type Reading = (&'static str, &'static str, fn(&Load) -> f64);

const FIGURES: [Reading; 3] = [
    ("p99", "ms", |load| load.p99),
    ("processor for 100,000 requests", "s", |load| load.processor),
    ("resident memory under load", "MB", |load| load.memory),
];

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A package's server lies where an ordinary user's PATH may not lead.
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}

/// One round.
struct Load {
    rate: f64,
    p99: f64,
    processor: f64,
    memory: f64,
}

impl Load {
    async fn of(address: SocketAddr, pids: &[u32], path: &str) -> anyhow::Result<Self> {
        let look = || -> kernel::Look {
            pids.iter().filter_map(|pid| kernel::look(*pid)).fold(kernel::Look::default(), kernel::Look::and)
        };
        let before = look();
        let said = load(address, path, ROUND).await?;
        let after = look();
        let used = after.processor.saturating_sub(before.processor).as_secs_f64();
        Ok(Self {
            rate: said.rate,
            p99: said.p99,
            processor: used / said.requests * 100_000.0,
            memory: megabytes(after.pss),
        })
    }
}

/// What wrk says.
struct Said {
    rate: f64,
    p99: f64,
    requests: f64,
}

async fn load(address: SocketAddr, path: &str, time: Duration) -> anyhow::Result<Said> {
    let mut command = Command::new("wrk");
    let seconds = format!("{}s", time.as_secs().max(1));
    let connections = CONNECTIONS.to_string();
    command.args(["--threads", "1", "--connections", &connections, "--duration", &seconds, "--latency"]);
    command.arg(format!("http://{address}{path}")).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(time + UP, command.output()).await.context("wrk does not end")??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("wrk on {address}{path}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let field = |name: &str, number: usize| {
        let line = text.lines().map(str::trim).find(|line| line.contains(name));
        line.and_then(|line| line.split_whitespace().nth(number)).map(str::to_owned)
    };
    let read = || {
        Some(Said {
            rate: field("Requests/sec:", 1)?.parse().ok()?,
            p99: milliseconds(&field("99%", 1)?)?,
            requests: field("requests in", 0)?.parse().ok()?,
        })
    };
    read().with_context(|| format!("wrk said something else: {text}"))
}

/// `1.23ms`, `812.00us`, `1.02s`.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1_000.0)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// An nginx of our own, in the foreground.
struct Nginx {
    address: SocketAddr,
    child: Child,
}

impl Nginx {
    fn start(folder: &Path, name: &str, http: &dyn Fn(SocketAddr) -> String) -> anyhow::Result<Self> {
        let place = folder.join(name);
        std::fs::create_dir(&place)?;
        let address = free_address()?;
        let config = place.join("nginx.conf");
        std::fs::write(&config, http(address).replace("PLACE", &place.display().to_string()))?;
        let program = if Path::new("/usr/sbin/nginx").is_file() { "/usr/sbin/nginx" } else { "nginx" };
        let mut command = Command::new(program);
        command.arg("-p").arg(&place).arg("-c").arg(&config).args(["-g", "daemon off;"]);
        command.arg("-e").arg(place.join("error.log")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.kill_on_drop(true).spawn().context("nginx")?;
        Ok(Self { address, child })
    }

    async fn is_up(&self) -> anyhow::Result<()> {
        wait_until("nginx listens", UP, async || {
            tokio::net::TcpStream::connect(self.address).await.ok().map(drop)
        })
        .await?;
        Ok(())
    }

    /// Its master's and its workers'.
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let master = self.child.id().context("nginx has ended")?;
        Ok(kernel::children(master).into_iter().chain([master]).collect())
    }
}

impl Drop for Nginx {
    /// Its workers end with it only where it is asked to.
    fn drop(&mut self) {
        for pid in self.pids().unwrap_or_default() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL).unwrap_or_default();
            }
        }
    }
}

/// What both have: as many workers as processors, no log of requests, connections that last.
fn common(http: &str) -> String {
    format!(
        "user root;
worker_processes auto;
pid PLACE/pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path PLACE/body;
    proxy_temp_path PLACE/temp;
    fastcgi_temp_path PLACE/fastcgi;
    uwsgi_temp_path PLACE/uwsgi;
    scgi_temp_path PLACE/scgi;
{http}
}}
"
    )
}

fn serving(address: SocketAddr) -> String {
    common(&format!("    server {{ listen {address}; root PLACE; open_file_cache max=16; }}"))
}

fn proxying(address: SocketAddr, upstream: SocketAddr) -> String {
    common(&format!(
        "    upstream sample {{ server {upstream}; keepalive {CONNECTIONS}; keepalive_requests 100000000; }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://sample;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}"
    ))
}

/// Our proxy alone, with one route.
struct Ours {
    address: SocketAddr,
    child: Child,
}

impl Ours {
    async fn start(site: &Site, upstream: SocketAddr) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = site.command(&site.binaries().host);
        command.arg("proxy").env(cutover_core::variables::HTTP, address.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("the proxy")?;
        let router = ProxyRouter::new(site.layout());
        // It has just been started, and nothing keeps it that a router would wait for.
        let answers = async || router.read().await.ok();
        let found = wait_until("the proxy answers", UP, answers).await?;
        let target = Target { id: "upstream".to_owned(), address: Address::Tcp(upstream) };
        let route = Route {
            name: "upstream".to_owned(),
            hosts: Vec::new(),
            path: "/".to_owned(),
            strip: false,
            state: RouteState::Serving { targets: vec![target] },
        };
        let entry = Entry { routes: vec![route], ..Entry::default() };
        let mut table: RouteTable = found.table;
        table.owners.insert("bench/local".to_owned(), entry);
        router.replace(&found.hash, &table).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self { address, child })
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the proxy has ended")
    }
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn given_the_units_of_wrk_then_milliseconds_come_out() {
        assert_eq!(milliseconds("812.00us"), Some(0.812));
        assert_eq!(milliseconds("1.5ms"), Some(1.5));
        assert_eq!(milliseconds("1.02s"), Some(1_020.0));
        assert_eq!(milliseconds("fast"), None);
    }
}
