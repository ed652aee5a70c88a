//! A proxy's place: the lock that makes it the only one of its root, and the sockets it listens on, inherited or bound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use cutover_core::layout::Layout;
use cutover_core::{defaults, variables};

use super::{UpError, port, sockets};
use crate::files;
use crate::host_file;
use crate::lock::{LockError, ProcessLock};
use crate::setup;

/// Between two tries to be the one that serves.
const AGAIN: Duration = Duration::from_millis(20);

/// What a proxy is started with. To be kept as long as it serves.
#[derive(Debug)]
pub struct ProxySeat {
    /// The sockets to take requests on.
    pub listeners: Vec<TcpListener>,
    _lock: ProcessLock,
}

impl ProxySeat {
    /// Takes the lock, and the sockets from the standard input where a supervisor put them, else binds `http`. What it listens on is then
    /// known to [`listeners`].
    ///
    /// # Errors
    /// When another proxy of this root is at work, or the addresses cannot be had.
    pub fn take(layout: &Layout, http: &[SocketAddr]) -> Result<Self, UpError> {
        let lock = lock(layout)?;
        let listeners = match sockets::take_over(std::io::stdin())? {
            Some(listeners) => listeners,
            None => listen(layout, http)?,
        };
        files::ensure_folder(layout.run(), 0o700)?;
        note(layout, &listeners)?;
        setup::ready(&listeners)?;
        Ok(Self { listeners, _lock: lock })
    }
}

/// The only proxy of its root. A unit of the init system waits for its turn: what serves now is about to end.
fn lock(layout: &Layout) -> Result<ProcessLock, UpError> {
    loop {
        match ProcessLock::take(layout, "proxy") {
            Err(LockError::Running { .. }) if std::env::var_os("NOTIFY_SOCKET").is_some() => {
                std::thread::sleep(AGAIN);
            }
            taken => return Ok(taken?),
        }
    }
}

/// The sockets of the proxy before: kept by the init system, or offered by a setup.
fn predecessors(layout: &Layout) -> Vec<TcpListener> {
    let kept = setup::inherited();
    if kept.is_empty() { setup::offered(layout).unwrap_or_default() } else { kept }
}

/// Listens where the proxy takes requests; what its predecessor listened on goes on without a break.
pub(super) fn listen(layout: &Layout, http: &[SocketAddr]) -> Result<Vec<TcpListener>, UpError> {
    matching(predecessors(layout), http)
}

/// A socket for each address: one that is there, else a new one. Those that nobody wants any more stop listening, whoever else has them open (the
/// init system, the descriptors it started us with): else they would go on taking in connections that nobody accepts.
fn matching(mut kept: Vec<TcpListener>, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, UpError> {
    let of = |address: &SocketAddr, kept: &[TcpListener]| {
        kept.iter().position(|listener| listener.local_addr().is_ok_and(|found| is_same(found, *address)))
    };
    let all = addresses.iter().map(|address| match of(address, &kept) {
        Some(place) => Ok(kept.swap_remove(place)),
        None => bind(*address),
    });
    let all = all.collect::<Result<Vec<_>, UpError>>()?;
    for unwanted in kept {
        rustix::net::shutdown(&unwanted, rustix::net::Shutdown::Both).map_err(std::io::Error::from)?;
    }
    Ok(all)
}

/// Without IPv6 on this machine its "every address" is IPv4's.
fn is_same(found: SocketAddr, wanted: SocketAddr) -> bool {
    found == wanted
        || (found.port() == wanted.port() && found.ip().is_unspecified() && wanted.ip().is_unspecified())
}

/// Where the proxy takes plain HTTP, by `CUTOVER_HTTP` (several with commas between), else by `host.yml`, else by the user's rights.
///
/// # Errors
/// When the variable holds something else than addresses, or `host.yml` cannot be used.
pub fn http_addresses(layout: &Layout) -> Result<Vec<SocketAddr>, UpError> {
    let given = std::env::var(variables::HTTP).ok().filter(|text| !text.trim().is_empty());
    let configured = configured_addresses(layout)?;
    given.map_or(Ok(configured), |text| parse(&text))
}

/// The same without the variable, which no unit has.
fn configured_addresses(layout: &Layout) -> Result<Vec<SocketAddr>, UpError> {
    let said = host_file::read(layout)?.http;
    if !said.is_empty() {
        Ok(said)
    } else if rustix::process::geteuid().is_root() {
        Ok(vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), defaults::HTTP)])
    } else {
        parse(defaults::HTTP_UNPRIVILEGED)
    }
}

