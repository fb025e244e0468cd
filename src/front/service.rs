//! The service that answers one request: it finds the route, checks the method, and calls the
//! endpoint.

use std::cell::RefCell;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use serde::Serialize;
use tracing::{Level, debug};

use crate::counters::ApiRoute;
use crate::id::AppIndex;
use crate::text::without_signatures;

use super::client_admission::{ClientAdmission, RequestPermit};
use super::gateway::{Gateway, InFlight};
use super::headers::{RequestHead, RequestHeaders};
use super::pace::Pace;
use super::request_id::request_id;
use super::response::{HttpResponse, Rejection, done, json};
use super::route::{Endpoint, Route};
use super::state::Front;
use super::upgrade_outcome::UpgradeOutcome;
use super::{api, upgrade};

/// Answers a request. After an answer of 101, `outcome` holds the outcome of the handshake.
/// `two_lengths` says that the head gave the length of the body in two ways, of which hyper shows
/// one.
pub(super) async fn respond<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    pace: &Pace,
    head: &Parts,
    two_lengths: bool,
    body: &mut Incoming,
    outcome: &RefCell<Option<UpgradeOutcome>>,
) -> HttpResponse {
    let _in_flight = front.gateway.begin_request();
    let answer = match two_lengths {
        true => Err(Rejection::TwoLengths),
        false => answer(front, clients, pace, head, body, outcome).await,
    };
    let answer = match answer {
        Ok(answer) => finish(front, answer),
        Err(rejection) => refuse(front, clients, &RequestHead::of(head), rejection),
    };
    trace(front, clients, &RequestHead::of(head), answer.status());
    let settings = front.settings.get();
    if let Some(Route::Api { app_id, endpoint }) = Route::of(head.uri.path(), &settings.path_prefix)
    {
        count(front, &app_id, &endpoint, &answer);
    }
    answer
}

/// A publish that is being served, until it is answered.
pub(super) struct Submitted<'c> {
    publish: api::Submitted,
    _in_flight: InFlight,
    _permit: RequestPermit<'c>,
}

/// Submits a publish whose body has come whole, behind its head. The body is spent.
pub(super) fn submit<'c, G: Gateway>(
    front: &Front<G>,
    clients: &'c ClientAdmission,
    pace: &Pace,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
    body: &mut [u8],
    (app_id, endpoint): (&str, &Endpoint<'_>),
) -> Result<Submitted<'c>, Rejection> {
    let in_flight = front.gateway.begin_request();
    let permit = admit(front, clients, head)?;
    let publish = api::submit(front, pace, head, body, app_id, endpoint)?;
    Ok(Submitted { publish, _in_flight: in_flight, _permit: permit })
}

/// Counts an answer of the API, if it is about an app that there is.
pub(super) fn count<G: Gateway>(
    front: &Front<G>,
    app_id: &str,
    endpoint: &Endpoint<'_>,
    answer: &HttpResponse,
) {
    if let Some(app) = front.gateway.apps().by_id(app_id) {
        front.gateway.count_answer(app.index, endpoint.counted_as(), answer.status());
    }
}

impl Submitted<'_> {
    /// The app and the route that its answer is counted by.
    pub(super) const fn counted_as(&self) -> (AppIndex, ApiRoute) {
        self.publish.counted_as()
    }

    /// The answer. `None` is the usual one, which is [`done`].
    pub(super) async fn answer<G: Gateway>(
        self,
        front: &Front<G>,
        pace: &Pace,
    ) -> Result<Option<HttpResponse>, Rejection> {
        let answer = self.publish.answer(&front.gateway, pace).await?;
        let stops = front.gateway.stopping().is_some();
        let answer = answer.or_else(|| stops.then(done));
        Ok(answer.map(|answer| finish(front, answer)))
    }
}

/// Notes a refusal, and makes the answer of it.
pub(super) fn refuse<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
    rejection: Rejection,
) -> HttpResponse {
    front.note_request(clients, head, &rejection);
    finish(front, rejection.into_answer())
}

/// Logs the answer to a request with `--debug`. A handshake has a line of its own.
pub(super) fn trace<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
    status: StatusCode,
) {
    if !tracing::enabled!(Level::DEBUG) || status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let client = clients.sender(&front.settings.get(), head.headers);
    let (method, path) = (head.method, without_signatures(head.path));
    let request_id = request_id(head.headers);
    debug!(method, path, %client, request_id, "request answered with {}", status.as_u16());
}

/// Makes an answer the last one of its connection during a stop.
pub(super) fn finish<G: Gateway>(front: &Front<G>, mut answer: HttpResponse) -> HttpResponse {
    if front.gateway.stopping().is_some() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn answer<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    pace: &Pace,
    head: &Parts,
    body: &mut Incoming,
    outcome: &RefCell<Option<UpgradeOutcome>>,
) -> Result<HttpResponse, Rejection> {
    if head.version == Version::HTTP_11 && head.headers.get_all(HOST).iter().count() != 1 {
        return Err(Rejection::Host);
    }
    let settings = front.settings.get();
    let prefix = &settings.path_prefix;
    let route = Route::of(head.uri.path(), prefix).ok_or(Rejection::NOT_FOUND)?;
    if !route.serves(&head.method) {
        return Err(Rejection::Method(route.methods()));
    }
    match route {
        Route::Up => Ok(healthy(&head.method, route.methods())),
        Route::WebSocket { key } => {
            upgrade::answer(front, clients, pace, head, body, &key, outcome).await
        }
        Route::Api { app_id, endpoint } => {
            let head = &RequestHead::of(head);
            let _permit = admit(front, clients, head)?;
            api::answer(front, pace, head, body, &app_id, endpoint).await
        }
    }
}

/// Admits a request of the API. The permit is held until the answer is made.
fn admit<'c, G: Gateway>(
    front: &Front<G>,
    clients: &'c ClientAdmission,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
) -> Result<RequestPermit<'c>, Rejection> {
    let settings = front.settings.get();
    clients
        .admit(&settings, || clients.client(&settings, head.headers))
        .map_err(|cause| Rejection::OverLimit { cause, close: clients.is_alone() })
}

/// Answers a health check with 200. Load balancers use GET, HEAD or OPTIONS.
fn healthy(method: &Method, methods: &'static str) -> HttpResponse {
    #[derive(Serialize)]
    struct Up {
        health: &'static str,
    }
    let mut answer = json(&Up { health: "OK" });
    if *method == Method::OPTIONS {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    }
    answer
}
