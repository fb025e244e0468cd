//! The messages of clients to the floor, and its answers. This is not a parser: it knows the bytes
//! that `ringwave storm` sends, and looks at no more of them than it needs to answer.

use bytes::Bytes;
use ringwave::testing::frame::Frame;

/// One request or one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Upgrade,
    /// A publish. The subscribers of the channel get the body as it came, with its stamp.
    Publish {
        channel: &'a [u8],
        body: &'a [u8],
    },
    /// A subscribe to this channel.
    Subscribe(&'a [u8]),
    /// A client event, which the other subscribers get as it came.
    Whisper(&'a [u8]),
    Close,
    Other,
}

/// The request at the start of `bytes` with its length, if all of it is there.
pub(super) fn request(bytes: &[u8]) -> Option<(Said<'_>, usize)> {
    let head = find(bytes, b"\r\n\r\n")?;
    let start = head + 4;
    if bytes.starts_with(b"GET ") {
        return Some((Said::Upgrade, start));
    }
    // The last word of the head is the length of the body.
    let length = bytes[..head].rsplit(|byte| *byte == b' ').next()?;
    let end = start + str::from_utf8(length).ok()?.parse::<usize>().ok()?;
    let body = bytes.get(start..end)?;
    Some((Said::Publish { channel: channel(body), body }, end))
}

/// The frame at the start of `bytes` with its length, if all of it is there. The mask is zero.
pub(super) fn frame(bytes: &[u8]) -> Option<(Said<'_>, usize)> {
    const MASK: usize = 4;
    let [first, second, ..] = *bytes else { return None };
    let (header, len) = match second & 127 {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        len => (2, usize::from(len)),
    };
    let start = header + MASK;
    let end = start + len;
    let payload = bytes.get(start..end)?;
    let said = if first & 15 == 8 {
        Said::Close
    } else if payload.starts_with(br#"{"event":"pusher:subscribe""#) {
        Said::Subscribe(channel(payload))
    } else if payload.starts_with(br#"{"event":"client-"#) {
        Said::Whisper(payload)
    } else {
        Said::Other
    };
    Some((said, end))
}

/// The answers, which are the same for every client.
pub(super) struct Answers {
    /// The answer to an upgrade: the 101 and the greeting.
    pub(super) hello: Bytes,
    /// The answer to a subscription.
    pub(super) subscribed: Bytes,
    /// The answer to a publish.
    pub(super) taken: Bytes,
}

impl Answers {
    pub(super) fn new() -> Self {
        // The key that is answered is the one of RFC 6455 section 1.3, which storm always sends.
        let mut hello = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            .to_vec();
        let greeting = concat!(
            r#"{"event":"pusher:connection_established","#,
            r#""data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#
        );
        hello.extend_from_slice(text(greeting.as_bytes()).bytes());
        let subscribed = br#"{"event":"pusher_internal:subscription_succeeded","data":"{}"}"#;
        let taken = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
            Content-Length: 2\r\n\r\n{}";
        Self {
            hello: Bytes::from(hello),
            subscribed: text(subscribed).into_bytes(),
            taken: Bytes::from_static(taken),
        }
    }
}

/// A text frame of the server.
pub(super) fn text(payload: &[u8]) -> Frame {
    Frame::text(payload.len(), |out| out.extend_from_slice(payload))
}

/// The name in a `channel` field; empty without one.
fn channel(json: &[u8]) -> &[u8] {
    const FIELD: &[u8] = br#""channel":""#;
    let Some(at) = find(json, FIELD) else { return b"" };
    json[at + FIELD.len()..].split(|byte| *byte == b'"').next().unwrap_or_default()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
