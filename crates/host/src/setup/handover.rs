//! Listening sockets on their way from one proxy to the next: out of `cutover-host up` into the unit of systemd, and from there by systemd's
//! own store over every restart. No connection is lost: until somebody accepts it, it waits in the kernel's queue.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::place;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::system::{failed, run_within};
use super::{program, serving, units};
use crate::lock::ProcessLock;
use crate::up;

/// The socket by which a proxy is offered what another listens on.
pub const HANDOVER: &str = "handover.sock";
/// The first descriptor that systemd hands over.
const FIRST: i32 = 3;
/// For a proxy to end in order, and the next to be there.
pub(super) const LONG: Duration = Duration::from_secs(90);
/// For whoever offers sockets to give them: it does nothing else meanwhile.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Sockets that systemd kept for this process; empty: it has none.
pub fn inherited() -> Vec<TcpListener> {
    let kept = std::env::var("LISTEN_FDS").ok().filter(|_| is_for_us());
    let count = kept.and_then(|count| count.parse::<i32>().ok()).unwrap_or_default();
    let Ok(own) = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) else { return Vec::new() };
    (FIRST..FIRST + count).filter_map(|number| listener(&own, number)).collect()
}

/// Whether what the environment says of kept sockets is meant for this process, and not for one that started it.
fn is_for_us() -> bool {
    std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

/// The names under which systemd kept sockets for this process.
fn kept_names() -> BTreeSet<String> {
    let names = std::env::var("LISTEN_FDNAMES").ok().filter(|_| is_for_us()).unwrap_or_default();
    names.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A socket's name in systemd's store, in which there may be no colon.
fn name(listener: &TcpListener) -> io::Result<String> {
    Ok(format!("http-{}", listener.local_addr()?).replace(':', "."))
}

/// A descriptor of another process, if it is a listening socket of the network.
fn listener(process: &OwnedFd, number: i32) -> Option<TcpListener> {
    let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
    let listens = sockopt::socket_acceptconn(&socket).ok()?;
    let listener = TcpListener::from(socket);
    (listens && listener.local_addr().is_ok()).then_some(listener)
}

/// Sockets that a setup offers to the next proxy; `None`: nobody does.
pub fn offered(layout: &Layout) -> Option<Vec<TcpListener>> {
    let stream = UnixStream::connect(layout.run().join(HANDOVER)).ok()?;
    // Connected is before answered: whoever took the silence for a no would find its address taken, by the one who offers it.
    let patience = rustix::time::Timespec { tv_sec: ANSWER.as_secs().cast_signed(), tv_nsec: 0 };
    let mut answer = [PollFd::new(&stream, PollFlags::IN)];
    poll(&mut answer, Some(&patience)).ok()?;
    up::receive(&stream).ok()?
}

/// Tells systemd that this process serves, and lets it keep the sockets for the next one; those that nobody wants any more it gives up, or
/// they would take in connections that nobody accepts. Nobody to tell: nothing.
pub fn ready(listeners: &[TcpListener]) -> io::Result<()> {
    let Some(socket) = init_system()? else { return Ok(()) };
    let names = listeners.iter().map(name).collect::<io::Result<Vec<_>>>()?;
    for old in kept_names().iter().filter(|old| !names.contains(old)) {
        socket.send(format!("FDSTOREREMOVE=1\nFDNAME={old}\n").as_bytes())?;
    }
    for (listener, name) in listeners.iter().zip(names) {
        let sockets = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&sockets));
        let text = format!("FDSTORE=1\nFDNAME={name}\n");
        sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut rights, SendFlags::empty())?;
    }
    socket.send(b"READY=1\n").map(drop)
}

/// Where systemd listens to what a unit says of itself.
fn init_system() -> io::Result<Option<UnixDatagram>> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let socket = UnixDatagram::unbound()?;
    let text = name.to_string_lossy();
    match text.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?,
        None => socket.connect(PathBuf::from(&name))?,
    }
    Ok(Some(socket))
}

