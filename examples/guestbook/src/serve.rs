//! `guestbook serve`: listens, serves, and when told to stop takes nothing new, finishes what is in flight, and ends.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::answer::{App, answer};
use crate::behaviour::{Behaviour, BehaviourError, Database};
use crate::pages::{PageError, Pages};
use crate::settings::{self, Identity, SettingsError};
use crate::store::{Store, StoreError};
use crate::streams::asked_to_stop;
use crate::{complain, say};

/// How long requests in flight may take after the stop; below the 10 s after which a supervisor usually kills.
const FINISH: Duration = Duration::from_secs(8);
/// A connection on which nothing was ever asked is given this long for a request that is on its way.
const FIRST_REQUEST: Duration = Duration::from_millis(250);
/// An idle keep-alive connection is closed after this.
const IDLE: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Behaviour(#[from] BehaviourError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
}

pub(crate) fn run() -> Result<ExitCode, ServeError> {
    let behaviour = Behaviour::load(Path::new("."))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(behaviour));
    // A blocked database must not keep the process; what is committed is committed.
    runtime.shutdown_background();
    ended
}

async fn serve(behaviour: Behaviour) -> Result<ExitCode, ServeError> {
    let mut stopping = stop_signal(&behaviour)?;
    if let Some(code) = before_listening(&behaviour, &mut stopping).await? {
        return Ok(code);
    }
    let app = Arc::new(open(behaviour, stopping.clone())?);
    let listener = listen(&app.behaviour).await?;
    tokio::select! {
        () = accept(&app, &listener, &mut stopping) => {}
        code = exit_by_itself(&app.behaviour) => return Ok(code),
    }
    finish(&app, listener).await?;
    Ok(ExitCode::SUCCESS)
}

/// True once SIGTERM or SIGINT came. Set up before anything else, so that no signal ends the process unheard.
fn stop_signal(behaviour: &Behaviour) -> Result<watch::Receiver<bool>, ServeError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, stopping) = watch::channel(false);
    let (ignore, delay) = (behaviour.ignore_stop, Duration::from_millis(behaviour.stop_delay_ms));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if !ignore {
                break;
            }
            say("told to stop; not listening to that");
        }
        sleep(delay).await;
        sender.send_replace(true);
    });
    Ok(stopping)
}

/// What a release does on purpose before it listens; a code when it ends here.
async fn before_listening(
    behaviour: &Behaviour,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<ExitCode>, ServeError> {
    if let Some(line) = &behaviour.log_at_start {
        complain(line);
    }
    for name in &behaviour.tells {
        complain(&format!("{name} is {}", settings::optional(name).unwrap_or_default()));
    }
    for name in &behaviour.requires {
        settings::required(name)?;
    }
    if behaviour.allocate_mib > 0 {
        // Written to, so that the pages are really taken; kept until the process ends.
        Vec::leak(vec![1_u8; behaviour.allocate_mib * 1024 * 1024]);
    }
    tokio::select! {
        () = sleep(Duration::from_millis(behaviour.start_delay_ms)) => {}
        () = asked_to_stop(stopping) => return Ok(Some(ExitCode::SUCCESS)),
    }
    Ok(behaviour.exit_at_start.map(|code| {
        complain(&format!("guestbook: behaviour.json says: exit with {code}"));
        ExitCode::from(code)
    }))
}

fn open(behaviour: Behaviour, stopping: watch::Receiver<bool>) -> Result<App, ServeError> {
    let here = Path::new(".");
    let store = match behaviour.database {
        Database::File => Store::open(&settings::database_file()?, here)?,
        Database::Memory => Store::in_memory(here)?,
    };
    Ok(App {
        identity: Identity::from_environment(),
        behaviour,
        store: Arc::new(store),
        pages: Pages::load(&here.join("pages"))?,
        peer_url: settings::peer_url(),
        started: Instant::now(),
        asked: AtomicU64::new(0),
        newest: watch::channel(0).0,
        stopping,
        tasks: TaskTracker::new(),
    })
}

async fn listen(behaviour: &Behaviour) -> Result<TcpListener, ServeError> {
    let host = behaviour.listen.map_or_else(settings::host, Ok)?;
    let port = behaviour.port.map_or_else(settings::port, Ok)?;
    let address = SocketAddr::new(host, port);
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    say(&format!("guestbook listens on {}", listener.local_addr()?));
    Ok(listener)
}

async fn accept(app: &Arc<App>, listener: &TcpListener, stopping: &mut watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = asked_to_stop(stopping) => return,
        };
        match accepted {
            Ok((stream, _client)) => {
                app.tasks.spawn(connection(Arc::clone(app), stream));
            }
            Err(error) => {
                complain(&format!("guestbook: cannot accept: {error}"));
                // Out of descriptors, most likely; some come free as connections end.
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(app: Arc<App>, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let mut stopping = app.stopping.clone();
    let was_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        was_asked.store(true, Ordering::Relaxed);
        answer(Arc::clone(&app), request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    // How a connection ends, by its client or by an error, changes nothing for the others.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = asked_to_stop(&mut stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    let ended = timeout(FIRST_REQUEST, connection.as_mut()).await.is_ok();
    if !ended && was_asked.load(Ordering::Relaxed) {
        connection.await.ok();
    }
}

/// After the stop: what the kernel has already accepted for us is served too, then the socket closes.
async fn finish(app: &Arc<App>, listener: TcpListener) -> Result<(), ServeError> {
    let listener = listener.into_std()?;
    while let Ok((stream, _client)) = listener.accept() {
        stream.set_nonblocking(true)?;
        app.tasks.spawn(connection(Arc::clone(app), TcpStream::from_std(stream)?));
    }
    drop(listener);
    app.tasks.close();
    match timeout(FINISH, app.tasks.wait()).await {
        Ok(()) => say("stopped: everything in flight was finished"),
        Err(_) => complain(&format!("guestbook: stopped with {} still in flight", app.tasks.len())),
    }
    Ok(())
}

async fn exit_by_itself(behaviour: &Behaviour) -> ExitCode {
    match behaviour.exit_after_ms {
        Some(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
        None => std::future::pending().await,
    }
    complain("guestbook: behaviour.json says: exit now");
    ExitCode::FAILURE
}
