//! The HTTP API: signed requests about one app. The id in the path names the app, and the signature
//! must be made with a key and secret of the same app. A valid key of another app is refused.

mod call;
mod channels;
mod events;
mod fields;
mod info;
mod json;
mod users;

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{EXPECT, HeaderMap};

use crate::apps::{App, Apps};
use crate::counters::ApiRoute;
use crate::id::AppIndex;
use crate::memory::Headroom;
use crate::protocol::signing::{self, SignatureError, SignedBody, SignedHead};

use super::body::{self, BodyBudget, Received, Unreceived};
use super::clock::now_unix_s;
use super::gateway::{Gateway, GatewayCommand, PublishedStates};
use super::headers::{RequestHead, RequestHeaders};
use super::pace::Pace;
use super::response::{HttpResponse, Rejection, done, of_this_node};
use super::route::Endpoint;
use super::state::Front;
use call::{Asked, Call};
use events::{Requested, Told};
pub(super) use json::JsonParser;

/// Answers a request of the API. The head is authenticated before anything else is looked at, so an
/// unsigned body is never kept, nor asked for with `100 Continue`.
pub(super) async fn answer<G: Gateway>(
    front: &Front<G>,
    pace: &Pace,
    head: &RequestHead<'_, HeaderMap>,
    body: &mut Incoming,
    app_id: &str,
    endpoint: Endpoint<'_>,
) -> Result<HttpResponse, Rejection> {
    let announced = body::announced(body);
    let app = addressed(front, app_id, &endpoint, announced)?;
    let settings = front.settings.get();
    let limits = BodyBounds {
        bytes_max: app.rules.limits.max_request_size,
        pace,
        time_max: settings.body_timeout,
        budget: &front.bodies,
    };
    let (mut bytes, signed) = match authenticate(&app, head, announced > 0, &settings.path_prefix) {
        Ok(signed) => (limits.receive(body, signed).await?, signed),
        Err(error) => return Err(limits.refuse(body, head, error).await),
    };
    // The body may have taken long, and a key that was withdrawn meanwhile must not be accepted.
    let now = found(&front.gateway.apps(), app_id)?;
    if !Arc::ptr_eq(&now, &app) {
        authenticate(&now, head, announced > 0, &settings.path_prefix)
            .map_err(Rejection::signature)?;
    }
    let bytes = bytes.as_mut_slice();
    let call = called(front, pace, &now, head.query, signed, bytes)?;
    perform(&call, bytes, endpoint).await
}

/// A publish whose events the shard has.
pub(super) struct Submitted {
    states: Asked<PublishedStates>,
    told: Told,
    /// Whether the node stood alone when it took them.
    alone: bool,
    app: AppIndex,
    route: ApiRoute,
}

/// Submits the events of a publish whose body has come whole, behind its head. The body is spent.
pub(super) fn submit<G: Gateway>(
    front: &Front<G>,
    pace: &Pace,
    head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
    body: &mut [u8],
    app_id: &str,
    endpoint: &Endpoint<'_>,
) -> Result<Submitted, Rejection> {
    let app = addressed(front, app_id, endpoint, body.len())?;
    let prefix = &front.settings.get().path_prefix;
    let signed = authenticate(&app, head, !body.is_empty(), prefix);
    let signed = signed.map_err(Rejection::signature)?;
    let call = called(front, pace, &app, head.query, signed, body)?;
    publish(&call, body, endpoint)
}

/// Submits the events of a call that publishes.
fn publish<G: Gateway>(
    call: &Call<'_, G>,
    body: &mut [u8],
    endpoint: &Endpoint<'_>,
) -> Result<Submitted, Rejection> {
    let Requested { events, told } = match endpoint {
        Endpoint::BatchEvents => events::read_batch(call, body)?,
        _ => events::read(call, body)?,
    };
    let alone = call.gateway.stands_alone();
    let states = call.submit(|reply| GatewayCommand::Publish { events, reply });
    Ok(Submitted { states, told, alone, app: call.app.index, route: endpoint.counted_as() })
}

impl Submitted {
    /// The app and the route that its answer is counted by.
    pub(super) const fn counted_as(&self) -> (AppIndex, ApiRoute) {
        (self.app, self.route)
    }

    /// The answer; `None` is the usual one, [`done`].
    pub(super) async fn answer<G: Gateway>(
        self,
        gateway: &G,
        pace: &Pace,
    ) -> Result<Option<HttpResponse>, Rejection> {
        let Self { states, told, alone, app, route } = self;
        let states = states.within(pace).await?;
        gateway.count_events(app, route, states.len());
        let answer = told.answer(&states);
        // The answer may have come before the node was alone, or the other way round. Then it is
        // better marked without a need than taken for that of all nodes.
        Ok(match alone || gateway.stands_alone() {
            true => Some(of_this_node(answer.unwrap_or_else(done))),
            false => answer,
        })
    }
}

/// The app that a request is about, if it may send a body of this many bytes.
fn addressed<G: Gateway>(
    front: &Front<G>,
    app_id: &str,
    endpoint: &Endpoint<'_>,
    announced: usize,
) -> Result<Arc<App>, Rejection> {
    if endpoint.is_command() && front.gateway.headroom() == Headroom::Spent {
        return Err(Rejection::Body(Unreceived::OverBudget));
    }
    let app = found(&front.gateway.apps(), app_id)?;
    if announced > app.rules.limits.max_request_size {
        return Err(Rejection::Body(Unreceived::TooLarge));
    }
    Ok(app)
}