/// Where these listen and the proxy of a unit would not.
///
/// # Errors
/// When `host.yml` cannot be used.
pub fn given_up_by_a_unit(layout: &Layout, listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, UpError> {
    let configured = configured_addresses(layout)?;
    let found = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    Ok(found.filter(|address| !configured.iter().any(|wanted| is_same(*address, *wanted))).collect())
}

fn parse(text: &str) -> Result<Vec<SocketAddr>, UpError> {
    let wrong = |found: &str| UpError::Address { what: variables::HTTP, found: found.to_owned() };
    text.split(',').map(str::trim).map(|address| address.parse().map_err(|_| wrong(address))).collect()
}

/// Binds all, or none. Without IPv6 on this machine its "every address" is IPv4's.
pub(super) fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, UpError> {
    addresses.iter().map(|address| bind(*address)).collect()
}

fn bind(address: SocketAddr) -> Result<TcpListener, UpError> {
    let without_six = |error: &std::io::Error| {
        error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
            && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    match sockets::bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if without_six(&error) => {
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(UpError::Taken { address, by: port::holder(address.port()) })
        }
        Err(error) => Err(UpError::Listen { address, error }),
    }
}

fn file(layout: &Layout) -> PathBuf {
    layout.run().join("listeners.json")
}

fn note(layout: &Layout, listeners: &[TcpListener]) -> Result<(), UpError> {
    let addresses: std::io::Result<Vec<SocketAddr>> = listeners.iter().map(TcpListener::local_addr).collect();
    let text = serde_json::to_vec(&addresses?).map_err(std::io::Error::from)?;
    Ok(files::replace(&file(layout), &text, 0o600)?)
}

/// Where the proxy listens, or listened last; empty: there never was one.
pub fn listeners(layout: &Layout) -> Vec<SocketAddr> {
    let read = || serde_json::from_slice(&std::fs::read(file(layout)).ok()?).ok();
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_may_be_given_and_nonsense_is_named() {
        assert_eq!(parse("127.0.0.1:80, [::1]:80").unwrap().len(), 2);
        let error = parse("127.0.0.1:80,localhost").unwrap_err().to_string();
        assert_eq!(error, "CUTOVER_HTTP is `localhost`: expected address:port, as in 127.0.0.1:8080");
    }

    #[test]
    fn without_the_variable_the_host_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        let write = |text: &str| std::fs::write(layout.host_file(), text).unwrap();

        write("http: ['127.0.0.1:8081', '[::1]:8081']\n");
        assert_eq!(http_addresses(&layout).unwrap().len(), 2);
        write("htpp: 127.0.0.1:8081\n");
        let error = http_addresses(&layout).unwrap_err();

        assert_eq!(error.exit(), cutover_core::exit::Exit::Configuration);
        assert!(error.to_string().contains("did you mean `http`?"), "{error}");
    }

    #[test]
    fn where_a_unit_would_not_listen_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        std::fs::create_dir_all(layout.state()).unwrap();
        let [kept, other] = [(); 2].map(|()| sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let [here, there] = [&kept, &other].map(|listener| listener.local_addr().unwrap());
        std::fs::write(layout.host_file(), format!("http: {here}\n")).unwrap();

        assert_eq!(given_up_by_a_unit(&layout, &[kept, other]).unwrap(), [there]);
    }

    #[test]
    fn what_is_kept_and_not_wanted_stops_listening_whoever_has_it_open() {
        let kept = [
            sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
            sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
        ];
        let [wanted, unwanted] = [&kept[0], &kept[1]].map(|listener| listener.local_addr().unwrap());
        let store: Vec<_> = kept.iter().map(|listener| listener.try_clone().unwrap()).collect();

        let listeners = matching(kept.into(), &[wanted]).unwrap();

        assert_eq!(listeners[0].local_addr().unwrap(), wanted);
        std::net::TcpStream::connect(wanted).unwrap();
        let refused = std::net::TcpStream::connect(unwanted).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        drop(store);
    }

    #[test]
    fn a_taken_port_says_by_whom() {
        let theirs = sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();

        let error = bind_all(&[theirs.local_addr().unwrap()]).unwrap_err();

        let ours = format!("(process {})", std::process::id());
        assert!(error.to_string().contains(&ours), "{error}");
        assert_eq!(error.next().len(), 2);
    }
}
