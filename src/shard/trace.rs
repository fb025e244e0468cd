//! The lines of `--debug` for events: the name, the beginning of the data, and how many get it.
//!
//! The home of a channel knows how many are subscribed, and only the shard of the connection that
//! an event excepts (the sender of a client event, `socket_id` of a publish) knows whether that one
//! is among them. So the home writes the line if no connection is excepted, and otherwise asks that
//! shard to. Without `--debug` none of this happens: a publish costs one load more, and no message
//! has a field for it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::Level;

use super::Message;
use super::subscriber_side::SubscriberSide;
use crate::channels::{ChannelKey, Event};
use crate::frame::Frame;
use crate::id::SocketId;
use crate::text::without_signatures;

/// An event that was published, on its way to its line of the log.
#[derive(Debug)]
pub struct Traced {
    key: ChannelKey,
    frame: Frame,
    except: Option<SocketId>,
    /// A client has sent it.
    whisper: bool,
    /// How many are subscribed on all shards, the excepted one included.
    subscribers: u32,
}

/// Whether lines of `--debug` are wanted now.
pub(super) fn debugging() -> bool {
    tracing::enabled!(Level::DEBUG)
}

impl Traced {
    /// The line to be of an event at its home.
    pub(super) fn new(event: &Event, whisper: bool, subscribers: u32) -> Self {
        let (key, frame) = (event.key.clone(), event.frame.clone());
        Self { key, frame, except: event.except, whisper, subscribers }
    }
}

impl SubscriberSide {
    /// Has an event told, behind its deliveries, by the shard of the excepted connection if there
    /// is one.
    pub(super) fn trace(&mut self, traced: Traced) {
        let shard = traced.except.map(|id| self.socket_ids.shard_of(id));
        match shard.filter(|&shard| self.link.topology.contains(shard)) {
            Some(shard) => self.link.send(shard, Message::Traced(Box::new(traced))),
            // The event excepts no connection, or the id is none of ours.
            None => self.tell_traced(&traced),
        }
    }

    /// Writes the line.
    pub(super) fn tell_traced(&self, traced: &Traced) {
        let Traced { key, frame, except, whisper, subscribers } = traced;
        let slot = except.and_then(|id| self.slot_of(id));
        let excepted = slot.is_some_and(|slot| self.local.membership(slot, key).is_some());
        let subscribers = subscribers.saturating_sub(u32::from(excepted));
        let app = self.app_name(key.app());
        let (event, data) = told(frame);
        let (event, data, channel) = (&*event, &*data, key.name().as_str());
        let socket_id = except.map(tracing::field::display);
        match whisper {
            true => tracing::debug!(app, channel, event, data, subscribers, socket_id, "whisper"),
            false => tracing::debug!(app, channel, event, data, subscribers, socket_id, "publish"),
        }
    }
}

/// Name and data of an event that subscribers get.
fn told(frame: &Frame) -> (String, String) {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let Ok(Event { event, data }) = serde_json::from_slice(payload(frame)) else {
        return Default::default();
    };
    let json = data.map_or("null", RawValue::get);
    // Data of the API is a string, which is shown as what it holds.
    let text = serde_json::from_str::<String>(json);
    let data = text.as_deref().unwrap_or(json);
    (without_signatures(&event), without_signatures(data))
}

/// The payload of a server's frame, which follows its header (RFC 6455 section 5.2).
fn payload(frame: &Frame) -> &[u8] {
    let bytes = frame.bytes();
    let header = match bytes.get(1).map(|byte| byte & 0x7f) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    bytes.get(header..).unwrap_or_default()
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
