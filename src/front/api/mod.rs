//! The HTTP API: signed requests about one app. An app is found by the id in the path, and the
//! signature must be made with that very app's key and secret: a key that is valid for another app
//! opens nothing here.

mod channels;
mod events;
mod fields;
mod users;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;
use hyper::http::request::Parts;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tokio::sync::oneshot;

use crate::protocol::app::{App, Apps};
use crate::protocol::names::ChannelName;
use crate::protocol::signing::{self, SignatureError, SignedBody, SignedHead};

use super::Front;
use super::body::{self, Budget, Received, Unreceived};
use super::gateway::{ChannelState, Command, Gateway, Headroom, Reply};
use super::reply::{Answer, Rejection, json};
use super::route::Endpoint;

/// Answers a request of the API. The head alone decides who sent it, before anything else is looked
/// at. So an unsigned body is never kept, nor asked for with `100 Continue`.
pub(super) async fn answer<G: Gateway>(
    front: &Front<G>,
    head: &Parts,
    body: &mut Incoming,
    app_id: &str,
    endpoint: Endpoint<'_>,
) -> Result<Answer, Rejection> {
    if endpoint.is_command() && front.gateway.headroom() == Headroom::Spent {
        return Err(Rejection::Body(Unreceived::OverBudget));
    }
    let asked = found(&front.gateway.apps(), app_id)?;
    let settings = front.settings.get();
    let limits = Bounds {
        bytes_max: asked.limits.max_request_size,
        time_max: settings.body_timeout,
        budget: &front.bodies,
    };
    let announced = body::announced(body);
    if announced > limits.bytes_max {
        return Err(Rejection::Body(Unreceived::TooLarge));
    }
    let authenticate = |app: &App| authenticate(app, head, announced > 0, &settings.path_prefix);
    let (mut bytes, signed) = match authenticate(&asked) {
        Ok(signed) => (limits.receive(body, signed).await?, signed),
        Err(error) => return Err(limits.refuse(body, head, error).await),
    };
    // The body may have been long in coming: a key that was withdrawn meanwhile opens nothing.
    let app = found(&front.gateway.apps(), app_id)?;
    if !Arc::ptr_eq(&app, &asked) {
        authenticate(&app).map_err(Rejection::signature)?;
    }
    signed.verify(bytes.as_mut_slice()).map_err(Rejection::signature)?;
    if !app.is_enabled() {
        return Err(DISABLED);
    }
    // Behind the signature: a stranger's requests must not use up what the app may have.
    let clock = front.settings.get().clock;
    app.take_request(|| clock.now_nanos()).map_err(|wait| over_rate(&app, wait))?;

    let query = head.uri.query().unwrap_or_default();
    let call = Call { gateway: &front.gateway, app: &app, query };
    match endpoint {
        Endpoint::Events => events::publish(&call, bytes.as_mut_slice()).await,
        Endpoint::BatchEvents => events::publish_batch(&call, bytes.as_mut_slice()).await,
        Endpoint::Channels => channels::list(&call).await,
        Endpoint::Channel(channel) => channels::describe(&call, &channel).await,
        Endpoint::Users(channel) => users::list(&call, &channel).await,
        Endpoint::Terminate(user_id) => users::terminate(&call, user_id.into_owned()).await,
        Endpoint::Connections => Ok(users::connections(&call)),
    }
}

/// The bounds of one request's body.
struct Bounds<'f> {
    bytes_max: usize,
    time_max: Duration,
    budget: &'f Budget,
}

