//! Floor 1. The header of a client's frame: collected from pieces of any size, and judged by the
//! rules that hold for every single frame (RFC 6455 sections 5.1, 5.2 and 5.5).

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{self, OpCode};

use super::{Close, Message, Violation, mask};
use crate::frame::CONTROL_PAYLOAD_MAX;

/// The longest header: two bytes, a length of 64 bits and the mask.
const HEADER_MAX: usize = 14;

/// A valid header of a frame, with the length of the payload that is still to come.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) op: Opcode,
    /// Whether the frame is the last one of its message.
    pub(super) fin: bool,
    /// Payload bytes that have not come yet.
    pub(super) left: usize,
    /// The mask, rotated so that its first byte is for the next byte of the payload.
    mask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Data(Data),
    Control(Control),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Text,
    Binary,
    Continuation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Close,
    Ping,
    Pong,
}

impl Head {
    /// Judges a header. `len` is the payload length that it announces, `size` the length of the
    /// header itself.
    fn judge(header: &FrameHeader, len: u64, size: usize) -> Result<Self, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::RESERVED_BITS);
        }
        let Some(mask) = header.mask else { return Err(Violation::UNMASKED) };
        if size != header.len(len) || len > i64::MAX as u64 {
            return Err(Violation::BAD_LENGTH);
        }
        let op = Opcode::of(header.opcode)?;
        if matches!(op, Opcode::Control(_)) && !header.is_final {
            return Err(Violation::FRAGMENTED_CONTROL);
        }
        if matches!(op, Opcode::Control(_)) && len > CONTROL_PAYLOAD_MAX as u64 {
            return Err(Violation::CONTROL_TOO_BIG);
        }
        let left = usize::try_from(len).map_err(|_| Violation::MESSAGE_TOO_BIG)?;
        Ok(Self { op, fin: header.is_final, left, mask })
    }

    /// Unmasks the next `piece` of the payload, which is at most what is left of it.
    pub(super) fn unmask(&mut self, piece: &mut [u8]) {
        mask::apply(piece, self.mask);
        self.mask.rotate_left(piece.len() % 4);
        self.left -= piece.len();
    }
}

impl Opcode {
    const fn of(opcode: OpCode) -> Result<Self, Violation> {
        Ok(match opcode {
            OpCode::Data(coding::Data::Text) => Self::Data(Data::Text),
            OpCode::Data(coding::Data::Binary) => Self::Data(Data::Binary),
            OpCode::Data(coding::Data::Continue) => Self::Data(Data::Continuation),
            OpCode::Control(coding::Control::Close) => Self::Control(Control::Close),
            OpCode::Control(coding::Control::Ping) => Self::Control(Control::Ping),
            OpCode::Control(coding::Control::Pong) => Self::Control(Control::Pong),
            OpCode::Data(coding::Data::Reserved(_))
            | OpCode::Control(coding::Control::Reserved(_)) => {
                return Err(Violation::UNKNOWN_OPCODE);
            }
        })
    }
}

impl Data {
    /// The message of a frame that carries all of the message's payload.
    pub(super) fn message(self, payload: &[u8]) -> Result<Message<'_>, Violation> {
        match self {
            Self::Text => str::from_utf8(payload).map(Message::Text).or(Err(Violation::NOT_UTF8)),
            Self::Binary | Self::Continuation => Ok(Message::Binary(payload)),
        }
    }
}

impl Control {
    /// The message of a control frame with this payload.
    pub(super) fn message(self, payload: &[u8]) -> Result<Message<'_>, Violation> {
        match self {
            Self::Close => close(payload).map(Message::Close),
            Self::Ping => Ok(Message::Ping(payload)),
            Self::Pong => Ok(Message::Pong(payload)),
        }
    }
}

/// Parses the payload of a close frame: nothing, or a code with a reason that may be empty (RFC
/// 6455 section 5.5.1).
fn close(payload: &[u8]) -> Result<Option<Close<'_>>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::BAD_CLOSE) };
    };
    let code = u16::from_be_bytes(*code);
    // RFC 6455 section 7.4 and IANA's registry: 1004 to 1006 and 1015 are never sent.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::BAD_CLOSE_CODE);
    }
    let reason = str::from_utf8(reason).or(Err(Violation::NOT_UTF8))?;
    Ok(Some(Close { code, reason }))
}

/// The bytes of a header that is not whole yet.
#[derive(Debug, Default)]
pub(super) struct HeaderBytes {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

impl HeaderBytes {
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the bytes of `input` that can belong to the header. Returns the header and how many
    /// bytes of `input` it took, or `None` if it took them all and needs more.
    pub(super) fn complete(&mut self, input: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
        let held = self.len;
        self.len = HEADER_MAX.min(held + input.len());
        self.bytes[held..self.len].copy_from_slice(&input[..self.len - held]);
        let mut cursor = Cursor::new(&self.bytes[..self.len]);
        match FrameHeader::parse(&mut cursor) {
            Ok(None) => Ok(None),
            Ok(Some((header, len))) => {
                let size = cursor.position() as usize;
                Ok(Some((Head::judge(&header, len, size)?, size - held)))
            }
            Err(_) => Err(Violation::UNKNOWN_OPCODE),
        }
    }
}
