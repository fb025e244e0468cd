//! The service that answers one request: it finds the route, checks the method, and calls the
//! endpoint.

use std::cell::RefCell;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use serde::Serialize;
use tracing::{Level, debug};

use crate::text::without_signatures;

use super::client_admission::{ClientAdmission, RequestPermit};
use super::gateway::Gateway;
use super::headers::{RequestHead, RequestHeaders};
use super::pace::Pace;
use super::request_id::request_id;
use super::response::{HttpResponse, Rejection, json};
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
    finish(front, clients, &RequestHead::of(head), answer)
}

/// Answers a request of the API whose body has come whole, behind its head.
pub(super) async fn respond_whole<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    pace: &Pace,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
    body: &mut [u8],
    app_id: &str,
    endpoint: Endpoint<'_>,
) -> HttpResponse {
    let _in_flight = front.gateway.begin_request();
    let answer = match admit(front, clients, head) {
        Ok(_permit) => api::answer_whole(front, pace, head, body, app_id, endpoint).await,
        Err(rejection) => Err(rejection),
    };
    finish(front, clients, head, answer)
}

/// Notes a refusal, makes the answer of it, and logs the answer with `--debug`. During a stop, each
/// answer is a connection's last.
fn finish<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
    answer: Result<HttpResponse, Rejection>,
) -> HttpResponse {
    let mut answer = answer.unwrap_or_else(|rejection| {
        front.note_request(clients, head, &rejection);
        rejection.into_answer()
    });
    if tracing::enabled!(Level::DEBUG) {
        trace(front, clients, head, answer.status());
    }
    if front.gateway.stopping().is_some() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Logs the answer to a request. Those to handshakes are logged with their connections.
fn trace<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
    status: StatusCode,
) {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let client = clients.sender(&front.settings.get(), head.headers);
    let (method, path) = (head.method, without_signatures(head.path));
    let request_id = request_id(head.headers);
    debug!(method, path, %client, request_id, "request answered with {}", status.as_u16());
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
