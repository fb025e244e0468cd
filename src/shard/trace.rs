//! The log lines of `--debug` for events: the name, the beginning of the data, and the number of
//! recipients.
//!
//! The home of a channel knows the number of subscribers. Only the shard of the connection that an
//! event excepts (the sender of a client event, `socket_id` of a publish) knows whether that
//! connection is among them. So the home writes the line if no connection is excepted, and
//! otherwise asks that shard to do so. Without `--debug` none of this happens: a publish costs one
//! load more, and no message has a field for it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::{Level, debug};

use crate::channels::{ChannelKey, Event};
use crate::frame::Frame;
use crate::id::SocketId;
use crate::text::{Name, without_signatures};

/// A published event, with what its log line needs.
#[derive(Debug)]
pub struct Traced {
    key: ChannelKey,
    frame: Frame,
    except: Option<SocketId>,
    /// Whether a client has sent it.
    whisper: bool,
    /// The number of subscribers on all shards, including the excepted one.
    subscribers: u32,
}

/// Whether the log takes lines of `--debug` now.
pub(super) fn debugging() -> bool {
    tracing::enabled!(Level::DEBUG)
}

impl Traced {
    /// Records an event at its home, for its log line.
    pub(super) fn new(event: &Event, whisper: bool, subscribers: u32) -> Self {
        let (key, frame) = (event.key.clone(), event.frame.clone());
        Self { key, frame, except: event.except, whisper, subscribers }
    }

    /// The connection that does not get the event, if any.
    pub(super) const fn except(&self) -> Option<SocketId> {
        self.except
    }

    pub(super) const fn key(&self) -> &ChannelKey {
        &self.key
    }

    /// Writes the line. `excepted` is whether the excepted connection is among the subscribers.
    pub(super) fn write(&self, app: &str, excepted: bool) {
        let Self { key, frame, except, whisper, subscribers } = self;
        let subscribers = subscribers.saturating_sub(u32::from(excepted));
        let (event, data) = told(frame);
        let (event, channel, data) = (Name(&event), Name(key.name().as_str()), &*data);
        let what = if *whisper { "whisper" } else { "broadcasting" };
        let socket_id = except.map(tracing::field::display);
        debug!(app, data, subscribers, socket_id, "{what} to {channel}: {event}");
    }
}

/// The name and the data of an encoded event.
fn told(frame: &Frame) -> (String, String) {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let Ok(Event { event, data }) = serde_json::from_slice(frame.payload()) else {
        return Default::default();
    };
    let json = data.map_or("null", RawValue::get);
    // The data of an event of the API is a JSON string, whose content is shown.
    let text = serde_json::from_str::<String>(json);
    let data = text.as_deref().unwrap_or(json);
    (without_signatures(&event), without_signatures(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::outbound;

    #[test]
    fn an_event_of_any_length_is_told_by_its_name_and_the_beginning_of_its_data() {
        for len in [0, 10, 100, 200, 1000, 70_000] {
            let data = "ü".repeat(len);
            let (event, shown) = told(&outbound::event("App\\Events\\Seen", &data, "c"));
            assert_eq!((event.as_str(), shown), ("App\\Events\\Seen", "ü".repeat(len.min(200))));
        }
        let object = r#"{"typing":true}"#;
        let whisper = outbound::client_event("client-x", "private-a", Some(object), None);
        assert_eq!(told(&whisper), ("client-x".to_owned(), object.to_owned()));
    }
}