/// Starts units. What `cutover-host up` keeps is handed over: its sockets are offered to the proxy of the unit, which waits for its turn. Where the
/// units do not serve it gets them back, with the program of the folder `old`, which served with it.
pub(super) async fn start(
    layout: &Layout,
    names: &BTreeSet<String>,
    old: Option<&str>,
) -> Result<(), Failure> {
    let proxies = names.contains(place::PROXY_UNIT);
    let unit_runs = units::look(&[place::PROXY_UNIT]).await.values().any(|unit| unit.active);
    let served_before = ProcessLock::peek(layout, "proxy").is_some();
    let takes_over = proxies && !unit_runs && (served_before || up::is_up(layout));
    let offer = if takes_over { Offer::begin(layout) } else { None };
    if let Some(offer) = &offer {
        goes_on_everywhere(layout, &offer.listeners)?;
    }
    units::enable(names).await?;
    if !proxies && !names.contains(place::WATCH_UNIT) {
        return Ok(());
    }
    // From here on the units are there whatever becomes of us: they begin when the lock is free.
    let waits = async {
        if takes_over {
            return take_over(layout, old).await;
        }
        if !unit_runs {
            end_supervisor(layout).await?;
        }
        serving::serves(layout).await
    };
    let served = match offer {
        Some(offer) => tokio::select! {
            served = waits => served,
            () = offer.serve() => Err(failed("hand the sockets over")),
        },
        None => waits.await,
    };
    drop(std::fs::remove_file(layout.run().join(HANDOVER)));
    if served.is_err() && !served_before && !takes_over {
        // It would be tried for ever, and at the next boot come before what stands in its way now.
        units::disable(names).await;
    }
    served.map(|()| proved(layout))
}

/// What serves was told by `CUTOVER_HTTP` where to listen, perhaps, which no unit has: its clients would find nobody there.
fn goes_on_everywhere(layout: &Layout, listeners: &[TcpListener]) -> Result<(), Failure> {
    let given_up = up::given_up_by_a_unit(layout, listeners)
        .map_err(|error| failed("tell where the proxy is to listen").because(error.to_string()))?;
    if given_up.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = given_up.iter().map(ToString::to_string).collect();
    let (all, file) = (all.join(", "), layout.host_file());
    Err(Failure::new(
        Exit::Refused,
        format!("what serves now listens on {all}, where the unit's proxy would not"),
    )
    .because("a unit goes by host.yml; `CUTOVER_HTTP` does not reach it")
    .while_serving("what was serving goes on; what was changed before stays")
    .next(format!("write `http: [{}]` into {}, then run the same again", quoted(&given_up), file.display()))
    .next("or, where nobody needs it there: `cutover-host down` on the server first"))
}

fn quoted(addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().map(|address| format!("'{address}'")).collect::<Vec<_>>().join(", ")
}

async fn end_supervisor(layout: &Layout) -> Result<(), Failure> {
    let ended = up::end_supervisor(layout).await;
    ended.map(drop).map_err(|error| failed("end `cutover-host up`").because(error.to_string()))
}

/// Who serves is ended once the unit's proxy waits for its turn, and comes back where the units do not serve then.
async fn take_over(layout: &Layout, old: Option<&str>) -> Result<(), Failure> {
    let mut retired = None;
    let http = up::http_variable(layout);
    let served = async {
        serving::waits_for_its_turn().await?;
        retired = retire_unit(layout).await;
        end_supervisor(layout).await?;
        serving::serves(layout).await
    };
    match served.await {
        Ok(()) => Ok(()),
        Err(failure) => Err(give_back(layout, old, retired.as_deref(), http.as_deref(), failure).await),
    }
}

