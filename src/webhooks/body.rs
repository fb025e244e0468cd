//! The JSON of events and of request bodies, as Pusher's server libraries read them.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::channels::{ChannelEvent, Notice};

/// The part of a body before its events. `time_ms` is Unix time.
pub(super) fn opening(time_ms: u64) -> String {
    format!(r#"{{"time_ms":{time_ms},"events":["#)
}

/// The part of a body behind its events.
pub(super) const CLOSING: &[u8] = b"]}";

/// A body that this gateway wrote, with another time, because Pusher's library for Python accepts
/// none that is older than five minutes.
pub(super) fn restamped(body: &[u8], time_ms: u64) -> Vec<u8> {
    let events = body.iter().position(|&byte| byte == b',').map_or(body, |at| &body[at..]);
    [format!(r#"{{"time_ms":{time_ms}"#).as_bytes(), events].concat()
}

/// The number of events in a body that this gateway wrote; `None` for anything else.
pub(super) fn count(body: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        time_ms: u64,
        events: Vec<IgnoredAny>,
    }
    let Body { time_ms, events } = serde_json::from_slice(body).ok()?;
    body.starts_with(opening(time_ms).as_bytes()).then_some(events.len())
}

/// One event as JSON.
pub(super) fn event(notice: &Notice) -> Vec<u8> {
    let mut event =
        EventJson { name: notice.kind().name(), channel: &notice.channel, ..EventJson::default() };
    let (data, socket_id);
    match &notice.event {
        ChannelEvent::Occupied | ChannelEvent::Vacated | ChannelEvent::CacheMiss => {}
        ChannelEvent::MemberAdded(user) | ChannelEvent::MemberRemoved(user) => {
            event.user_id = Some(user)
        }
        ChannelEvent::SubscriptionCount(count) => event.subscription_count = Some(*count),
        ChannelEvent::ClientEvent(whisper) => {
            data = text_of(whisper.data.as_deref());
            socket_id = whisper.socket_id.to_string();
            event.event = Some(&whisper.event);
            event.data = Some(&data);
            event.socket_id = Some(&socket_id);
            event.user_id = whisper.user_id.as_deref();
        }
    }
    let json = serde_json::to_vec(&event);
    // Strings and a number are serialized into memory, which cannot fail.
    debug_assert!(json.is_ok(), "{json:?}");
    json.unwrap_or_default()
}

/// An event in Pusher's form.
#[derive(Default, Serialize)]
struct EventJson<'a> {
    name: &'a str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u32>,
}

/// The `data` of a client event as a string, which it always is at Pusher: a string stays as it is,
/// anything else becomes its JSON.
fn text_of(data: Option<&RawValue>) -> String {
    let json = data.map_or("null", RawValue::get);
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::channels::ClientEventNotice;
    use crate::id::SocketId;

    use super::*;

    fn json_of(channel: &str, what: ChannelEvent) -> Value {
        serde_json::from_slice(&event(&Notice::of(channel, what))).unwrap()
    }

    #[test]
    fn every_event_has_the_fields_of_pushers() {
        let occupied = json_of("a", ChannelEvent::Occupied);
        assert_eq!(occupied, json!({ "name": "channel_occupied", "channel": "a" }));
        let vacated = json_of("a", ChannelEvent::Vacated);
        assert_eq!(vacated, json!({ "name": "channel_vacated", "channel": "a" }));
        let miss = json_of("cache-a", ChannelEvent::CacheMiss);
        assert_eq!(miss, json!({ "name": "cache_miss", "channel": "cache-a" }));
        let count = json_of("a", ChannelEvent::SubscriptionCount(3));
        let expected =
            json!({ "name": "subscription_count", "channel": "a", "subscription_count": 3 });
        assert_eq!(count, expected);
        for (what, name) in [
            (ChannelEvent::MemberAdded("7".into()), "member_added"),
            (ChannelEvent::MemberRemoved("7".into()), "member_removed"),
        ] {
            let expected = json!({ "name": name, "channel": "presence-a", "user_id": "7" });
            assert_eq!(json_of("presence-a", what), expected);
        }
    }

    #[test]
    fn another_time_changes_nothing_else() {
        let body = |time| [opening(time).as_bytes(), b"1,2", CLOSING].concat();
        assert_eq!(restamped(&body(1), 23), body(23));
        assert_eq!(body(23), br#"{"time_ms":23,"events":[1,2]}"#);
    }

    #[test]
    fn only_bodies_of_ours_have_a_number_of_events() {
        for (body, events) in [
            (r#"{"time_ms":23,"events":[]}"#, Some(0)),
            (r#"{"time_ms":23,"events":[{"name":"a,b"},{}]}"#, Some(2)),
            (r#"{"events":[1,2],"time_ms":23}"#, None),
            (r#"{"time_ms": 23,"events":[1]}"#, None),
            (r#"{"time_ms":23,"events":[1],"more":1}"#, None),
            (r#"{"time_ms":-1,"events":[1]}"#, None),
            (r#"{"time_ms":23,"events":[1}"#, None),
            (r#""a,b""#, None),
            ("", None),
        ] {
            assert_eq!(count(body.as_bytes()), events, "{body}");
        }
    }

    #[test]
    fn data_of_a_client_event_is_a_text_whatever_was_sent() {
        for (sent, expected) in [
            (Some(r#""a\"b\u00fc""#), "a\"bü"),
            (Some(r#"{"a": [1,"b"]}"#), r#"{"a": [1,"b"]}"#),
            (
                Some(r#""{\"nonce\":\"n\",\"ciphertext\":\"c\"}""#),
                r#"{"nonce":"n","ciphertext":"c"}"#,
            ),
            (None, "null"),
        ] {
            let data = sent.map(|json| RawValue::from_string(json.into()).unwrap());
            let whisper = ClientEventNotice {
                event: "client-x".into(),
                data,
                socket_id: SocketId { high: 1, low: 2 },
                user_id: Some(Arc::from("u")),
            };
            let expected = json!({
                "name": "client_event", "channel": "presence-a", "event": "client-x",
                "data": expected, "socket_id": "1.2", "user_id": "u",
            });
            assert_eq!(
                json_of("presence-a", ChannelEvent::ClientEvent(Box::new(whisper))),
                expected
            );
        }
    }
}
