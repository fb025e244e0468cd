//! Floor 0. The unit of fan-out: one encoded WebSocket frame of the server, or several that follow
//! each other.
//!
//! Frames are final and unmasked (RFC 6455 section 5.1), each with the shortest header that its
//! length allows. A frame is built in one buffer and never copied afterwards.

use std::io::Write;

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes that are ready for any number of sockets: header and payload of one or more unmasked
/// server frames (behind the 101 of the handshake, for the first of a connection). Encoded once,
/// then shared by reference count; cloning copies no payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

/// The most payload bytes of a control frame (RFC 6455 section 5.5).
pub(crate) const CONTROL_PAYLOAD_MAX: usize = 125;

/// The most bytes of a close reason: the code takes two of the payload.
pub(crate) const CLOSE_REASON_MAX: usize = CONTROL_PAYLOAD_MAX - 2;

/// The longest header of an unmasked frame: two bytes and a length of 64 bits.
const HEADER_MAX: usize = 10;

impl Frame {
    /// Takes bytes that are whole WebSocket frames.
    #[must_use]
    pub(crate) const fn from_encoded(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Copies bytes that another node has encoded, if they are one whole unmasked text frame with
    /// valid UTF-8, and nothing else. A slice would keep everything in memory that was read with
    /// it, for as long as a slow reader or a cache keeps the frame.
    #[must_use]
    pub(crate) fn text_from_wire(bytes: &[u8]) -> Option<Self> {
        let frame = Self(Bytes::copy_from_slice(bytes));
        let payload = frame.payload();
        let mut room = [0; HEADER_MAX];
        let header = header(OpCode::Data(Data::Text));
        let len = header.len(payload.len() as u64);
        put(&header, payload.len(), &mut &mut room[..]);
        let whole = frame.len() == len + payload.len() && frame.0.starts_with(&room[..len]);
        (whole && std::str::from_utf8(payload).is_ok()).then_some(frame)
    }

    /// A text frame whose payload is what `write` appends. The caller vouches for UTF-8 and does
    /// nothing but append: the bytes that are there already are room for the header, which goes
    /// right before the payload once its length is known. `payload_hint` is the expected length in
    /// bytes; a good one means that the payload is never moved.
    #[must_use]
    pub fn text(payload_hint: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut buffer = Vec::with_capacity(HEADER_MAX + payload_hint);
        buffer.resize(HEADER_MAX, 0);
        write(&mut buffer);
        let (room, payload) = buffer.split_at_mut(HEADER_MAX);
        let header = header(OpCode::Data(Data::Text));
        let start = HEADER_MAX - header.len(payload.len() as u64);
        put(&header, payload.len(), &mut &mut room[start..]);
        Self(Bytes::from(buffer).slice(start..))
    }

    /// A pong frame with the payload of the ping that it answers (RFC 6455 section 5.5.3), at most
    /// [`CONTROL_PAYLOAD_MAX`] bytes.
    #[must_use]
    pub(crate) fn pong(payload: &[u8]) -> Self {
        Self::control(Control::Pong, payload)
    }

    /// A close frame. A reason over [`CLOSE_REASON_MAX`] bytes loses its end, between two
    /// characters.
    #[must_use]
    pub(crate) fn close(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(CLOSE_REASON_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self::control(Control::Close, &[&code.to_be_bytes(), &reason.as_bytes()[..end]].concat())
    }

    /// A close frame without a code: the answer to a close frame without one.
    #[must_use]
    pub(crate) const fn close_empty() -> Self {
        Self(Bytes::from_static(&[0x88, 0]))
    }

    /// A control frame. A longer payload would break the stream for the peer, so a release build
    /// cuts it.
    fn control(kind: Control, payload: &[u8]) -> Self {
        debug_assert!(payload.len() <= CONTROL_PAYLOAD_MAX, "control payload of {}", payload.len());
        let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)];
        let header = header(OpCode::Control(kind));
        let mut buffer = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
        put(&header, payload.len(), &mut buffer);
        buffer.extend_from_slice(payload);
        Self(Bytes::from(buffer))
    }