/// The call that a request makes whose head is authentic, once its body has come.
fn called<'c, G: Gateway>(
    front: &'c Front<G>,
    pace: &'c Pace,
    app: &'c Arc<App>,
    query: &'c str,
    signed: SignedBody,
    body: &[u8],
) -> Result<Call<'c, G>, Rejection> {
    signed.verify(body).map_err(Rejection::signature)?;
    if !app.rules.is_enabled() {
        return Err(DISABLED);
    }
    // This follows the signature, because strangers' requests must not use up the app's rate.
    let clock = front.settings.get().clock;
    app.take_request(|| clock.now_nanos()).map_err(|wait| over_rate(app, wait))?;
    Ok(Call { gateway: &front.gateway, pace, app, query, json: &front.json })
}

/// Does what a call asks for.
async fn perform<G: Gateway>(
    call: &Call<'_, G>,
    body: &mut [u8],
    endpoint: Endpoint<'_>,
) -> Result<HttpResponse, Rejection> {
    let alone = call.gateway.stands_alone();
    let answer = match endpoint {
        Endpoint::Events | Endpoint::BatchEvents => {
            // This answer is marked already.
            let submitted = publish(call, body, &endpoint)?;
            let answer = submitted.answer(call.gateway, call.pace).await?;
            return Ok(answer.unwrap_or_else(done));
        }
        Endpoint::Channels => channels::list(call).await,
        Endpoint::Channel(channel) => channels::describe(call, &channel).await,
        Endpoint::Users(channel) => users::list(call, &channel).await,
        Endpoint::Terminate(user_id) => users::terminate(call, user_id.into_owned()).await,
        Endpoint::Connections => users::connections(call).await,
    };
    let marked = alone || call.gateway.stands_alone();
    if marked { answer.map(of_this_node) } else { answer }
}

/// The bounds of one request's body.
struct BodyBounds<'f> {
    bytes_max: usize,
    pace: &'f Pace,
    time_max: Duration,
    budget: &'f BodyBudget,
}

impl BodyBounds<'_> {
    /// Receives the body of a request whose head is signed.
    async fn receive(
        &self,
        body: &mut Incoming,
        signed: SignedBody,
    ) -> Result<Received, Rejection> {
        let Self { bytes_max, pace, time_max, budget } = *self;
        if signed.is_some() {
            let received = body::receive(body, bytes_max, pace, time_max, budget).await;
            return received.map_err(Rejection::Body);
        }
        // The app has signed that there is no body. A chunked body may still turn out to be empty.
        match body::discard(body, bytes_max, pace, time_max).await {
            Ok(0) => Ok(Received::default()),
            Ok(_) => Err(Rejection::signature(SignatureError::Missing("body_md5"))),
            Err(cause) => Err(Rejection::Body(cause)),
        }
    }

    /// Refuses a request whose head is not signed. The connection stays open if the body ends soon:
    /// a publisher with a wrong secret may be about to send a request for another app on it.
    async fn refuse(
        &self,
        body: &mut Incoming,
        head: &RequestHead<'_, HeaderMap>,
        error: SignatureError,
    ) -> Rejection {
        let expects = head.headers.contains_key(EXPECT);
        let close = match expects && !body.is_end_stream() {
            // The client waits for `100 Continue`, which is not sent.
            true => true,
            false => {
                let time_max = self.time_max.min(UNSIGNED_TIME_MAX);
                match body::discard(body, self.bytes_max, self.pace, time_max).await {
                    Ok(_) => false,
                    Err(Unreceived::TooSlow) => true,
                    Err(cause) => return Rejection::Body(cause),
                }
            }
        };
        Rejection::Signature { error, close }
    }
}

fn found(apps: &Apps, app_id: &str) -> Result<Arc<App>, Rejection> {
    let refused = || format!("No matching application for ID [{app_id}].").into();
    let app = apps.by_id(app_id).cloned();
    app.ok_or_else(|| Rejection::Text(StatusCode::NOT_FOUND, refused()))
}

fn authenticate<H: ?Sized>(
    app: &App,
    head: &RequestHead<'_, H>,
    has_body: bool,
    prefix: &str,
) -> Result<SignedBody, SignatureError> {
    let &RequestHead { method, path, query, .. } = head;
    let head = SignedHead { method, path, prefix, query, has_body };
    signing::verify_head(&app.rules, &head, now_unix_s())
}

fn over_rate(app: &App, wait: Duration) -> Rejection {
    let most = app.rules.limits.max_requests_per_second.unwrap_or_default();
    let text = format!("The app may send {most} requests per second, and has sent more.");
    Rejection::TooMany(text, wait)
}

const DISABLED: Rejection = Rejection::text(StatusCode::FORBIDDEN, "The application is disabled.");

/// The time in which the body of an unsigned request has to end, if the connection is to stay open.
/// A body that was sent with its head has arrived by then. A slower client is answered before it
/// has sent everything.
const UNSIGNED_TIME_MAX: Duration = Duration::from_secs(1);
