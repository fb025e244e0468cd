//! The frames of a client: any bytes, cut anywhere. The result is the same for the whole and for
//! pieces, it is what RFC 6455 says, and tungstenite reads the same from lawful bytes.

#![no_main]

use std::io::{Cursor, Read, Write};
use std::ops::ControlFlow;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringwave::testing::websocket::{Message, ReadLimits, Reader};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message as Theirs, WebSocket};

const LIMITS: ReadLimits = ReadLimits { max_message: 400, max_fragments: 5 };

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// The sizes of the pieces, used in turn.
    cuts: [u8; 4],
    /// The frames, which are masked, because without a mask hardly a frame is lawful.
    parts: Vec<Part<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Raw(&'a [u8]),
    Frame {
        first: u8,
        mask: [u8; 4],
        payload: &'a [u8],
    },
    Text {
        fin: bool,
        continued: bool,
        payload: &'a str,
    },
    Close {
        code: u16,
        reason: &'a str,
    },
    /// `count` fragments, the last of which is final or not.
    Fragments {
        count: u8,
        fin: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Message<'_>> for Got {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.into()),
            Message::Binary(bytes) => Self::Binary(bytes.into()),
            Message::Ping(payload) => Self::Ping(payload.into()),
            Message::Pong(payload) => Self::Pong(payload.into()),
            Message::Close(close) => Self::Close(close.map(|c| (c.code, c.reason.into()))),
        }
    }
}

fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..126 => bytes.push(0x80 | len as u8),
        len @ ..65_536 => bytes.extend([0xFE, (len >> 8) as u8, len as u8]),
        len => bytes.extend([0xFF].into_iter().chain((len as u64).to_be_bytes())),
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

impl Part<'_> {
    fn bytes(&self) -> Vec<u8> {
        const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
        match *self {
            Self::Raw(bytes) => bytes.to_vec(),
            Self::Frame { first, mask, payload } => frame(first, mask, payload),
            Self::Text { fin, continued, payload } => {
                let first = if fin { 0x80 } else { 0 } | u8::from(!continued);
                frame(first, MASK, payload.as_bytes())
            }
            Self::Fragments { count, fin } => {
                let count = count % 8;
                let first = |at| u8::from(at == 0) | if fin && at + 1 == count { 0x80 } else { 0 };
                (0..count).flat_map(|at| frame(first(at), MASK, b"x")).collect()
            }
            Self::Close { code, reason } => {
                frame(0x88, MASK, &[&code.to_be_bytes(), reason.as_bytes()].concat())
            }
        }
    }
}

/// The result of our reader for the pieces: messages, and the code of a violation.
fn ours<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Got>, Option<u16>) {
    let (mut reader, mut got, mut code) = (Reader::default(), Vec::new(), None);
    for piece in pieces {
        // The buffer has its exact size on the heap, so that a read past its end is found.
        let verdict = reader.read(&mut piece.to_vec(), &LIMITS, |message| {
            got.push(message.into());
            ControlFlow::Continue(())
        });
        assert!(verdict.is_ok() || code.is_none(), "a second violation");
        code = code.or(verdict.err().map(|violation| violation.code));
    }
    (got, code)
}

/// A slow reader after RFC 6455. `None` if the RFC says nothing about these bytes yet.
#[derive(Default)]
struct Model {
    got: Vec<Got>,
    /// Opcode, payload and frames of the message that is being sent.
    open: Option<(u8, Vec<u8>, u32)>,
}

