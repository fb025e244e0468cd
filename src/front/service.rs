//! One request: its route, its method, its answer.

use std::cell::RefCell;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Version};
use serde::Serialize;

use super::connection::Switched;
use super::gateway::Gateway;
use super::reply::{Answer, Rejection, json};
use super::route::Route;
use super::visitor::Visitor;
use super::{Front, api, upgrade};

/// Answers a request. After an answer of 101, `switched` says what becomes of the socket.
pub(super) async fn respond<G: Gateway>(
    front: &Front<G>,
    visitor: &Visitor,
    request: Request<Incoming>,
    switched: &RefCell<Option<Switched>>,
) -> Answer {
    let _in_flight = front.gateway.begin_request();
    let answer = answer(front, visitor, request, switched).await;
    let mut answer = answer.unwrap_or_else(Rejection::into_answer);
    if front.gateway.stopping().is_some() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn answer<G: Gateway>(
    front: &Front<G>,
    visitor: &Visitor,
    request: Request<Incoming>,
    switched: &RefCell<Option<Switched>>,
) -> Result<Answer, Rejection> {
    let (head, body) = request.into_parts();
    if head.version == Version::HTTP_11 && head.headers.get_all(HOST).iter().count() != 1 {
        return Err(Rejection::Host);
    }
    let prefix = &front.settings.path_prefix;
    let route = Route::of(head.uri.path(), prefix).ok_or(Rejection::NOT_FOUND)?;
    if !route.serves(&head.method) {
        return Err(Rejection::Method(route.methods()));
    }
    match route {
        Route::Up => Ok(json(&Up { health: "OK" })),
        Route::WebSocket { key } => upgrade::answer(front, visitor, &head, &body, &key, switched),
        Route::Api { app_id, endpoint } => {
            // Held until the answer.
            let _pass = visitor
                .admit(|| visitor.client(&head.headers))
                .map_err(|cause| Rejection::TurnedAway { cause, close: visitor.is_alone() })?;
            api::answer(front, &head, body, &app_id, endpoint).await
        }
    }
}

#[derive(Serialize)]
struct Up {
    health: &'static str,
}
