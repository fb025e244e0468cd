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
use hyper::body::Incoming;
use hyper::http::request::Parts;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tokio::sync::oneshot;

use crate::protocol::app::{App, Apps};
use crate::protocol::names::ChannelName;
use crate::protocol::signing::{self, SignedRequest};

use super::body::{self, Unreceived};
use super::gateway::{ChannelState, Command, Gateway, Headroom, Reply};
use super::reply::{Answer, Rejection, json};
use super::route::Endpoint;
use super::{Front, clock};

/// Answers a request of the API: who asks is settled before what is asked.
pub(super) async fn answer<G: Gateway>(
    front: &Front<G>,
    head: &Parts,
    body: Incoming,
    app_id: &str,
    endpoint: Endpoint<'_>,
) -> Result<Answer, Rejection> {
    if endpoint.is_command() && front.gateway.headroom() == Headroom::Spent {
        return Err(Rejection::Body(Unreceived::OverBudget));
    }
    let apps = front.gateway.apps();
    let bytes_max = found(&apps, app_id)?.limits.max_request_size;
    let settings = front.settings.get();
    let time_max = settings.body_timeout;
    let mut body =
        body::receive(body, bytes_max, time_max, &front.bodies).await.map_err(Rejection::Body)?;
    // The body may have been long in coming: a key that was withdrawn meanwhile opens nothing.
    let apps = front.gateway.apps();
    let app = found(&apps, app_id)?;
    authenticate(app, head, &body.bytes, &settings.path_prefix)?;
    if !app.is_enabled() {
        return Err(DISABLED);
    }
    // Behind the signature: a stranger's requests must not use up what the app may have.
    app.take_request(clock::now).map_err(|wait| over_rate(app, wait))?;

    let call = Call { gateway: &front.gateway, app, query: head.uri.query().unwrap_or_default() };
    match endpoint {
        Endpoint::Events => events::publish(&call, &mut body.bytes).await,
        Endpoint::BatchEvents => events::publish_batch(&call, &mut body.bytes).await,
        Endpoint::Channels => channels::list(&call).await,
        Endpoint::Channel(channel) => channels::describe(&call, &channel).await,
        Endpoint::Users(channel) => users::list(&call, &channel).await,
        Endpoint::Terminate(user_id) => users::terminate(&call, user_id.into_owned()).await,
        Endpoint::Connections => Ok(users::connections(&call)),
    }
}

fn found<'a>(apps: &'a Apps, app_id: &str) -> Result<&'a Arc<App>, Rejection> {
    let refused = || format!("No matching application for ID [{app_id}].").into();
    apps.by_id(app_id).ok_or_else(|| Rejection::Text(StatusCode::NOT_FOUND, refused()))
}

fn authenticate(app: &App, head: &Parts, body: &[u8], prefix: &str) -> Result<(), Rejection> {
    let request = SignedRequest {
        method: head.method.as_str(),
        path: head.uri.path(),
        prefix,
        query: head.uri.query().unwrap_or_default(),
        body,
    };
    signing::verify(app, &request, now_unix_s()).map_err(Rejection::Signature)
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

    /// What the `info` parameter asks for.
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
