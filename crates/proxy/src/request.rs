//! The life of a request, its phases in order: read what it asks for → find the route → wait where it is held → choose a
//! target and count itself there → offer → bring the answer back. As long as it was not sent it starts over from the route.

use std::sync::Arc;
use std::time::Instant;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use crate::address::Asked;
use crate::body::{AnswerBody, ClientFault, Exchange, RequestBody};
use crate::figures::RouteCounters;
use crate::forward::{self, NotSent, Offered};
use crate::headers;
use crate::hold::Place;
use crate::inflight::InFlight;
use crate::pace::Busy;
use crate::plane::Plane;
use crate::refuse::{Reason, Refusal};
use crate::route::{LiveRoute, LiveState};
use crate::serve::Client;
use crate::target::Target;
use crate::upgrade;

/// Answers a request: with a target's answer, or with one of the proxy's own that says so.
pub(crate) async fn answer(
    plane: &Plane,
    client: &Arc<Client>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let busy = Busy::begin(client, !request.body().is_end_stream());
    let mut response = answer_as_it_is(plane, busy, request).await;
    if plane.stop.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer_as_it_is(plane: &Plane, busy: Busy, request: Request<Incoming>) -> Response<AnswerBody> {
    let mut journey = match Asked::read(&request) {
        Ok(asked) => Journey::new(plane, asked),
        Err(refusal) => {
            plane.table.no_route.taken_in();
            plane.table.no_route.refused(refusal.reason);
            return own(refusal, busy);
        }
    };
    match journey.lead(request, &busy).await {
        Ok(arrived) => arrived.into_response(plane, busy),
        Err(refusal) => {
            journey.counters().refused(refusal.reason);
            own(refusal, busy)
        }
    }
}

fn own(refusal: Refusal, busy: Busy) -> Response<AnswerBody> {
    refusal.into_response().map(|text| AnswerBody::own(text, busy))
}

/// A request on its way.
struct Journey<'plane> {
    plane: &'plane Plane,
    asked: Asked,
    /// Of the route it was last on; none before the first.
    counters: Option<Arc<RouteCounters>>,
    /// Its place in a hold, from the first wait to the first target.
    place: Option<Place>,
    /// Targets that did not take it, or broke it off.
    refused_by: Vec<Arc<Target>>,
    /// When it is no longer offered, from the first refusal on.
    give_up: Option<Instant>,
    /// It has waited for one of them to come back.
    waited: bool,
    /// It was sent once and may not be sent again.
    repeated: bool,
}

/// Where a request stands after a look at the table.
enum Standing {
    /// Counted on a target of the table that is served.
    Admitted(InFlight, Arc<LiveRoute>),
    Held(Arc<LiveRoute>, u64),
    /// The table changed while it looked.
    Changed,
    /// All targets refused it.
    NobodyLeft,
}

/// What an offer came to.
enum Turn {
    Arrived(Response<Incoming>, Exchange),
    /// Not sent, or safe to send once more.
    Again(Request<RequestBody>),
}

/// An answer's head has come.
struct Arrived {
    response: Response<Incoming>,
    exchange: Exchange,
    on_client: Option<OnUpgrade>,
}

impl<'plane> Journey<'plane> {
    fn new(plane: &'plane Plane, asked: Asked) -> Self {
        Self {
            plane,
            asked,
            counters: None,
            place: None,
            refused_by: Vec::new(),
            give_up: None,
            waited: false,
            repeated: false,
        }
    }

    fn counters(&self) -> &RouteCounters {
        self.counters.as_ref().unwrap_or(&self.plane.table.no_route)
    }

    /// Leads the request to an answer's head.
    async fn lead(&mut self, mut request: Request<Incoming>, busy: &Busy) -> Result<Arrived, Refusal> {
        let has_body = !request.body().is_end_stream();
        let upgrade = headers::prepare_request(request.headers_mut(), busy.client(), &self.asked, has_body);
        let on_client = upgrade.map(|_protocol| hyper::upgrade::on(&mut request));
        let mut request = request.map(|body| RequestBody::new(body, &self.plane.limits));
        *request.version_mut() = Version::HTTP_11;
        loop {
            let (in_flight, route) = match self.look()? {
                Standing::Admitted(in_flight, route) => (in_flight, route),
                Standing::Held(route, generation) => {
                    self.wait_held(&route, generation, request.body_mut()).await?;
                    continue;
                }
                Standing::Changed => continue,
                Standing::NobodyLeft => {
                    self.wait_restart().await?;
                    continue;
                }
            };
            self.fit_to_route(&mut request, &route);
            match self.offer(in_flight, request, busy).await? {
                Turn::Arrived(response, exchange) => return Ok(Arrived { response, exchange, on_client }),
                Turn::Again(back) => request = back,
            }
        }
    }

