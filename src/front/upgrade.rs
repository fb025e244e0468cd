//! `/app/{key}`: the handshake, and the admission of the client.
//!
//! Browsers hide the answer to a failed handshake. So a refusal that the client could show to its
//! user follows the 101 on the open WebSocket, as an error message and a close frame.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use hyper::Version;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use tokio::sync::oneshot;

use crate::apps::{Admission, App};
use crate::memory::Headroom;
use crate::protocol::close::ProtocolError;
use crate::protocol::session::check_protocol_version;
use crate::websocket::handshake::{self, UpgradeRequest};

use super::address_limits::OverLimit;
use super::client_admission::ClientAdmission;
use super::gateway::{Gateway, GatewayCommand, Newcomers};
use super::headers::{RequestHead, RequestHeaders, header_texts};
use super::pace::Pace;
use super::response::{HttpResponse, Rejection, switching_protocols};
use super::state::Front;
use super::upgrade_outcome::{Admitted, UpgradeOutcome};

/// Judges the handshake (RFC 6455 section 4.2.1), then the client.
pub(super) async fn answer<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    pace: &Pace,
    head: &Parts,
    body: &Incoming,
    key: &str,
    outcome: &RefCell<Option<UpgradeOutcome>>,
) -> Result<HttpResponse, Rejection> {
    let accept = handshake::accept(&UpgradeRequest {
        method: head.method.as_str(),
        http11: head.version >= Version::HTTP_11,
        connection: &header_texts(&head.headers, "connection"),
        upgrade: &header_texts(&head.headers, "upgrade"),
        version: &header_texts(&head.headers, "sec-websocket-version"),
        key: &header_texts(&head.headers, "sec-websocket-key"),
        has_body: !body.is_end_stream(),
    });
    let answer = switching_protocols(&accept.map_err(Rejection::Handshake)?)?;
    let admitted = admit(front, clients, pace, head, key).await;
    let admitted = admitted.unwrap_or_else(|error| {
        front.gateway.count_refused(key, error.code());
        front.note_handshake(clients, &RequestHead::of(head), key, error);
        UpgradeOutcome::Refused(error)
    });
    *outcome.borrow_mut() = Some(admitted);
    Ok(answer)
}

async fn admit<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    pace: &Pace,
    head: &Parts,
    key: &str,
) -> Result<UpgradeOutcome, ProtocolError> {
    let (gateway, settings) = (&front.gateway, front.settings.get());
    // This comes first, because the limits of an address protect the work that follows.
    let client = clients.client(&settings, &head.headers);
    let permit = clients.admit(&settings, || client).map_err(over_limit)?;
    let apps = gateway.apps();
    let app = apps.by_key(key).ok_or(ProtocolError::UnknownApp)?;
    if !app.rules.is_enabled() {
        return Err(ProtocolError::AppDisabled);
    }
    check_protocol_version(head.uri.query().unwrap_or_default())?;
    if app.allowed_origins.check(origin(&head.headers)).is_err() {
        return Err(ProtocolError::OriginRefused);
    }
    let held = match gateway.stopping() {
        None => false,
        Some(Newcomers::Held) => true,
        Some(Newcomers::Refused(error)) => return Err(error),
    };
    if gateway.headroom() != Headroom::Enough {
        return Err(ProtocolError::OverCapacity);
    }
    let reservation = gateway.reserve().ok_or(ProtocolError::OverCapacity)?;
    let admission = match held {
        true => None,
        false => Some(take_place(gateway, pace, app).await?),
    };
    let permit = permit.into_connection_permit();
    Ok(UpgradeOutcome::Admitted(Admitted { admission, reservation, permit, client }))
}

/// Takes a place at the app. If this node has none left, the others of its cluster may have some.
/// A client that is refused by the quota does not return, so it is so only if there is no place for
/// certain.
async fn take_place<G: Gateway>(
    gateway: &G,
    pace: &Pace,
    app: &Arc<App>,
) -> Result<Admission, ProtocolError> {
    if let Some(admission) = Admission::take(app) {
        return Ok(admission);
    }
    for _ in 0..PLACES_ATTEMPTS {
        let (reply, answer) = oneshot::channel();
        gateway.submit(GatewayCommand::MorePlaces { app: Arc::clone(app), reply });
        match pace.within(PLACES_TIMEOUT, answer).await {
            Ok(Ok(Ok(true))) => {}
            Ok(Ok(Ok(false))) => return Err(ProtocolError::OverQuota),
            // The shard stops, or the cluster does not answer.
            _ => return Err(ProtocolError::QuotaUnknown),
        }
        if let Some(admission) = Admission::take(app) {
            return Ok(admission);
        }
    }
    Err(ProtocolError::QuotaUnknown)
}

/// The number of times that the cluster is asked for a place: another handshake of this node may
/// take the one that was got.
const PLACES_ATTEMPTS: u32 = 3;

/// The time that the cluster has for its answer. pusher-js waits for 15 s for the handshake.
const PLACES_TIMEOUT: Duration = Duration::from_secs(5);

fn over_limit(cause: OverLimit) -> ProtocolError {
    match cause {
        OverLimit::Connections => ProtocolError::AddressOverConnections,
        OverLimit::Requests(_) => ProtocolError::AddressOverRate,
    }
}

/// The origin of the page, if a browser sent it. Several origins, or one that is not ASCII, count
/// as an empty one, which no list contains.
pub(super) fn origin(headers: &(impl RequestHeaders + ?Sized)) -> Option<&str> {
    match *header_texts(headers, "origin").as_slice() {
        [] => None,
        [origin] => Some(origin),
        _ => Some(""),
    }
}
