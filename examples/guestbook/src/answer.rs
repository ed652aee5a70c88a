//! A request to its answer. Every answer carries `x-app-release`, so that whoever counts can tell the app's own
//! answers from those of anything in between.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::behaviour::Behaviour;
use crate::entry_form::{EntryForm, FormError};
use crate::pages::{PageError, Pages, Value, Values};
use crate::peer::{self, PeerError};
use crate::settings::Identity;
use crate::store::{Row, Store, StoreError};
use crate::{complain, streams};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

const RELEASE_HEADER: HeaderName = HeaderName::from_static("x-app-release");
/// Largest body of a posted entry, in bytes.
const LARGEST_BODY: usize = 64 * 1024;
/// Entries on the page, and in one answer of `/entries.json`.
const ON_THE_PAGE: i64 = 50;
const IN_ONE_ANSWER: i64 = 1_000;

/// What all requests of this instance share.
pub(crate) struct App {
    pub(crate) identity: Identity,
    pub(crate) behaviour: Behaviour,
    pub(crate) store: Arc<Store>,
    pub(crate) pages: Pages,
    pub(crate) peer_url: Option<String>,
    pub(crate) started: Instant,
    /// Pages asked for so far.
    pub(crate) asked: AtomicU64,
    /// Newest entry that this instance added; wakes the event streams.
    pub(crate) newest: watch::Sender<i64>,
    /// True from the moment the instance is told to stop.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Whatever must have ended before the instance does.
    pub(crate) tasks: TaskTracker,
}

impl App {
    /// `SQLite` blocks; it does so beside the loop that serves.
    pub(crate) async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|_| StoreError::CutOff)?
    }
}

#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error("there is nothing at {0}")]
    NotFound(String),
    #[error("{0} is not allowed here")]
    WrongMethod(Method),
    #[error("Invalid host header: {0}")]
    WrongHost(String),
    #[error("the body cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Form(#[from] FormError),
    #[error("`{0}` is not a number")]
    Number(String),
    #[error("behaviour.json says so")]
    OnPurpose(StatusCode),
    #[error("this is no WebSocket handshake")]
    NoHandshake,
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AnswerError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(cause) if cause.is::<LengthLimitError>() => StatusCode::PAYLOAD_TOO_LARGE,
            Self::WrongHost(_) | Self::Body(_) | Self::Form(_) | Self::Number(_) | Self::NoHandshake => {
                StatusCode::BAD_REQUEST
            }
            Self::OnPurpose(status) => *status,
            Self::Peer(_) => StatusCode::BAD_GATEWAY,
            Self::Page(_) | Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

pub(crate) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut response = match respond(&app, request).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    };
    if let Ok(release) = HeaderValue::from_str(&app.identity.release) {
        response.headers_mut().insert(RELEASE_HEADER, release);
    }
    Ok(response)
}

async fn respond(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, AnswerError> {
    if app.behaviour.silent {
        std::future::pending::<()>().await;
    }
    check_host(app, request.headers())?;
    let path = request.uri().path().to_owned();
    if !matches!(path.as_str(), "/health" | "/version") {
        misbehave(app).await?;
    }
    match (method(&request), path.as_str()) {
        (Method::GET, "/") => index(app).await,
        (Method::GET, "/entries.json") => entries(app, request.uri().query()).await,
        (Method::POST, "/entries") => add(app, request).await,
        (Method::GET, "/health") => health(app).await,
        (Method::GET, "/version") => Ok(json_answer(StatusCode::OK, &version(app).await?)),
        (Method::GET, "/slow") => Ok(streams::slow(number(request.uri().query(), "ms")?.unwrap_or(1_000))),
        (Method::GET, "/events") => events(app, &request).await,
        (Method::GET, "/socket") => streams::socket(app, request).ok_or(AnswerError::NoHandshake),
        (Method::GET, "/peer") => ask_peer(app).await,
        (Method::GET, other) => page(app, other.trim_start_matches('/')),
        (method, _) => Err(AnswerError::WrongMethod(method)),
    }
}

/// HEAD is answered as GET; the server leaves the body out.
fn method(request: &Request<Incoming>) -> Method {
    if request.method() == Method::HEAD { Method::GET } else { request.method().clone() }
}

fn check_host(app: &App, headers: &HeaderMap) -> Result<(), AnswerError> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if app.behaviour.refuses_host(host) {
        return Err(AnswerError::WrongHost(host.to_owned()));
    }
    Ok(())
}

async fn misbehave(app: &App) -> Result<(), AnswerError> {
    let asked = app.asked.fetch_add(1, Ordering::Relaxed) + 1;
    if app.behaviour.fails(asked, app.started.elapsed()) {
        return Err(AnswerError::OnPurpose(StatusCode::INTERNAL_SERVER_ERROR));
    }
    if app.behaviour.slow_ms > 0 {
        tokio::time::sleep(Duration::from_millis(app.behaviour.slow_ms)).await;
    }
    Ok(())
}