    /// Looks at the table that is served now. Between loading and counting nothing is awaited.
    fn look(&mut self) -> Result<Standing, Refusal> {
        let generation = self.plane.table.load();
        let Some(route) = generation.routes.find(self.asked.host(), self.asked.path()) else {
            if self.counters.is_none() {
                self.plane.table.no_route.taken_in();
            }
            self.counters = None;
            return Err(Refusal::new(Reason::NoRoute, "no app is served at this host and path"));
        };
        self.arrive_on(route);
        match &route.state {
            LiveState::Closed(reason) => Err(Refusal::new(Reason::Closed, reason.clone())),
            LiveState::Held(_) => Ok(Standing::Held(Arc::clone(route), generation.number)),
            LiveState::Serving(targets) => {
                self.place = None;
                if targets.is_empty() {
                    return Err(Refusal::new(Reason::NoTarget, "nothing serves this route at the moment"));
                }
                let Some(target) = targets.choose(&self.refused_by) else { return Ok(Standing::NobodyLeft) };
                let in_flight = InFlight::enter(target);
                if self.plane.table.is_current(&generation) {
                    Ok(Standing::Admitted(in_flight, Arc::clone(route)))
                } else {
                    Ok(Standing::Changed)
                }
            }
        }
    }

    /// A request counts once, on the route it first came to.
    fn arrive_on(&mut self, route: &LiveRoute) {
        match &self.counters {
            Some(counters) if Arc::ptr_eq(counters, &route.counters) => {}
            Some(_) => self.counters = Some(Arc::clone(&route.counters)),
            None => {
                route.counters.taken_in();
                self.counters = Some(Arc::clone(&route.counters));
            }
        }
    }

    async fn wait_held(
        &mut self,
        route: &LiveRoute,
        generation: u64,
        body: &mut RequestBody,
    ) -> Result<(), Refusal> {
        let LiveState::Held(live) = &route.state else { return Ok(()) };
        let mut changes = self.plane.table.changes();
        // Listening first, looking second: a change between the two is not slept through.
        if *changes.borrow_and_update() != generation {
            return Ok(());
        }
        if self.place.is_none() {
            self.place = Some(Place::take(&route.counters, &live.hold)?);
        }
        let Some(place) = self.place.as_mut() else { return Ok(()) };
        tokio::select! {
            waited = place.wait(live, body, &mut changes) => waited,
            () = self.plane.stop.told() => Err(Refusal::new(Reason::Stopping, "the proxy is about to end")),
        }
    }

    /// All targets refused it: waits a little for one to come back, or for another table.
    async fn wait_restart(&mut self) -> Result<(), Refusal> {
        let now = Instant::now();
        let limits = &self.plane.limits;
        let give_up = *self.give_up.get_or_insert(now + limits.restart);
        if now >= give_up {
            return Err(Refusal::new(Reason::UpstreamUnreachable, "the app cannot be reached"));
        }
        let mut changes = self.plane.table.changes();
        // Both ends are good: the one as the other means to look again.
        let _changed_or_elapsed =
            tokio::time::timeout(limits.offer_again.min(give_up - now), changes.changed()).await;
        self.refused_by.clear();
        self.waited = true;
        Ok(())
    }

    /// What the route says of the path.
    fn fit_to_route(&self, request: &mut Request<RequestBody>, route: &LiveRoute) {
        let prefix = (route.strip && !route.prefix.is_empty()).then_some(route.prefix.as_str());
        headers::tell_prefix(request.headers_mut(), prefix);
        let wanted = prefix.map_or_else(|| self.asked.wanted().clone(), |prefix| self.asked.stripped(prefix));
        *request.uri_mut() = Uri::from(wanted);
    }