impl Bounds<'_> {
    /// Takes the body of a request whose head is signed.
    async fn receive(
        &self,
        body: &mut Incoming,
        signed: SignedBody,
    ) -> Result<Received, Rejection> {
        if signed.is_some() {
            let received = body::receive(body, self.bytes_max, self.time_max, self.budget).await;
            return received.map_err(Rejection::Body);
        }
        // The app has signed that there is no body. Chunks may still turn out to be none.
        match body::discard(body, self.bytes_max, self.time_max).await {
            Ok(0) => Ok(Received::default()),
            Ok(_) => Err(Rejection::signature(SignatureError::Missing("body_md5"))),
            Err(cause) => Err(Rejection::Body(cause)),
        }
    }

    /// Refuses a request whose head is not signed. The connection goes on if the body is soon over,
    /// because a publisher with a wrong secret gets an answer like any other: it may be about to
    /// send a request for another app on the same connection.
    async fn refuse(&self, body: &mut Incoming, head: &Parts, error: SignatureError) -> Rejection {
        let close = match head.headers.contains_key(EXPECT) && !body.is_end_stream() {
            // The client waits for `100 Continue`, which is not sent.
            true => true,
            false => {
                let time_max = self.time_max.min(UNSIGNED_TIME_MAX);
                match body::discard(body, self.bytes_max, time_max).await {
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

fn authenticate(
    app: &App,
    head: &Parts,
    has_body: bool,
    prefix: &str,
) -> Result<SignedBody, SignatureError> {
    let head = SignedHead {
        method: head.method.as_str(),
        path: head.uri.path(),
        prefix,
        query: head.uri.query().unwrap_or_default(),
        has_body,
    };
    signing::verify_head(app, &head, now_unix_s())
}

/// The time by which signatures are judged.
pub(super) fn now_unix_s() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |since_epoch| since_epoch.as_secs())
}

fn over_rate(app: &App, wait: Duration) -> Rejection {
    let most = app.limits.max_requests_per_second.unwrap_or_default();
    let text = format!("The app may send {most} requests per second, and has sent more.");
    Rejection::TooMany(text, wait)
}

/// A request whose sender is known.
struct Call<'c, G> {
    gateway: &'c G,
    app: &'c Arc<App>,
    query: &'c str,
}

impl<G: Gateway> Call<'_, G> {
    /// Asks the shard. An answer that does not come is the shard's trouble, not the caller's.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Rejection> {
        let (reply, answer) = oneshot::channel();
        self.gateway.submit(command(reply));
        match tokio::time::timeout(SHARD_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Rejection::Busy),
        }
    }

    /// The value of a parameter; the last one when it is repeated, as PHP reads it.
    fn parameter(&self, name: &str) -> Option<String> {
        let named = signing::query_pairs(self.query).filter(|(key, _)| key == name);
        named.last().map(|(_, value)| value.into_owned())
    }

    /// The attributes that the `info` parameter asks for.
    fn info(&self) -> Info {
        self.parameter("info").as_deref().map(Info::of).unwrap_or_default()
    }
}

/// Attributes asked for with `info`. As in Reverb, unknown ones are ignored, and those that a
/// channel does not have are left out of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Info {
    user_count: bool,
    subscription_count: bool,
    cache: bool,
}

impl Info {
    fn of(list: &str) -> Self {
        let mut info = Self::default();
        for attribute in list.split(',') {
            match attribute.trim() {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                _ => {}
            }
        }
        info
    }

    /// Whether a count is asked for, of whatever channel.
    const fn wants_counts(self) -> bool {
        self.user_count || self.subscription_count
    }

    /// The counts that were asked for and that this channel has: only presence channels have users.
    fn counts(self, channel: &ChannelName, state: &ChannelState) -> Counts {
        let user_count = self.user_count && channel.kind().is_presence();
        Counts {
            user_count: user_count.then_some(state.user_count),
            subscription_count: self.subscription_count.then_some(state.subscription_count),
        }
    }
}

/// Counts of a channel, those that were asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u32>,
}

/// `{"channels":{"name":{…},…}}`. An object also when it is empty: the PHP client breaks on `[]`.
struct ChannelMap(Vec<(ChannelName, Counts)>);

impl Serialize for ChannelMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, counts) in &self.0 {
            map.serialize_entry(name.as_str(), counts)?;
        }
        map.end()
    }
}

/// `{}`.
fn done() -> Answer {
    #[derive(Serialize)]
    struct Nothing {}
    json(&Nothing {})
}

const DISABLED: Rejection = Rejection::text(StatusCode::FORBIDDEN, "The application is disabled.");

/// The PHP client gives up after 30 s: an answer has to come before.
const SHARD_TIMEOUT: Duration = Duration::from_secs(25);

/// The time that the body of an unsigned request may take to end: by then it has arrived if it was
/// sent with its head. A client that sends more slowly is answered before it has sent everything.
const UNSIGNED_TIME_MAX: Duration = Duration::from_secs(1);
