//! The messages of clients to the floor, and its answers. HTTP is parsed by the parser that the
//! gateway uses. The JSON is searched for the names that `ringwave storm` sends, and not parsed.

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::handshake::derive_accept_key;

/// The most header lines of a request. `ringwave storm` sends five at most.
const HEADERS_MAX: usize = 16;

/// One request or one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A WebSocket handshake with this key.
    Upgrade(&'a [u8]),
    /// A publish. The subscribers of the channel get the body as it came, with its stamp.
    Publish {
        channel: &'a [u8],
        body: &'a [u8],
    },
    /// A subscribe to this channel.
    Subscribe(&'a [u8]),
    /// A client event, which the other subscribers get as it came.
    ClientEvent(&'a [u8]),
    Close,
    Other,
}

/// The request at the start of `bytes` with its length, if all of it is there.
pub(super) fn request(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = request.parse(bytes).ok()? else { return None };
    let value = |name: &str| {
        let mut headers = request.headers.iter();
        headers.find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    if let Some(key) = value("Sec-WebSocket-Key") {
        return Some((Message::Upgrade(key), start));
    }
    let len: usize = str::from_utf8(value("Content-Length")?).ok()?.parse().ok()?;
    let body = bytes.get(start..start + len)?;
    Some((Message::Publish { channel: channel(body), body }, start + len))
}

/// The frame at the start of `bytes` with its length, if all of it is there. The mask is zero.
pub(super) fn frame(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    const MASK: usize = 4;
    let [first, second, ..] = *bytes else { return None };
    let (header, len) = match second & 127 {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        len => (2, usize::from(len)),
    };
    let start = header + MASK;
    let end = start + len;
    let payload = bytes.get(start..end)?;
    let message = if first & 15 == 8 {
        Message::Close
    } else if payload.starts_with(br#"{"event":"pusher:subscribe""#) {
        Message::Subscribe(channel(payload))
    } else if payload.starts_with(br#"{"event":"client-"#) {
        Message::ClientEvent(payload)
    } else {
        Message::Other
    };
    Some((message, end))
}

/// The answer to a publish.
pub(super) const PUBLISHED: Bytes = Bytes::from_static(
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
);

const SUBSCRIBED: &[u8] = br#"{"event":"pusher_internal:subscription_succeeded","data":"{}"}"#;

/// The answer to a subscription.
pub(super) fn subscribed() -> Bytes {
    let mut frame = BytesMut::new();
    put_text(&mut frame, SUBSCRIBED);
    frame.freeze()
}

/// Appends the answer to an upgrade: the 101 and the greeting.
pub(super) fn put_greeting(out: &mut BytesMut, key: &[u8]) {
    const GREETING: &str = concat!(
        r#"{"event":"pusher:connection_established","#,
        r#""data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#
    );
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(derive_accept_key(key).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    put_text(out, GREETING.as_bytes());
}

/// Appends a text frame of the server (RFC 6455 section 5.2).
pub(super) fn put_text(out: &mut BytesMut, payload: &[u8]) {
    const FINAL_TEXT: u8 = 0x81;
    out.reserve(4 + payload.len());
    out.put_u8(FINAL_TEXT);
    match u16::try_from(payload.len()).expect("storm sends no longer messages") {
        len @ 0..126 => out.put_u8(len as u8),
        len => {
            out.put_u8(126);
            out.put_u16(len);
        }
    }
    out.extend_from_slice(payload);
}

/// The name in a `channel` field; empty without one.
fn channel(json: &[u8]) -> &[u8] {
    const FIELD: &[u8] = br#""channel":""#;
    let Some(at) = json.windows(FIELD.len()).position(|window| window == FIELD) else { return b"" };
    json[at + FIELD.len()..].split(|byte| *byte == b'"').next().unwrap_or_default()
}