/// What was handed over goes back, while the sockets are still offered; gives the failure with what serves now. A step that fails keeps none
/// after it from being tried: the last one is that somebody serves.
async fn give_back(
    layout: &Layout,
    old: Option<&str>,
    unit: Option<&str>,
    http: Option<&str>,
    mut failure: Failure,
) -> Failure {
    let what = "start `cutover-host up` again";
    let mut steps = vec![units::take_away().await, old.map_or(Ok(()), program::link)];
    if let Some(unit) = unit {
        let enabled = run_within(what, &["systemctl", "enable", "--now", unit], LONG).await;
        if enabled.is_ok() {
            // It may take a moment to be who keeps them; past that it is started like any other.
            let begins = async {
                while !up::is_up(layout) {
                    tokio::time::sleep(LOOK).await;
                }
            };
            drop(tokio::time::timeout(ANSWER, begins).await);
        }
        steps.push(enabled.map(drop));
    }
    let started = up::ensure_up(layout, Path::new(place::LINK), http).await;
    // One that was never ended serves, whatever a start by us would come to.
    let serves = started.is_ok() || (up::is_up(layout) && is_at_work(layout).await);
    if let Err(error) = started {
        steps.push(Err(failed(what).because(error.to_string())));
    }
    for other in steps.into_iter().filter_map(Result::err) {
        failure.cause.push(other.what);
        failure.cause.extend(other.cause);
    }
    if serves {
        proved(layout);
        return failure.while_serving(
            "`cutover-host up` keeps proxy and watch as before, and what was serving goes on",
        );
    }
    failure
        .while_serving(
            "neither the units nor `cutover-host up` serve: instances run on, nobody passes requests to them",
        )
        .next("`cutover-host up` on the server starts proxy and watch once that is mended")
}

/// A unit of somebody's own that keeps `cutover-host up` would start it again: ours take its place. Gives its name.
async fn retire_unit(layout: &Layout) -> Option<String> {
    let pid = ProcessLock::peek(layout, "up")?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let named = groups.lines().filter_map(|line| line.rsplit('/').next());
    for unit in named.filter(|name| name.ends_with(".service")) {
        // One that a login started lies in sshd's unit, which is not to be touched.
        if serving::main_process(unit).await == Some(pid) {
            super::system::ask(&["systemctl", "disable", "--now", unit]).await;
            return Some(unit.to_owned());
        }
    }
    None
}

/// Whether one of those that serve executes another program than the link leads to, or it is not known whether what it leads to serves: an
/// upgrade broke off.
pub(super) fn is_outdated(layout: &Layout) -> bool {
    program::replaced(layout).is_some() || another_serves(layout)
}

/// Whether what serves is what it should be, and answers. Where nobody keeps proxy and watch there is nothing that should.
pub(super) async fn is_at_work(layout: &Layout) -> bool {
    let answers = async || tokio::net::UnixStream::connect(layout.proxy_socket()).await.is_ok();
    if up::is_up(layout) {
        return answers().await;
    }
    !units::are_installed(layout)
        || (serving::works(layout, place::PROXY_UNIT, "proxy").await
            && serving::works(layout, place::WATCH_UNIT, "watch").await
            && answers().await)
}

/// What was started anew serves: where nothing executes another program, the way back is needed no more.
fn proved(layout: &Layout) {
    if !another_serves(layout) {
        program::proved(layout);
    }
}

/// The same at the end of a setup, where no units serve: nothing is started anew there.
pub(super) fn proved_elsewhere(layout: &Layout) {
    if !units::are_installed(layout) {
        proved(layout);
    }
}

/// Who holds its lock has begun: one that systemd is still about to start executes systemd's own.
fn another_serves(layout: &Layout) -> bool {
    let Ok(linked) = std::fs::canonicalize(place::LINK) else { return false };
    let processes = ["up", "watch", "proxy"].map(|process| ProcessLock::peek(layout, process));
    executes_another(&linked, processes.into_iter().flatten())
}

fn executes_another(program: &Path, mut processes: impl Iterator<Item = u32>) -> bool {
    // One that is gone meanwhile, or is not ours to look at, says nothing.
    processes
        .any(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|executed| executed != program))
}

