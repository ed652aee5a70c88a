//! A function for each word.

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use cutover_core::exit::Exit;
use cutover_core::failure::Failure;
use cutover_core::layout::Layout;
use cutover_core::names::{AppId, RunId};
use cutover_host::host::Host;
use cutover_host::installation::{Installation, layout_from_environment};
use cutover_host::runtime::process;
use cutover_host::up::{self, ProxySeat, UpError};
use cutover_host::{program, run, session, setup, watch};
use cutover_proxy::{Limits, Options, ProxyError};
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Command;
use crate::tell;

type Outcome = Result<ExitCode, Failure>;

pub(crate) fn carry_out(command: Command, also: Option<run::Also>) -> Outcome {
    // A keeper is told all it needs by its folder.
    if let Command::Keep { folder } = command {
        return keep(&folder);
    }
    if let Command::Terminal { program, words } = &command {
        return Ok(terminal(program, words));
    }
    let layout = layout_from_environment().map_err(|error| {
        let failure = Failure::new(Exit::Failed, "the state on this host cannot be opened");
        error.next().into_iter().fold(failure.because(error.to_string()), Failure::next)
    });
    let layout = match (layout, &command) {
        // Who speaks with a session reads its frames.
        (Err(failure), Command::Session) => return refuse(failure),
        (layout, _) => layout?,
    };
    match command {
        Command::Up => up(&layout),
        Command::Down => down(&layout),
        Command::Session => session(layout),
        Command::Run { run, settle } => run_or_settle(layout, run, settle, also),
        Command::Backup => within(cutover_host::backup::main(layout)),
        Command::Handover => within(setup::handover(layout)),
        Command::Proxy => proxy(&layout),
        Command::Watch => watch(layout),
        Command::DeadMan { token, .. } => dead_man(&layout, token.as_deref()),
        Command::Keep { folder } => keep(&folder),
        Command::Terminal { program, words } => Ok(terminal(&program, &words)),
    }
}

/// Returns only where the program cannot be executed; the code is a shell's.
fn terminal(program: &Path, words: &[OsString]) -> ExitCode {
    // A signal that whoever started us ignores (a shell does so for what it puts in the background) would stay ignored in the program; one
    // that is heard here is as new there.
    let hears = event_loop().map(|runtime| {
        let _entered = runtime.enter();
        [SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()].map(signal)
    });
    drop(hears);
    let error = process::become_at_terminal(program, words);
    tell::line(&format!("{}: {error}", program.display()));
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

fn keep(folder: &Path) -> Outcome {
    let folder = std::path::absolute(folder).map_err(|error| system("find the instance's folder", &error))?;
    Ok(process::keep(&folder))
}

fn session(layout: Layout) -> Outcome {
    let runtime = LetGo(Some(event_loop()?));
    let serving = session::serve(layout, tokio::io::stdin(), tokio::io::stdout());
    let served = runtime.0.as_ref().map_or(Ok(()), |runtime| runtime.block_on(serving));
    served.map(|()| ExitCode::SUCCESS).map_err(|error| system("go on with the conversation", &error))
}

fn refuse(failure: Failure) -> Outcome {
    let exit = ExitCode::from(failure.exit.code());
    let said = event_loop()?.block_on(session::refuse(failure, tokio::io::stdout()));
    said.map(|()| exit).map_err(|error| system("go on with the conversation", &error))
}

fn run_or_settle(
    layout: Layout,
    run: Option<RunId>,
    settle: Option<AppId>,
    also: Option<run::Also>,
) -> Outcome {
    within(async {
        match (run, settle) {
            (Some(run), _) => run::main(layout, run, also).await,
            (None, Some(app)) => run::main_settle(layout, app, also).await,
            (None, None) => ExitCode::from(Exit::Usage.code()),
        }
    })
}

fn proxy(layout: &Layout) -> Outcome {
    Installation::open(layout).map_err(|error| {
        let failure = Failure::new(Exit::Failed, "the proxy was not started").because(error.to_string());
        error.next().into_iter().fold(failure, Failure::next)
    })?;
    let addresses =
        up::http_addresses(layout).map_err(|error| not_up("the proxy was not started", &error))?;
    let mut seat =
        ProxySeat::take(layout, &addresses).map_err(|error| not_up("the proxy was not started", &error))?;
    let options = Options {
        listeners: std::mem::take(&mut seat.listeners),
        control: layout.proxy_socket(),
        folder: layout.proxy(),
        limits: Limits::default(),
    };
    cutover_proxy::run(options).map(|()| ExitCode::SUCCESS).map_err(|error| no_proxy(&error))
}

fn watch(layout: Layout) -> Outcome {
    within(watch::run(layout))?.map(|()| ExitCode::SUCCESS).map_err(|error| {
        Failure::new(Exit::Failed, "this host is not watched")
            .because(error.to_string())
            .while_serving("what was serving goes on; what crashes is not brought back")
    })
}

fn dead_man(layout: &Layout, token: Option<&str>) -> Outcome {
    within(setup::expire(layout, token))?.map(|()| ExitCode::SUCCESS)
}

fn up(layout: &Layout) -> Outcome {
    let kept = within(up::run(layout, &program::own()))?;
    kept.map(|()| ExitCode::SUCCESS).map_err(|error| not_up("proxy and watch are not kept", &error))
}

fn down(layout: &Layout) -> Outcome {
    let stopped = within(async {
        let host = Host::open(layout.clone())
            .await
            .map_err(|error| Failure::new(Exit::Failed, "nothing was stopped").because(error.to_string()))?;
        let stopped = up::down(layout, host.ports.process.as_ref()).await;
        if stopped.is_ok() {
            up::remove_edge(&host).await;
        }
        stopped.map_err(|error| not_up("not everything was stopped", &error))
    })??;
    let instances = stopped.instances.iter().map(|(app, name)| format!("{name} of {app}"));
    let all: Vec<String> =
        stopped.processes.iter().map(|process| (*process).to_owned()).chain(instances).collect();
    tell::line(&if all.is_empty() {
        "nothing was running".to_owned()
    } else {
        format!("stopped: {}", all.join(", "))
    });
    Ok(ExitCode::SUCCESS)
}

/// One thread: what these processes wait for is others.
fn event_loop() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| system("begin", &error))
}

/// An event loop that nobody waits for once it is dropped, also by a panic: a thread of its may wait on standard input for ever, and the
/// client, who has no answer, for us.
struct LetGo(Option<tokio::runtime::Runtime>);

impl Drop for LetGo {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn within<F: Future>(work: F) -> Result<F::Output, Failure> {
    Ok(event_loop()?.block_on(work))
}

fn system(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cutover-host could not {what}"))
        .because(error.to_string())
        .while_serving("what was serving goes on")
}

fn not_up(what: &str, error: &UpError) -> Failure {
    let exit = if matches!(error, UpError::HostFile(_)) { Exit::Configuration } else { Exit::Failed };
    let failure = Failure::new(exit, what).because(error.to_string());
    error.next().into_iter().fold(failure, Failure::next)
}

fn no_proxy(error: &ProxyError) -> Failure {
    Failure::new(Exit::Failed, "the proxy does not serve")
        .because(error.to_string())
        .while_serving("no route is served by this proxy; instances go on")
}
