//! What happens to containers, as it happens.
//!
//! A hint, never the truth: an engine forgets events under load and while nobody listens (S22). So the stream says when
//! it has connected, and whoever reads it looks again then, and every few seconds besides.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error as Transport;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;

use crate::connect::Engine;
use crate::error::{EngineError, Subject, explain};
use crate::filters;

/// The engine is asked whether it is there, before the stream is said to be connected.
const ANSWER: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What the stream of events says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Events from now on are heard; what was before is to be looked up now. Comes first, and again after each `Lost`.
    Connected,
    /// Something happened to a container.
    Happened(ContainerEvent),
    /// The engine cannot be heard; connecting again goes on by itself.
    Lost(EngineError),
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What.
    pub what: Happening,
    /// When, by the engine's clock.
    pub at: Option<Timestamp>,
}

/// What can happen to a container, as far as anybody here cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// Its process runs.
    Started,
    /// Its process has ended.
    Died {
        /// Exit code, where the engine tells it.
        code: Option<i64>,
    },
    /// The kernel killed one of its processes for want of memory.
    OutOfMemory,
    /// The engine's own probe changed its verdict.
    Health {
        /// To healthy, or away from it.
        healthy: bool,
    },
    /// It is gone.
    Removed,
}

type Messages = Pin<Box<dyn Stream<Item = Result<EventMessage, Transport>> + Send>>;

impl Engine {
    /// Events of every container that carries all of `labels`, without end. Nothing happens until it is read; dropping
    /// it ends it.
    pub fn events(&self, labels: &BTreeMap<String, String>) -> impl Stream<Item = Heard> + Send + use<> {
        let listener = Listener {
            engine: self.clone(),
            filters: conditions(labels),
            since: None,
            messages: None,
            waiting: VecDeque::new(),
            pause: Duration::ZERO,
        };
        futures_util::stream::unfold(listener, |mut listener| async move {
            let heard = listener.next().await;
            Some((heard, listener))
        })
    }
}

struct Listener {
    engine: Engine,
    filters: HashMap<String, Vec<String>>,
    /// Moment from which on events are asked for: that of the last one, or of the connection.
    since: Option<Timestamp>,
    messages: Option<Messages>,
    waiting: VecDeque<Heard>,
    pause: Duration,
}

impl Listener {
    async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.waiting.pop_front() {
                return heard;
            }
            let Some(messages) = &mut self.messages else {
                self.connect().await;
                continue;
            };
            match messages.next().await {
                Some(Ok(message)) => {
                    self.pause = Duration::ZERO;
                    self.take(message);
                }
                Some(Err(error)) => self.lose(explain(Subject::Thing, act)(error)),
                None => self.lose(EngineError::unexpected(act(), "the engine closed the connection")),
            }
        }
    }

    /// The request itself is sent when its stream is first read, and nothing tells when the engine has taken it. So it
    /// asks for events from a moment before: whatever happens after `Connected` is either seen by looking, or told.
    async fn connect(&mut self) {
        // None before the first try and after a connection that was of use.
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let before = Timestamp::now();
        if let Err(error) = self.engine.ping(ANSWER).await {
            self.waiting.push_back(Heard::Lost(error));
            return;
        }
        let since = self.since.unwrap_or(before);
        self.since = Some(since);
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", since.as_second(), since.subsec_nanosecond())),
            until: None,
            filters: Some(self.filters.clone()),
        };
        self.messages = Some(self.engine.docker_long().events(Some(options)).boxed());
        self.waiting.push_back(Heard::Connected);
    }

    fn take(&mut self, message: EventMessage) {
        let at = message
            .time_nano
            .and_then(|nanoseconds| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok());
        if let Some(at) = at {
            // The very next moment, so that a new connection does not tell this one again.
            self.since = Some(at.checked_add(Duration::from_nanos(1)).unwrap_or(at));
        }
        self.waiting.extend(event(message, at).map(Heard::Happened));
    }

    fn lose(&mut self, error: EngineError) {
        self.messages = None;
        self.waiting.push_back(Heard::Lost(error));
    }
}

fn act() -> String {
    "listen to the container engine's events".to_owned()
}

fn conditions(labels: &BTreeMap<String, String>) -> HashMap<String, Vec<String>> {
    let mut filters = filters::by_labels(labels);
    filters.insert("type".to_owned(), vec!["container".to_owned()]);
    let wanted = ["start", "die", "oom", "health_status", "destroy"];
    filters.insert("event".to_owned(), wanted.map(str::to_owned).to_vec());
    filters
}

fn event(message: EventMessage, at: Option<Timestamp>) -> Option<ContainerEvent> {
    let actor = message.actor?;
    let mut labels: BTreeMap<String, String> = actor.attributes.unwrap_or_default().into_iter().collect();
    let code = labels.remove("exitCode").and_then(|code| code.parse().ok());
    let name = labels.remove("name").unwrap_or_default();
    labels.remove("image");
    let what = match message.action?.as_str() {
        "start" => Happening::Started,
        "die" | "died" => Happening::Died { code },
        "oom" => Happening::OutOfMemory,
        "destroy" | "remove" => Happening::Removed,
        other => Happening::Health { healthy: other.strip_prefix("health_status: ")? == "healthy" },
    };
    Some(ContainerEvent { id: actor.id?, name, labels, what, at })
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn told(action: &str, attributes: &[(&str, &str)]) -> Option<ContainerEvent> {
        let attributes =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let actor = EventActor { id: Some("c1".to_owned()), attributes: Some(attributes) };
        event(
            EventMessage { action: Some(action.to_owned()), actor: Some(actor), ..EventMessage::default() },
            None,
        )
    }

    #[test]
    fn an_exit_comes_with_its_code_and_labels() {
        let event = told("die", &[("exitCode", "137"), ("name", "web"), ("image", "app:1"), ("app", "shop")])
            .unwrap();
        assert_eq!(event.what, Happening::Died { code: Some(137) });
        assert_eq!(
            (event.name.as_str(), event.labels),
            ("web", BTreeMap::from([("app".to_owned(), "shop".to_owned())]))
        );
    }

    #[test]
    fn a_health_verdict_is_read_and_others_are_left_out() {
        assert_eq!(told("health_status: healthy", &[]).unwrap().what, Happening::Health { healthy: true });
        assert_eq!(told("health_status: unhealthy", &[]).unwrap().what, Happening::Health { healthy: false });
        assert_eq!(told("exec_start: sh", &[]), None);
    }
}