impl Model {
    /// Reads all bytes. Returns the code of the violation that ends them, or `Ok(false)` if they
    /// end inside a frame.
    fn read(&mut self, mut bytes: &[u8]) -> Result<bool, u16> {
        while let [first, second, rest @ ..] = bytes {
            let (opcode, fin) = (first & 0x0F, first & 0x80 != 0);
            let (len, rest): (u64, &[u8]) = match (second & 0x7F, rest) {
                (126, [a, b, rest @ ..]) => (u16::from_be_bytes([*a, *b]).into(), rest),
                (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                    (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
                }
                (126 | 127, _) => return Ok(false),
                (len, rest) => (len.into(), rest),
            };
            let masked = second & 0x80 != 0;
            let (mask, rest) = match rest.split_first_chunk::<4>() {
                _ if !masked => (&[0; 4], rest),
                Some(split) => split,
                None => return Ok(false),
            };
            let shortest = match second & 0x7F {
                126 => len >= 126,
                127 => len >= 65_536 && len >> 63 == 0,
                _ => true,
            };
            let control = opcode >= 8;
            let known = matches!(opcode, 0..=2 | 8..=10);
            if !known || first & 0x70 != 0 || !masked || !shortest || control && (!fin || len > 125)
            {
                return Err(1002);
            }
            if !control {
                self.admit(opcode, fin, len)?;
            }
            let here = rest.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            let (payload, rest) = rest.split_at(here);
            let payload: Vec<_> =
                payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            let whole = payload.len() as u64 == len;
            match control {
                true if !whole => return Ok(false),
                true => {
                    if !self.control(opcode, payload)? {
                        return Ok(true);
                    }
                }
                false => self.data(opcode, payload, fin && whole)?,
            }
            if !whole {
                return Ok(false);
            }
            if !control && !fin {
                self.open.as_mut().expect("begun").2 += 1;
            }
            bytes = rest;
        }
        Ok(bytes.is_empty())
    }

    fn admit(&self, opcode: u8, fin: bool, len: u64) -> Result<(), u16> {
        if (opcode == 0) != self.open.is_some() {
            return Err(1002);
        }
        let (held, frames) = self.open.as_ref().map_or((0, 0), |open| (open.1.len(), open.2));
        // Each 64 bytes that came allow one more fragment.
        let most = LIMITS.max_fragments as usize + held / 64;
        let too_many = (!fin || opcode == 0) && frames as usize >= most;
        let too_big = held as u64 + len > LIMITS.max_message as u64;
        if too_big || too_many { Err(1009) } else { Ok(()) }
    }

    fn data(&mut self, opcode: u8, payload: Vec<u8>, last: bool) -> Result<(), u16> {
        let open = self.open.get_or_insert((opcode, Vec::new(), 0));
        open.1.extend(payload);
        let text = std::str::from_utf8(&open.1);
        // Bytes that may still become a character are no error yet.
        if open.0 == 1 && text.is_err_and(|error| last || error.error_len().is_some()) {
            return Err(1007);
        }
        if let Some((opcode, payload, _)) = self.open.take_if(|_| last) {
            self.got.push(match opcode {
                1 => Got::Text(String::from_utf8(payload).expect("checked")),
                _ => Got::Binary(payload),
            });
        }
        Ok(())
    }

    /// Whether anything may follow.
    fn control(&mut self, opcode: u8, payload: Vec<u8>) -> Result<bool, u16> {
        let got = match (opcode, payload.split_first_chunk::<2>()) {
            (9, _) => Got::Ping(payload),
            (10, _) => Got::Pong(payload),
            (_, None) if payload.is_empty() => Got::Close(None),
            (_, None) => return Err(1002),
            (_, Some((code, reason))) => {
                let code = u16::from_be_bytes(*code);
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return Err(1002);
                }
                Got::Close(Some((code, String::from_utf8(reason.to_vec()).map_err(|_| 1007u16)?)))
            }
        };
        let closes = matches!(got, Got::Close(_));
        self.got.push(got);
        Ok(!closes)
    }
}

/// A connection that reads these bytes and writes nowhere.
struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The messages that tungstenite reads.
fn theirs(bytes: &[u8]) -> Vec<Got> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.max_message))
        .max_frame_size(Some(LIMITS.max_message));
    let wire = Wire(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(wire, Role::Server, Some(config));
    let mut got = Vec::new();
    while let Ok(message) = socket.read() {
        let message = match message {
            Theirs::Text(text) => Got::Text(text.as_str().into()),
            Theirs::Binary(bytes) => Got::Binary(bytes.to_vec()),
            Theirs::Ping(payload) => Got::Ping(payload.to_vec()),
            Theirs::Pong(payload) => Got::Pong(payload.to_vec()),
            // It does not know all codes of the registry.
            Theirs::Close(_) => Got::Close(None),
            Theirs::Frame(_) => break,
        };
        got.push(message);
    }
    got
}

fn pieces<'b>(mut bytes: &'b [u8], cuts: [u8; 4]) -> Vec<&'b [u8]> {
    let mut sizes = cuts.into_iter().map(|size| usize::from(size) + 1).cycle();
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let size = sizes.next().expect("cycles").min(bytes.len());
        let (piece, rest) = bytes.split_at(size);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fuzz_target!(|input: Input<'_>| {
    let bytes: Vec<u8> = input.parts.iter().flat_map(Part::bytes).collect();
    let whole = ours([&bytes[..]]);
    assert_eq!(whole, ours(pieces(&bytes, input.cuts)), "cut by {:?}", input.cuts);
    assert_eq!(whole, ours(bytes.chunks(1)), "byte by byte");

    let mut model = Model::default();
    let verdict = model.read(&bytes);
    assert_eq!((&whole.0, whole.1), (&model.got, verdict.err()), "RFC 6455");

    // tungstenite takes more than is lawful, but never reads anything else from what we take.
    let theirs = theirs(&bytes);
    let mut ours = whole.0;
    if let Some(Got::Close(close)) = ours.last_mut() {
        *close = None;
    }
    assert!(theirs.starts_with(&ours), "{ours:?} and not {theirs:?}");
});
