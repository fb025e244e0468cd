//! `GET /channels` and `GET /channels/{channel}`.

use hyper::StatusCode;
use serde::Serialize;

use crate::protocol::names::ChannelName;

use super::super::gateway::{CachedEvent, Command, Gateway};
use super::super::reply::{Answer, Rejection, json};
use super::{Call, ChannelMap, Counts};

/// The occupied channels whose names begin with `filter_by_prefix`.
pub(super) async fn list<G: Gateway>(call: &Call<'_, G>) -> Result<Answer, Rejection> {
    let prefix = call.parameter("filter_by_prefix").unwrap_or_default();
    let info = call.info();
    let app = call.app.clone();
    let occupied = call.ask(|reply| Command::Channels { app, reply }).await?;
    let channels = occupied
        .into_iter()
        .filter(|(name, _)| name.as_str().starts_with(&prefix))
        .map(|(name, state)| {
            let counts = info.counts(&name, &state);
            (name, counts)
        })
        .collect();
    Ok(json(&Listed { channels: ChannelMap(channels) }))
}

/// One channel, occupied or not.
pub(super) async fn describe<G: Gateway>(
    call: &Call<'_, G>,
    channel: &str,
) -> Result<Answer, Rejection> {
    let channel = named(call, channel)?;
    let info = call.info();
    let (app, asked) = (call.app.clone(), channel.clone());
    let state = call.ask(|reply| Command::Channel { app, channel: asked, reply }).await?;
    let described = Described {
        occupied: state.occupied(),
        counts: info.counts(&channel, &state),
        cache: state.cached.filter(|_| info.cache && channel.kind().is_cache()).map(Cache::of),
    };
    Ok(json(&described))
}

/// The channel of a path. Held to the app's alphabet: a channel with another name cannot exist.
pub(super) fn named<G>(call: &Call<'_, G>, channel: &str) -> Result<ChannelName, Rejection> {
    ChannelName::parse(channel, call.app.limits.max_channel_name, call.app.strict_names)
        .map_err(|_| Rejection::text(StatusCode::BAD_REQUEST, "The channel name is invalid."))
}

#[derive(Serialize)]
struct Listed {
    channels: ChannelMap,
}

#[derive(Serialize)]
struct Described {
    occupied: bool,
    #[serde(flatten)]
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache>,
}

/// The last event of a cache channel, as Pusher's API describes it.
#[derive(Serialize)]
struct Cache {
    data: Box<str>,
    ttl: u64,
}

impl Cache {
    fn of(cached: CachedEvent) -> Self {
        Self { data: (*cached.data).into(), ttl: cached.ttl_s }
    }
}
