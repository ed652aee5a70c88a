//! What serves goes over from one keeper to the next: out of `cutover-host up` into the units of systemd, or to the next program. Carried out by a
//! process of its own (`apart`): no session, and no client, is waited for between the end of the one and the begin of the other.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::setup::{self, place};

use super::sockets::{self, Offer};
use super::system::{failed, run_within};
use super::{program, serving, units};
use crate::lock::ProcessLock;
use crate::up;

/// For a proxy to end in order, and the next to be there.
pub(super) const LONG: Duration = Duration::from_secs(90);
/// For a unit of somebody's own to be who keeps proxy and watch again.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(20);

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
    let offer = if takes_over {
        let listeners = sockets::of_the_proxy(layout);
        goes_on_everywhere(layout, &listeners)?;
        offer(layout, listeners)?
    } else {
        None
    };
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
    let served = waits.await;
    // Until somebody serves.
    drop(offer);
    if served.is_err() && !served_before && !takes_over {
        // It would be tried for ever, and at the next boot come before what stands in its way now.
        units::disable(names).await;
    }
    served.map(|()| proved(layout))
}

/// The sockets, for whoever comes next; `None`: there are none.
fn offer(layout: &Layout, listeners: Vec<TcpListener>) -> Result<Option<Offer>, Failure> {
    if listeners.is_empty() { Ok(None) } else { Offer::of(layout, listeners).map(Some) }
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
    nobody_serves(failure, "neither the units nor `cutover-host up` serve")
}

fn nobody_serves(failure: Failure, who: &str) -> Failure {
    failure
        .while_serving(format!("{who}: instances run on, nobody passes requests to them"))
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

/// Whether anybody sees to it that proxy and watch are there.
pub(super) fn is_kept(layout: &Layout) -> bool {
    up::is_up(layout) || units::are_installed(layout)
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

/// Proxy and watch go on with the program that the link leads to now, `new`; where it does not serve, with the one before, if that is known.
pub(super) async fn renew(layout: &Layout, old: Option<&str>, new: &str) -> Result<(), Failure> {
    // Their files alone say nothing: units that were not started yet would wait for the one that serves.
    let renewed = if up::is_up(layout) {
        let listeners = sockets::of_the_proxy(layout);
        if units::are_installed(layout) {
            // A setup was refused, or broke off: from here on the units have proxy and watch.
            goes_on_everywhere(layout, &listeners)?;
        }
        // Until one of the two serves.
        let _offer = offer(layout, listeners)?;
        let http = up::http_variable(layout);
        or_go_back(layout, old, new, async || supervisor_anew(layout, http.as_deref()).await).await
    } else if units::are_installed(layout) {
        or_go_back(layout, old, new, async || units_anew(layout).await).await
    } else if let Some(kept) = program::kept_up(layout) {
        // The one that was to hand it over has died, and nobody else would start it.
        or_go_back(layout, old, new, async || supervisor_anew(layout, kept.http.as_deref()).await).await
    } else {
        Ok(())
    };
    renewed.map(|()| proved(layout))
}

/// By the way that starts what the link leads to.
async fn or_go_back(
    layout: &Layout,
    old: Option<&str>,
    new: &str,
    anew: impl AsyncFn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Err(failure) = anew().await else { return Ok(()) };
    let Some(old) = old.filter(|old| *old != new) else {
        return Err(if is_kept(layout) && is_at_work(layout).await {
            failure
        } else {
            nobody_serves(failure, &format!("cutover-host {new} does not serve"))
        });
    };
    let back = async {
        program::link(old)?;
        anew().await
    };
    Err(match back.await {
        Ok(()) => failure
            .while_serving(format!(
                "proxy and watch go on with cutover-host {old}, and what was serving with them"
            ))
            .next(format!(
                "the new one lies in {}: see what keeps it from serving, then try again",
                setup::program(new)
            )),
        Err(other) => {
            let mut failure = nobody_serves(failure, &format!("neither cutover-host {new} nor {old} serves"));
            failure.cause.push(other.what);
            failure.cause.extend(other.cause);
            failure
        }
    })
}

async fn units_anew(layout: &Layout) -> Result<(), Failure> {
    let what = "restart proxy and watch";
    run_within(what, &["systemctl", "daemon-reload"], LONG).await?;
    run_within(what, &["systemctl", "restart", place::PROXY_UNIT, place::WATCH_UNIT], LONG).await?;
    serving::serves(layout).await
}

/// Another `cutover-host up` takes the place of the one that keeps them.
async fn supervisor_anew(layout: &Layout, http: Option<&str>) -> Result<(), Failure> {
    end_supervisor(layout).await?;
    let started = up::ensure_up(layout, Path::new(place::LINK), http).await;
    started.map(drop).map_err(|error| failed("start `cutover-host up` anew").because(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_executes_another_program_is_outdated_and_who_is_gone_says_nothing() {
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        let me = std::process::id();
        assert!(!executes_another(&own, [me, u32::MAX].into_iter()));
        assert!(executes_another(Path::new("/usr/local/lib/cutover/1/cutover-host"), [me].into_iter()));
    }
}
