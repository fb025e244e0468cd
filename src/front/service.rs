//! The service that answers one request: it finds the route, checks the method, and calls the
//! endpoint.

use std::cell::RefCell;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use serde::Serialize;

use super::client_admission::ClientAdmission;
use super::gateway::Gateway;
use super::pace::Pace;
use super::response::{HttpResponse, Rejection, json};
use super::route::Route;
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
    let mut answer = answer.unwrap_or_else(|rejection| {
        front.note_request(clients, head, &rejection);
        rejection.into_answer()
    });
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
            // The permit is held until the answer is made.
            let _permit = clients
                .admit(&settings, || clients.client(&settings, &head.headers))
                .map_err(|cause| Rejection::OverLimit { cause, close: clients.is_alone() })?;
            api::answer(front, pace, head, body, &app_id, endpoint).await
        }
    }
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
