//! WebSocket frames from the client's side, as far as a storm needs them: it checks which messages
//! arrive, not every bit of a header.

use bytes::Bytes;

/// Text frame, final (RFC 6455 section 5.2).
const TEXT: u8 = 0x81;
const PONG: u8 = 0x8A;
const CLOSE: u8 = 0x88;
/// The mask bit. The key is zero, which leaves the payload as it is. RFC 6455 section 5.3 asks for
/// unpredictable keys to protect proxies from hostile web pages, and a storm is none.
const MASKED: u8 = 0x80;

/// A masked text frame.
pub(crate) fn text(payload: &[u8]) -> Bytes {
    frame(TEXT, payload)
}

/// The pong that answers a ping with this payload.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, &payload[..payload.len().min(125)])
}

/// A close frame with code 1000, normal closure.
pub(crate) fn close() -> Bytes {
    frame(CLOSE, &1000u16.to_be_bytes())
}

fn frame(first: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(first);
    match payload.len() {
        len @ 0..126 => out.push(MASKED | len as u8),
        len @ 126..65_536 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    Bytes::from(out)
}

/// The kind of a frame that the server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Text, binary, or a continuation.
    Message,
    /// A close frame.
    Close,
    /// A ping frame.
    Ping,
    /// A pong frame, or an unknown opcode.
    Other,
}

/// The frame at the start of `bytes` and its length with the header, if it is complete.
pub(crate) fn first(bytes: &[u8]) -> Option<(FrameKind, &[u8], usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (&second, rest) = rest.split_first()?;
    let (header, len) = match second & 127 {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        len => (2, u64::from(len)),
    };
    let end = usize::try_from(len).ok()?.checked_add(header)?;
    let payload = bytes.get(header..end)?;
    let op = match first & 15 {
        0..=2 => FrameKind::Message,
        8 => FrameKind::Close,
        9 => FrameKind::Ping,
        _ => FrameKind::Other,
    };
    Some((op, payload, end))
}

/// The value of the `event` field of a message, wherever the field stands.
pub(crate) fn event(payload: &[u8]) -> Option<&[u8]> {
    let after_key = after(payload, b"\"event\"")?;
    let after_quote = after(after_key, b"\"")?;
    after_quote.split(|byte| *byte == b'"').next()
}

/// The `socket_id` of a `connection_established`, with its quotes escaped or not.
pub(crate) fn socket_id(payload: &[u8]) -> Option<&[u8]> {
    let digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let rest = after(payload, b"socket_id")?;
    let rest = &rest[rest.iter().position(digit)?..];
    let end = rest.iter().position(|byte| !digit(byte)).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// The `activity_timeout` of a `connection_established`, in seconds.
pub(crate) fn activity_timeout_s(payload: &[u8]) -> Option<u64> {
    let rest = after(payload, b"activity_timeout")?;
    let rest = &rest[rest.iter().position(u8::is_ascii_digit)?..];
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

fn after<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(what.len()).position(|window| window == what)?;
    Some(&text[at + what.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_frame_is_masked_with_zeros_and_has_its_shortest_header() {
        assert_eq!(&text(b"hi")[..], [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(text(&[b'x'; 126])[..8], [0x81, 0xFE, 0, 126, 0, 0, 0, 0]);
        assert_eq!(text(&vec![b'x'; 65_536])[..6], [0x81, 0xFF, 0, 0, 0, 0]);
        assert_eq!(&close()[..], [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8]);
    }

    /// A text frame as servers send it: not masked.
    fn server_text(len: usize) -> Vec<u8> {
        let header = match len {
            0..126 => vec![0x81, len as u8],
            126..65_536 => [&[0x81, 126][..], &(len as u16).to_be_bytes()].concat(),
            _ => [&[0x81, 127][..], &(len as u64).to_be_bytes()].concat(),
        };
        [header, vec![b'y'; len]].concat()
    }

    #[test]
    fn a_frame_is_read_when_it_is_complete() {
        for len in [0, 5, 125, 126, 65_536] {
            let mut bytes = server_text(len);
            let whole = bytes.len();
            for cut in [0, 1, 2, 3, whole - 1].into_iter().filter(|cut| *cut < whole) {
                assert_eq!(first(&bytes[..cut]), None);
            }
            bytes.extend_from_slice(b"next");
            let (op, payload, end) = first(&bytes).unwrap();
            assert_eq!((op, payload.len(), end), (FrameKind::Message, len, whole));
        }
        let huge = [0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255, 0];
        assert_eq!(first(&huge), None);
    }

    #[test]
    fn a_connection_established_is_understood_in_any_order_and_escape() {
        let escaped = concat!(
            r#"{"event":"pusher:connection_established","#,
            r#""data":"{\"socket_id\":\"12.34\",\"activity_timeout\":30}"}"#,
        );
        let escaped = escaped.as_bytes();
        let other = br#"{"data": {"activity_timeout": 120, "socket_id": "5.6"}, "event" : "x:y"}"#;
        assert_eq!(event(escaped), Some(&b"pusher:connection_established"[..]));
        assert_eq!(event(other), Some(&b"x:y"[..]));
        assert_eq!(socket_id(escaped), Some(&b"12.34"[..]));
        assert_eq!(socket_id(other), Some(&b"5.6"[..]));
        assert_eq!(activity_timeout_s(escaped), Some(30));
        assert_eq!(activity_timeout_s(other), Some(120));
        assert_eq!(event(b"{}"), None);
    }
}
