//! Floor 1. Messages from server to client, as frames that are ready for the wire.
//!
//! Contract: the forms are Reverb's, key order included. Its escapes of `/` and of letters beyond
//! ASCII are not copied, because no client depends on them and they cost bytes. The `data` of a
//! published event is the publisher's string, and the `data` of a client event is the sender's
//! JSON, both unchanged.

use std::fmt::Display;
use std::io::Write;

use bytes::Bytes;

use crate::frame::Frame;
use crate::id::SocketId;

use super::auth::Member;

/// The first message of a connection: its id, and the seconds of silence after which the client
/// pings.
#[must_use]
pub(crate) fn connection_established(socket_id: SocketId, activity_timeout_s: u32) -> Frame {
    frame(FORM_LEN, |out| {
        out.raw(r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#);
        out.number(socket_id);
        out.raw(r#"\",\"activity_timeout\":"#);
        out.number(activity_timeout_s);
        out.raw(r#"}"}"#);
    })
}

/// The answer to `pusher:ping`. All connections share one frame.
#[must_use]
pub(crate) const fn pong() -> Frame {
    Frame::from_encoded(Bytes::from_static(b"\x81\x17{\"event\":\"pusher:pong\"}"))
}

/// The ping of a silent client, in two frames: `pusher:ping` and a WebSocket ping, because some
/// clients answer only the latter. All connections share it.
#[must_use]
pub(crate) const fn ping() -> Frame {
    Frame::from_encoded(Bytes::from_static(b"\x81\x17{\"event\":\"pusher:ping\"}\x89\x00"))
}

/// Tells that the connection is subscribed to a channel without members.
#[must_use]
pub(crate) fn subscription_succeeded(channel: &str) -> Frame {
    frame(FORM_LEN + channel.len(), |out| {
        out.raw(r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"#);
        out.string(channel);
        out.raw("}");
    })
}

/// The members of a presence channel, as a subscriber gets them. They are encoded once: a new
/// member costs the encoding of that member, and all subscribers in between share the frame.
#[derive(Debug, Default)]
pub(crate) struct MemberList {
    count: usize,
    /// The JSON of the list, with the escapes of a string that holds it.
    ids: Json,
    hash: Json,
}

impl MemberList {
    /// Adds a member who is not listed yet: `user_id`, `id_json` and `user_info` as in [`Member`].
    ///
    /// A member without `user_info` gets an empty object, because the hash must have a value for
    /// each.
    pub(crate) fn push(&mut self, user_id: &str, id_json: &str, user_info: Option<&str>) {
        if self.count > 0 {
            self.ids.raw(",");
            self.hash.raw(",");
        }
        self.count += 1;
        self.ids.escaped(id_json);
        let mut entry = Json::default();
        entry.string(user_id);
        entry.raw(":");
        entry.raw(user_info.unwrap_or("{}"));
        self.hash.escaped(entry);
    }

    /// The answer to the subscribe of a member.
    #[must_use]
    pub(crate) fn subscription_succeeded(&self, channel: &str) -> Frame {
        let lists = self.ids.0.len() + self.hash.0.len();
        frame(FORM_LEN + PRESENCE_LEN + channel.len() + lists, |out| {
            out.raw(r#"{"event":"pusher_internal:subscription_succeeded","data":"#);
            out.raw(r#""{\"presence\":{\"count\":"#);
            out.number(self.count);
            out.raw(r#",\"ids\":["#);
            out.raw(&self.ids);
            out.raw(r#"],\"hash\":{"#);
            out.raw(&self.hash);
            out.raw(r#"}}}","channel":"#);
            out.string(channel);
            out.raw("}");
        })
    }
}

/// Tells that a user has joined a presence channel with its first connection.
#[must_use]
pub(crate) fn member_added(channel: &str, member: &Member) -> Frame {
    let data = match &member.user_info {
        Some(info) => format!(r#"{{"user_id":{},"user_info":{info}}}"#, member.id_json),
        None => format!(r#"{{"user_id":{}}}"#, member.id_json),
    };
    with_data("pusher_internal:member_added", data, channel)
}

/// Tells that the last connection of a user has left a presence channel.
#[must_use]
pub(crate) fn member_removed(channel: &str, id_json: &str) -> Frame {
    let data = format!(r#"{{"user_id":{id_json}}}"#);
    with_data("pusher_internal:member_removed", data, channel)
}

/// Tells that a cache channel has no event.
#[must_use]
pub(crate) fn cache_miss(channel: &str) -> Frame {
    frame(FORM_LEN, |out| {
        out.raw(r#"{"event":"pusher:cache_miss","channel":"#);
        out.string(channel);
        out.raw("}");
    })
}

/// Tells how many subscribers a channel has.
#[must_use]
pub(crate) fn subscription_count(channel: &str, count: u32) -> Frame {
    frame(FORM_LEN + channel.len(), |out| {
        out.raw(
            r#"{"event":"pusher_internal:subscription_count","data":"{\"subscription_count\":"#,
        );
        out.number(count);
        out.raw(r#"}","channel":"#);
        out.string(channel);
        out.raw("}");
    })
}

/// A published event.
#[must_use]
pub fn event(name: &str, data: &str, channel: &str) -> Frame {
    with_data(name, data, channel)
}

/// A client event for the other subscribers of its channel. `data` and `id_json`, the user id of
/// the sender on a presence channel, are JSON. Without data it carries null, as in Reverb, because
/// readers such as Java's `getData()` expect the key.
#[must_use]
pub(crate) fn client_event(
    event: &str,
    channel: &str,
    data: Option<&str>,
    id_json: Option<&str>,
) -> Frame {
    let hint = FORM_LEN + event.len() + channel.len() + data.map_or(0, str::len);
    frame(hint, |out| {
        out.raw(r#"{"event":"#);
        out.string(event);
        out.raw(r#","channel":"#);
        out.string(channel);
        out.raw(r#","data":"#);
        out.raw(data.unwrap_or("null"));
        if let Some(id_json) = id_json {
            out.raw(r#","user_id":"#);
            out.raw(id_json);
        }
        out.raw("}");
    })
}

/// The refusal of a subscribe in Pusher's form, which Echo's `.error()` receives on the channel.
/// `kind` is `AuthError` or `LimitReached`.
#[must_use]
pub(crate) fn subscription_error(channel: &str, kind: &str, text: &str, status: u16) -> Frame {
    frame(FORM_LEN, |out| {
        out.raw(r#"{"event":"pusher:subscription_error","channel":"#);
        out.string(channel);
        out.raw(r#","data":{"type":"#);
        out.string(kind);
        out.raw(r#","error":"#);
        out.string(text);
        out.raw(r#","status":"#);
        out.number(status);
        out.raw("}}");
    })
}

/// `pusher:error` with one of the protocol's codes.
#[must_use]
pub(crate) fn error(code: u16, text: &str) -> Frame {
    let mut data = Json::default();
    data.raw(r#"{"code":"#);
    data.number(code);
    data.raw(r#","message":"#);
    data.string(text);
    data.raw("}");
    without_channel("pusher:error", data)
}

/// Tells that the connection is signed in as the user of this `user_data`, as it was signed.
#[must_use]
pub(crate) fn signin_success(user_data: &str) -> Frame {
    let mut data = Json::default();
    data.raw(r#"{"user_data":"#);
    data.string(user_data);
    data.raw("}");
    without_channel("pusher:signin_success", data)
}

/// Tells that watched users came online (`true`) or went offline, in this order. Consecutive users
/// with the same news share an event.
pub(crate) fn watchlist_events<'u>(news: impl Iterator<Item = (&'u str, bool)>) -> Frame {
    let mut data = Json::default();
    let mut told = None;
    data.raw(r#"{"events":["#);
    for (user_id, online) in news {
        if told == Some(online) {
            data.raw(",");
        } else {
            data.raw(if told.is_some() { "]}," } else { "" });
            data.raw(r#"{"name":""#);
            data.raw(if online { "online" } else { "offline" });
            data.raw(r#"","user_ids":["#);
            told = Some(online);
        }
        data.string(user_id);
    }
    data.raw(if told.is_some() { "]}]}" } else { "]}" });
    without_channel("pusher_internal:watchlist_events", data)
}

/// A message to one connection: `data` is a string, even where it holds JSON.
fn without_channel(event: &str, data: Json) -> Frame {
    let data = data.0;
    frame(FORM_LEN + data.len() + data.len() / 8, |out| {
        out.raw(r#"{"event":"#);
        out.string(event);
        out.raw(r#","data":"#);
        out.string(data);
        out.raw("}");
    })
}

/// The form of most messages: `data` is a string, even where it holds JSON.
fn with_data(event: &str, data: impl AsRef<[u8]>, channel: &str) -> Frame {
    let data = data.as_ref();
    // An eighth more is for the escapes of JSON in JSON; a wrong guess costs a copy, no more.
    let hint = FORM_LEN + event.len() + channel.len() + data.len() + data.len() / 8;
    frame(hint, |out| {
        out.raw(r#"{"event":"#);
        out.string(event);
        out.raw(r#","data":"#);
        out.string(data);
        out.raw(r#","channel":"#);
        out.string(channel);
        out.raw("}");
    })
}

fn frame(hint: usize, write: impl FnOnce(&mut Json)) -> Frame {
    Frame::text(hint, |buffer| {
        let mut json = Json(std::mem::take(buffer));
        write(&mut json);
        *buffer = json.0;
    })
}

/// JSON that is being written. Its bytes are UTF-8, because they come from texts alone.
#[derive(Debug, Default)]
struct Json(Vec<u8>);

impl AsRef<[u8]> for Json {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Json {
    /// Appends encoded JSON.
    fn raw(&mut self, json: impl AsRef<[u8]>) {
        self.0.extend_from_slice(json.as_ref());
    }

    /// Appends a value that prints as digits and dots.
    fn number(&mut self, number: impl Display) {
        let written = write!(self.0, "{number}");
        debug_assert!(written.is_ok(), "memory refuses no write");
    }

    /// Appends a text as a string, with quotes and escapes.
    fn string(&mut self, text: impl AsRef<[u8]>) {
        self.0.push(b'"');
        self.escaped(text);
        self.0.push(b'"');
    }

    /// Appends a text as a part of a string, with no other escapes than RFC 8259 section 7 demands.
    fn escaped(&mut self, text: impl AsRef<[u8]>) {
        let mut rest = text.as_ref();
        while let Some((at, escape)) =
            rest.iter().enumerate().find_map(|(at, &byte)| Some((at, escape_of(byte)?)))
        {
            let (plain, escaped) = rest.split_at(at);
            self.0.extend_from_slice(plain);
            match escape {
                b'u' => self.number(format_args!("\\u{:04x}", escaped[0])),
                letter => self.0.extend_from_slice(&[b'\\', letter]),
            }
            rest = &escaped[1..];
        }
        self.0.extend_from_slice(rest);
    }
}

/// The letter that follows the backslash, if a byte needs an escape.
const fn escape_of(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        0..0x20 => Some(b'u'),
        _ => None,
    }
}

/// The bytes of the longest form around names and data.
const FORM_LEN: usize = 96;

/// The bytes of the text around the lists of members.
const PRESENCE_LEN: usize = 64;

#[cfg(test)]
mod tests;
