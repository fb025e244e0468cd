//! A strict reader of the server's bytes: RFC 6455 to the letter, without tolerance.

use std::fmt::Debug;

use crate::frames;

/// A frame that the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// The stream of one connection.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Bytes of a frame that is not complete.
    rest: Vec<u8>,
    closed: bool,
}

impl Stream {
    /// Takes the next bytes. Panics, naming `who`, at anything that is not a frame of a server.
    pub(crate) fn feed(&mut self, bytes: &[u8], who: &impl Debug) -> Vec<Heard> {
        self.rest.extend_from_slice(bytes);
        let mut heard = Vec::new();
        let mut at = 0;
        while let Some((frame, len)) = parse(&self.rest[at..], who) {
            assert!(!self.closed, "{who:?}: {frame:?} behind a close frame");
            self.closed = matches!(frame, Heard::Close(_));
            heard.push(frame);
            at += len;
        }
        self.rest.drain(..at);
        heard
    }

    /// Whether the stream ends inside of a frame.
    pub(crate) fn is_torn(&self) -> bool {
        !self.rest.is_empty()
    }
}

/// The first frame and its length, if all of it is there.
fn parse(bytes: &[u8], who: &impl Debug) -> Option<(Heard, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(first & 0xf0, 0x80, "{who:?}: not final, or reserved bits: {first:#x}");
    assert_eq!(second & 0x80, 0, "{who:?}: a server's frame is masked");
    let (header, len) = match second {
        126 => {
            let len = u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap());
            assert!(len > 125, "{who:?}: a length that is not in its shortest form");
            (4, usize::from(len))
        }
        127 => {
            let len = u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap());
            assert!((65_536..1 << 30).contains(&len), "{who:?}: a length of {len}");
            (10, usize::try_from(len).unwrap())
        }
        len => (2, usize::from(len)),
    };
    let opcode = first & 0x0f;
    assert!(opcode < 8 || len <= 125, "{who:?}: a control frame of {len} bytes");
    let payload = bytes.get(header..header + len)?.to_vec();
    let heard = match opcode {
        1 => Heard::Text(String::from_utf8(payload).unwrap_or_else(|e| panic!("{who:?}: {e}"))),
        9 => Heard::Ping(payload),
        10 => Heard::Pong(payload),
        8 => {
            assert_ne!(len, 1, "{who:?}: a close frame of one byte");
            let code = payload.get(..2).map(|code| u16::from_be_bytes(code.try_into().unwrap()));
            Heard::Close(code)
        }
        _ => panic!("{who:?}: a frame of opcode {opcode}"),
    };
    Some((heard, header + len))
}

/// A client's frame; `last` is its FIN bit.
pub(crate) fn masked(opcode: u8, last: bool, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    frames::masked(if last { 0x80 } else { 0 } | opcode, key, payload)
}
