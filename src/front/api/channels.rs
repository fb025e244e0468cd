//! `GET /channels` and `GET /channels/{channel}`.

use hyper::StatusCode;
use serde::Serialize;

use crate::protocol::names::ChannelName;

use super::super::gateway::{CachedEvent, Gateway, GatewayCommand};
use super::super::response::{HttpResponse, Rejection, json, json_text};
use super::call::Call;
use super::info::ChannelCounts;

/// Lists the occupied channels whose names begin with `filter_by_prefix`.
pub(super) async fn list<G: Gateway>(call: &Call<'_, G>) -> Result<HttpResponse, Rejection> {
    let prefix = call.parameter("filter_by_prefix").unwrap_or_default().into();
    let info = call.info();
    let app = call.app.clone();
    let occupied = call.ask(|reply| GatewayCommand::Channels { app, prefix, reply }).await?;
    let mut list = ChannelList::default();
    for (part, channels) in occupied.chunks(CHANNELS_AT_ONCE).enumerate() {
        if part > 0 {
            call.pace.next_turn().await;
        }
        for (name, state) in channels {
            list.push(name, info.counts(name, state));
        }
    }
    Ok(json_text(list.end()))
}

/// The number of channels that are written in a turn, which takes about a millisecond. A list may
/// have a million channels.
const CHANNELS_AT_ONCE: usize = 8192;

/// Describes one channel, occupied or not.
pub(super) async fn describe<G: Gateway>(
    call: &Call<'_, G>,
    channel: &str,
) -> Result<HttpResponse, Rejection> {
    let channel = named(call, channel)?;
    let info = call.info();
    let asked = call.key_of(channel.clone());
    let state = call.ask(|reply| GatewayCommand::Channel { channel: asked, reply }).await?;
    let described = ChannelDescription {
        occupied: state.occupied(),
        counts: info.counts(&channel, &state),
        cache: state
            .cached
            .filter(|_| info.cache && channel.kind().is_cache())
            .map(CacheDescription::of),
    };
    Ok(json(&described))
}

/// Reads the channel of a path by the app's rules for names: no channel has another name.
pub(super) fn named<G>(call: &Call<'_, G>, channel: &str) -> Result<ChannelName, Rejection> {
    ChannelName::parse(channel, call.app.rules.limits.max_channel_name, call.app.rules.strict_names)
        .map_err(|_| Rejection::text(StatusCode::BAD_REQUEST, "The channel name is invalid."))
}

/// `{"channels":{"name":{…},…}}`, written by parts. An empty list is an object as well, because the
/// PHP client breaks on `[]`. A name is there twice if its channel was vacated and occupied while
/// the list was made; both counts were true, and readers of JSON take the last one.
#[derive(Default)]
struct ChannelList(Vec<u8>);

impl ChannelList {
    fn push(&mut self, name: &ChannelName, counts: ChannelCounts) {
        self.0.extend_from_slice(if self.0.is_empty() { br#"{"channels":{"# } else { b"," });
        // Writing text and numbers to memory cannot fail.
        let _written = serde_json::to_writer(&mut self.0, name.as_str());
        self.0.push(b':');
        let _written = serde_json::to_writer(&mut self.0, &counts);
    }

    fn end(self) -> Vec<u8> {
        let mut text = self.0;
        text.extend_from_slice(if text.is_empty() { br#"{"channels":{}}"# } else { b"}}" });
        text
    }
}

#[derive(Serialize)]
struct ChannelDescription {
    occupied: bool,
    #[serde(flatten)]
    counts: ChannelCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<CacheDescription>,
}

/// The last event of a cache channel, as Pusher's API describes it.
#[derive(Serialize)]
struct CacheDescription {
    data: Box<str>,
    ttl: u64,
}

impl CacheDescription {
    fn of(cached: CachedEvent) -> Self {
        Self { data: (*cached.data).into(), ttl: cached.ttl_s }
    }
}