/// Proxy and watch go on with the program that the link leads to now.
pub(super) async fn renew(layout: &Layout) -> Result<(), Failure> {
    // Their files alone say nothing: units that were not started yet would wait for the one that serves.
    if !units::are_installed(layout) || up::is_up(layout) {
        return renew_supervisor(layout).await.map(|()| proved(layout));
    }
    let what = "restart proxy and watch";
    run_within(what, &["systemctl", "daemon-reload"], LONG).await?;
    run_within(what, &["systemctl", "restart", place::PROXY_UNIT, place::WATCH_UNIT], LONG).await?;
    serving::serves(layout).await.map(|()| proved(layout))
}

/// The same where `cutover-host up` keeps them: another takes its place, with its sockets.
async fn renew_supervisor(layout: &Layout) -> Result<(), Failure> {
    if !up::is_up(layout) {
        return Ok(());
    }
    let what = "start `cutover-host up` anew";
    let (offer, http) = (Offer::begin(layout), up::http_variable(layout));
    let waits = async {
        end_supervisor(layout).await?;
        let started = up::ensure_up(layout, Path::new(place::LINK), http.as_deref()).await;
        started.map(drop).map_err(|error| failed(what).because(error.to_string()))
    };
    let renewed = match offer {
        Some(offer) => tokio::select! {
            renewed = waits => renewed,
            () = offer.serve() => Err(failed("hand the sockets over")),
        },
        None => waits.await,
    };
    drop(std::fs::remove_file(layout.run().join(HANDOVER)));
    renewed
}

/// The sockets of the proxy that serves now, for whoever comes next.
struct Offer {
    socket: tokio::net::UnixListener,
    listeners: Vec<TcpListener>,
}

impl Offer {
    /// `None`: no proxy serves, or its sockets cannot be had.
    fn begin(layout: &Layout) -> Option<Self> {
        let pid = ProcessLock::peek(layout, "proxy")?;
        let listeners = listeners_of(pid);
        let path = layout.run().join(HANDOVER);
        drop(std::fs::remove_file(&path));
        let socket = UnixListener::bind(&path).ok()?;
        socket.set_nonblocking(true).ok()?;
        let socket = tokio::net::UnixListener::from_std(socket).ok()?;
        (!listeners.is_empty()).then_some(Self { socket, listeners })
    }

    /// Gives them to everybody who asks.
    async fn serve(&self) {
        while let Ok((stream, _)) = self.socket.accept().await {
            let sent = stream.into_std().and_then(|stream| up::send(&stream, &self.listeners));
            if let Err(error) = sent {
                tracing::warn!(%error, "sockets were not handed over");
            }
        }
    }
}

/// What a process listens on.
fn listeners_of(pid: u32) -> Vec<TcpListener> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Vec::new() };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|number| listener(&process, number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_offered_sockets_waits_until_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let offer = std::os::unix::net::UnixListener::bind(layout.run().join(HANDOVER)).unwrap();
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap()];

        let next = std::thread::spawn(move || offered(&layout));
        let (stream, _) = offer.accept().unwrap();
        up::send(&stream, &listeners).unwrap();

        let taken = next.join().unwrap().unwrap();
        assert_eq!(taken[0].local_addr().unwrap(), listeners[0].local_addr().unwrap());
    }

    #[test]
    fn an_offer_that_is_taken_back_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::under(folder.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let offer = std::os::unix::net::UnixListener::bind(layout.run().join(HANDOVER)).unwrap();

        let asked = layout.clone();
        let next = std::thread::spawn(move || offered(&asked).is_none());
        drop(offer.accept().unwrap());

        assert!(next.join().unwrap());
        drop(offer);
        assert!(offered(&layout).is_none());
    }

    #[test]
    fn who_executes_another_program_is_outdated_and_who_is_gone_says_nothing() {
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        let me = std::process::id();
        assert!(!executes_another(&own, [me, u32::MAX].into_iter()));
        assert!(executes_another(Path::new("/usr/local/lib/cutover/1/cutover-host"), [me].into_iter()));
    }
}