    /// Offers the request to the target it is counted on.
    async fn offer(
        &mut self,
        in_flight: InFlight,
        mut request: Request<RequestBody>,
        busy: &Busy,
    ) -> Result<Turn, Refusal> {
        let target = Arc::clone(in_flight.target());
        let cuts = target.cuts();
        request.body_mut().goes_to(&target);
        let upload = request.body().upload();
        let copy = self.copy_to_repeat(&request);
        match forward::offer(&target, cuts, request, &self.plane.limits, &busy.client().answer).await {
            Offered::Answered(response, sender, after) => {
                target.counters.head(after);
                target.answered();
                let (status, idle_limit) = (response.status(), self.plane.limits.target_idle);
                Ok(Turn::Arrived(response, Exchange { in_flight, sender, status, upload, idle_limit }))
            }
            Offered::NotSent(back, NotSent::Cut) => Ok(Turn::Again(back)),
            Offered::NotSent(back, why) => {
                self.not_taken(&target, &why);
                Ok(Turn::Again(back))
            }
            Offered::Broken(error) => {
                tracing::debug!(%error, target = target.id, "a target broke off before its answer");
                if let Some(fault) = upload.and_then(|upload| upload.client_fault()) {
                    return Err(fault.into());
                }
                if target.cuts() != cuts {
                    return Err(Refusal::new(Reason::Cut, "the app was replaced before it answered"));
                }
                target.counters.broken();
                let broken = || {
                    Refusal::new(Reason::UpstreamBroken, "the app closed the connection before it answered")
                };
                let copy = copy.ok_or_else(broken)?;
                self.repeated = true;
                self.refused_by.push(target);
                Ok(Turn::Again(copy))
            }
            Offered::Late => {
                target.counters.broken();
                Err(Refusal::new(Reason::UpstreamTimeout, "the app did not answer in time"))
            }
        }
    }

    /// A copy of a request that changes nothing and has no body: should the target break off before the first byte of an answer, it
    /// is sent once more (RFC 9110, 9.2.2). Everything else is never sent twice, because it may have been carried out.
    fn copy_to_repeat(&self, request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if self.repeated || !safe || request.body().upload().is_some() {
            return None;
        }
        let mut copy = Request::new(RequestBody::none());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        Some(copy)
    }

    fn not_taken(&mut self, target: &Arc<Target>, why: &NotSent) {
        tracing::debug!(%why, target = target.id, "a target took no request");
        if self.give_up.is_none() {
            self.give_up = Some(Instant::now() + self.plane.limits.restart);
        }
        // Once a request: what is offered again and again while a target restarts is one request.
        if !self.waited {
            target.counters.broken();
        }
        target.pass_over(self.plane.limits.passed_over);
        self.refused_by.push(Arc::clone(target));
    }
}

impl Arrived {
    fn into_response(self, plane: &Plane, mut busy: Busy) -> Response<AnswerBody> {
        let Self { mut response, exchange, on_client } = self;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match on_client {
                Some(on_client) => upgrade::join(response, exchange, on_client, busy, &plane.limits),
                None => own(
                    Refusal::new(Reason::UpstreamBroken, "the app changed to a protocol nobody asked for"),
                    busy,
                ),
            };
        }
        headers::prepare_answer(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        // An event stream goes on for as long as its client likes: a drain has to end it.
        let stream = is_event_stream(&response).then(|| {
            busy.goes_on();
            exchange.in_flight.target().streams.enter()
        });
        busy.client().pace.answers_from(exchange.in_flight.target());
        response.map(|body| AnswerBody::forwarded(body, exchange, stream, busy))
    }
}

impl From<ClientFault> for Refusal {
    fn from(fault: ClientFault) -> Self {
        match fault {
            ClientFault::Stopped => {
                Self::new(Reason::ClientTimeout, "the request's body did not come in time")
            }
            ClientFault::Broke => Self::new(Reason::BadRequest, "the request's body broke off or is no body"),
        }
    }
}

fn is_event_stream(response: &Response<Incoming>) -> bool {
    let content = response.headers().get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content
        .and_then(|content| content.get(..17))
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
}