async fn index(app: &Arc<App>) -> Result<Response<Body>, AnswerError> {
    let rows = app.with_store(|store| store.latest(ON_THE_PAGE)).await?;
    let mut list = String::new();
    for row in &rows {
        list.push_str(&app.pages.render("entry", &row_values(row))?);
    }
    let mut values = own_values(app);
    values.insert("count".into(), Value::Text(rows.len().to_string()));
    values.insert("entries".into(), Value::Markup(list));
    Ok(text_answer(StatusCode::OK, "text/html; charset=utf-8", app.pages.render("index", &values)?))
}

fn page(app: &App, name: &str) -> Result<Response<Body>, AnswerError> {
    // Pieces of pages are no pages.
    if !app.pages.has(name) || matches!(name, "index" | "entry") {
        return Err(AnswerError::NotFound(format!("/{name}")));
    }
    let markup = app.pages.render(name, &own_values(app))?;
    Ok(text_answer(StatusCode::OK, "text/html; charset=utf-8", markup))
}

fn own_values(app: &App) -> Values {
    let or_dash = |value: &Option<String>| Value::Text(value.clone().unwrap_or_else(|| "-".to_owned()));
    Values::from([
        ("release".to_owned(), Value::Text(app.identity.release.clone())),
        ("version".to_owned(), or_dash(&app.identity.version)),
        ("slot".to_owned(), or_dash(&app.identity.slot)),
    ])
}

fn row_values(row: &Row) -> Values {
    let text = |value: &serde_json::Value| {
        Value::Text(value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
    };
    row.iter().map(|(column, value)| (column.clone(), text(value))).collect()
}

async fn entries(app: &Arc<App>, query: Option<&str>) -> Result<Response<Body>, AnswerError> {
    let after = number(query, "after")?.unwrap_or(0);
    let rows = app
        .with_store(move |store| store.after(i64::try_from(after).unwrap_or(i64::MAX), IN_ONE_ANSWER))
        .await?;
    Ok(json_answer(StatusCode::OK, &json!({ "entries": rows })))
}

async fn add(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<Body>, AnswerError> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await.map_err(AnswerError::Body)?.to_bytes();
    let form = EntryForm::parse(head.headers.get(CONTENT_TYPE), &body)?;
    let id = app.with_store(move |store| store.add(&form.name, &form.message)).await?;
    app.newest.send_if_modified(|newest| {
        let is_newer = id > *newest;
        *newest = id.max(*newest);
        is_newer
    });
    if is_browser(&head.headers) {
        return Ok(see_other("/"));
    }
    Ok(json_answer(StatusCode::CREATED, &json!({ "id": id })))
}

fn is_browser(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|kinds| kinds.contains("text/html"))
}

async fn health(app: &Arc<App>) -> Result<Response<Body>, AnswerError> {
    if let Some(status) = app.behaviour.health_status.and_then(|code| StatusCode::from_u16(code).ok()) {
        return Err(AnswerError::OnPurpose(status));
    }
    app.with_store(|store| store.latest(1)).await?;
    Ok(text_answer(StatusCode::OK, "text/plain", "ok\n".to_owned()))
}

async fn version(app: &Arc<App>) -> Result<serde_json::Value, AnswerError> {
    let schema = app.with_store(Store::schema_version).await?;
    let mut version = json!(app.identity);
    version["schema"] = schema.into();
    Ok(version)
}

async fn events(app: &Arc<App>, request: &Request<Incoming>) -> Result<Response<Body>, AnswerError> {
    let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = if let Some(id) = seen {
        id
    } else {
        let newest = app.with_store(|store| store.latest(1)).await?;
        newest.first().and_then(|row| row.get("id")?.as_i64()).unwrap_or(0)
    };
    Ok(streams::events(app, after))
}

async fn ask_peer(app: &Arc<App>) -> Result<Response<Body>, AnswerError> {
    let said = peer::version(app.peer_url.as_deref()).await?;
    Ok(json_answer(StatusCode::OK, &json!({ "own": version(app).await?, "peer": said })))
}

/// A number from the query; `None` when it is not there.
fn number(query: Option<&str>, name: &str) -> Result<Option<u64>, AnswerError> {
    let given = query.and_then(|query| {
        form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    });
    given.map(|value| value.parse().map_err(|_| AnswerError::Number(value.into_owned()))).transpose()
}

fn refusal(error: &AnswerError) -> Response<Body> {
    let status = error.status();
    if status.is_server_error() {
        complain(&format!("guestbook: answered {}: {error}", status.as_u16()));
    }
    text_answer(status, "text/plain; charset=utf-8", format!("{error}\n"))
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    text_answer(status, "application/json", value.to_string())
}

fn see_other(location: &'static str) -> Response<Body> {
    let mut response = text_answer(StatusCode::SEE_OTHER, "text/plain", String::new());
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(location));
    response
}

fn text_answer(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