    /// The bytes as they go on the wire.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes themselves.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The payload of the first frame, which follows its header (RFC 6455 section 5.2).
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let bytes = &self.0;
        let (header, len) = match bytes.get(1..10) {
            Some(&[126, a, b, ..]) => (4, u16::from_be_bytes([a, b]).into()),
            Some(&[127, a, b, c, d, e, f, g, h]) => {
                (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            _ => (2, bytes.get(1).copied().unwrap_or_default().into()),
        };
        let end = usize::try_from(len).map_or(bytes.len(), |len| header + len);
        bytes.get(header..end).unwrap_or_default()
    }

    /// Length on the wire in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a frame has a header, it is never empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }
}

/// The header of a final frame without a mask.
fn header(opcode: OpCode) -> FrameHeader {
    FrameHeader { opcode, ..FrameHeader::default() }
}

/// Writes a header to memory that has room for it, so there is no error to report.
fn put(header: &FrameHeader, payload_len: usize, out: &mut impl Write) {
    let written = header.format(payload_len as u64, out);
    debug_assert!(written.is_ok(), "a frame header did not fit: {written:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(len: usize, hint: usize) -> Frame {
        Frame::text(hint, |out| out.extend(std::iter::repeat_n(b'x', len)))
    }

    #[test]
    fn each_text_length_has_its_shortest_header() {
        for (len, header) in [
            (0, &[0x81, 0][..]),
            (5, &[0x81, 5]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xFF, 0xFF]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            for hint in [0, len, len + 1000] {
                let frame = text_of(len, hint);
                assert_eq!(frame.len(), header.len() + len);
                assert_eq!(&frame.bytes()[..header.len()], header);
                assert!(frame.bytes()[header.len()..].iter().all(|b| *b == b'x'));
            }
        }
    }

    #[test]
    fn of_another_nodes_bytes_only_one_whole_text_frame_is_taken() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let frame = text_of(len, len);
            assert_eq!(Frame::text_from_wire(frame.bytes()), Some(frame.clone()));
            let cut = frame.bytes().slice(..frame.len() - 1);
            assert_eq!(Frame::text_from_wire(&cut), None, "{len}");
            let two = [&frame.bytes()[..], &[0x81, 0]].concat();
            assert_eq!(Frame::text_from_wire(&two), None, "{len}");
        }
        let others: [&[u8]; 8] = [
            b"",
            b"\x81",
            b"\x01\x01a",
            b"\x82\x01a",
            b"\x88\x00",
            b"\x81\x7e\x00\x01a",
            b"\x81\x01\xff",
            b"\x81\x81\x00\x00\x00\x00a",
        ];
        for other in others {
            assert_eq!(Frame::text_from_wire(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_payload_that_fits_the_hint_is_never_moved() {
        let mut written_at = std::ptr::null();
        let frame = Frame::text(200, |out| {
            out.extend([b'x'; 200]);
            written_at = out[10..].as_ptr();
        });
        assert_eq!(frame.bytes()[4..].as_ptr(), written_at);
    }

    #[test]
    fn control_frames_carry_their_payload() {
        assert_eq!(&Frame::pong(b"hi").bytes()[..], [0x8A, 2, b'h', b'i']);
        assert_eq!(&Frame::pong(&[7; 125]).bytes()[..3], [0x8A, 125, 7]);
        assert_eq!(&Frame::close_empty().bytes()[..], [0x88, 0]);
        assert_eq!(&Frame::close(1000, "").bytes()[..], [0x88, 2, 0x03, 0xE8]);
        assert_eq!(&Frame::close(4001, "no").bytes()[..], [0x88, 4, 0x0F, 0xA1, b'n', b'o']);
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        for (reason, kept) in [
            ("a".repeat(123), 123),
            ("a".repeat(124), 123),
            ("\u{e9}".repeat(62), 122),
            (format!("{}\u{1F600}", "a".repeat(120)), 120),
        ] {
            let frame = Frame::close(1000, &reason);
            assert_eq!(frame.bytes()[..4], [0x88, kept + 2, 0x03, 0xE8]);
            assert_eq!(&frame.bytes()[4..], &reason.as_bytes()[..usize::from(kept)]);
        }
    }

    #[test]
    fn the_payload_is_found_behind_each_form_of_header() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let frame = Frame::text(len, |out| out.resize(out.len() + len, b'x'));
            assert_eq!(frame.payload().len(), len);
            assert!(frame.payload().iter().all(|&byte| byte == b'x'));
        }
        let two = [Frame::text(2, |out| out.extend(b"ab")), Frame::text(1, |out| out.extend(b"c"))];
        let bytes: Vec<u8> = two.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
        assert_eq!(Frame::from_encoded(bytes.into()).payload(), b"ab");
    }
}
