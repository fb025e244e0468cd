//! Tests of the reader's contract against an encoder of client frames that shares no code with it.

mod random;

use std::mem::size_of;

use super::*;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LIMITS: ReadLimits = ReadLimits { max_message: 1000, max_fragments: 16 };

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;

/// A message that outlives its input.
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

/// One reader, with everything that it has returned.
#[derive(Default)]
struct Client {
    reader: Reader,
    got: Vec<Got>,
    violation: Option<Violation>,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.send_within(&LIMITS, bytes);
    }

    fn send_within(&mut self, limits: &ReadLimits, bytes: &[u8]) {
        let verdict = self.reader.read(&mut bytes.to_vec(), limits, |message| {
            self.got.push(message.into());
            ControlFlow::Continue(())
        });
        assert!(verdict.is_ok() || self.violation.is_none(), "a second violation: {verdict:?}");
        self.violation = verdict.err().or(self.violation);
    }

    /// The code of the close frame that the client has earned.
    fn code(&self) -> Option<u16> {
        self.violation.map(|v| v.code)
    }

    /// Bytes on the heap for payload.
    fn held(&self) -> usize {
        let Some(partial) = &self.reader.partial else { return 0 };
        let control = match &partial.awaited {
            Awaited::Payload(_, control) => control.capacity(),
            Awaited::Header(_) | Awaited::Nothing { .. } => 0,
        };
        control + partial.message.as_ref().map_or(0, Assembly::capacity)
    }
}

/// A client that has sent these pieces.
fn after<B: AsRef<[u8]>>(pieces: impl IntoIterator<Item = B>) -> Client {
    let mut client = Client::default();
    pieces.into_iter().for_each(|piece| client.send(piece.as_ref()));
    client
}

/// The header of a masked frame with the length in the form asked for: 7, 16 or 64 bits.
fn header_with(first: u8, len: u64, bits: u8) -> Vec<u8> {
    let mut header = vec![first];
    match bits {
        7 => header.push(0x80 | len as u8),
        16 => header.extend([0x80 | 126, (len >> 8) as u8, len as u8]),
        _ => header.extend([0x80 | 127].into_iter().chain(len.to_be_bytes())),
    }
    header.extend(MASK);
    header
}

fn header(first: u8, len: usize) -> Vec<u8> {
    let bits = if len < 126 {
        7
    } else if len < 65_536 {
        16
    } else {
        64
    };
    header_with(first, len as u64, bits)
}

fn frame_masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = header(first, payload.len());
    let mask_at = frame.len() - 4;
    frame[mask_at..].copy_from_slice(&mask);
    frame.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    frame
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_masked(first, payload, MASK)
}

/// Every feature once: three lengths, fragments that cut a character, control frames in between.
fn script() -> (Vec<u8>, Vec<Got>) {
    let long = "\u{20AC}".repeat(100);
    let (head, tail) = long.as_bytes().split_at(200);
    let bytes = [
        frame(FIN | TEXT, b"hello"),
        frame(FIN | TEXT, b""),
        frame(FIN | PING, b"p"),
        frame(TEXT, head),
        frame(FIN | PONG, b""),
        frame(CONTINUATION, b""),
        frame(FIN | PING, b"in between"),
        frame(FIN | CONTINUATION, tail),
        frame(BINARY, &[0xFF; 130]),
        frame(FIN | CONTINUATION, b""),
        frame(FIN | CLOSE, b"\x03\xE8bye"),
    ];
    let got = vec![
        Got::Text("hello".into()),
        Got::Text(String::new()),
        Got::Ping(b"p".into()),
        Got::Pong(vec![]),
        Got::Ping(b"in between".into()),
        Got::Text(long),
        Got::Binary(vec![0xFF; 130]),
        Got::Close(Some((1000, "bye".into()))),
    ];
    (bytes.concat(), got)
}

#[test]
fn a_reader_between_messages_is_one_null_pointer() {
    assert_eq!(size_of::<Reader>(), 8);
    let (mut bytes, _) = script();
    bytes.truncate(bytes.len() - frame(FIN | CLOSE, b"\x03\xE8bye").len());
    assert!(after([&bytes]).reader.partial.is_none());
    assert!(after(bytes.chunks(1)).reader.partial.is_none());
}

#[test]
fn what_lies_whole_in_the_input_is_lent_from_it() {
    for first in [FIN | TEXT, FIN | BINARY, FIN | PING, FIN | PONG] {
        let mut input = frame(first, b"payload");
        let range = input.as_ptr_range();
        let mut lent = false;
        let verdict = Reader::default().read(&mut input, &LIMITS, |message| {
            let payload = match message {
                Message::Text(text) => text.as_bytes(),
                Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes,
                Message::Close(_) => &[],
            };
            lent = payload == b"payload" && range.contains(&payload.as_ptr());
            ControlFlow::Continue(())
        });
        assert_eq!((verdict, lent), (Ok(input.len()), true), "{first:#x}");
    }
}

#[test]
fn a_payload_that_comes_right_behind_its_header_is_not_copied() {
    let mut client = after([header(FIN | TEXT, 5)]);
    assert_eq!(client.held(), 0);
    client.send(&frame(FIN | TEXT, b"hello")[6..]);
    assert_eq!(client.got, [Got::Text("hello".into())]);
}

#[test]
fn every_cut_in_three_gives_the_same_messages() {
    let (bytes, got) = script();
    for first in 0..=bytes.len() {
        for second in (first..=bytes.len()).step_by(7) {
            let client = after([&bytes[..first], &bytes[first..second], &bytes[second..]]);
            assert_eq!((client.got, client.violation), (got.clone(), None), "{first}, {second}");
        }
    }
}

#[test]
fn every_size_of_piece_gives_the_same_messages() {
    let (bytes, got) = script();
    for size in 1..=bytes.len() {
        assert_eq!(after(bytes.chunks(size)).got, got, "pieces of {size}");
    }
}

/// The verdict of RFC 6455 on the first two bytes of a frame whose length is in its shortest form
/// and within the limits.
fn lawful(first: u8, second: u8, within_message: bool) -> bool {
    let plain = first & 0x70 == 0 && second & 0x80 != 0;
    let (len, last) = (second & 0x7F, first & FIN != 0);
    plain
        && match first & 0x0F {
            CONTINUATION => within_message,
            TEXT | BINARY => !within_message,
            CLOSE => last && len <= 125 && len != 1,
            PING | PONG => last && len <= 125,
            _ => false,
        }
}

#[test]
fn all_first_two_bytes_get_the_verdict_of_the_rfc() {
    for (first, second) in (0..=255).flat_map(|a| (0..=255).map(move |b| (a, b))) {
        for within_message in [false, true] {
            let mut bytes = if within_message { frame(BINARY, b"") } else { vec![] };
            let len = match second & 0x7F {
                126 => 126,
                127 => 65_536,
                len => usize::from(len),
            };
            let mut payload = vec![b'x'; len];
            if first & 0x0F == CLOSE && len >= 2 {
                payload[..2].copy_from_slice(&1000_u16.to_be_bytes());
            }
            let at = bytes.len();
            bytes.extend(frame(first, &payload));
            bytes[at + 1] = second;
            let mut client = Client::default();
            client.send_within(&ReadLimits { max_message: 70_000, ..LIMITS }, &bytes);
            let expected = if lawful(first, second, within_message) { None } else { Some(1002) };
            assert_eq!(client.code(), expected, "{first:#04x} {second:#04x} {within_message}");
        }
    }
}

#[test]
fn a_length_must_be_in_its_shortest_form() {
    for (len, bits) in (0..126).flat_map(|len| [(len, 16), (len, 64)]) {
        assert_eq!(after([header_with(FIN | TEXT, len, bits)]).code(), Some(1002), "{len} {bits}");
    }
    for len in [126, 1000, 65_535, 1 << 63, u64::MAX] {
        assert_eq!(after([header_with(FIN | TEXT, len, 64)]).code(), Some(1002), "{len}");
    }
}

#[test]
fn a_message_too_big_is_refused_from_its_header_alone() {
    for len in [1001, 65_535, 65_536, 1 << 40, i64::MAX as usize] {
        let client = after([header(FIN | TEXT, len)]);
        assert_eq!(client.violation, Some(Violation::MESSAGE_TOO_BIG), "{len}");
        assert_eq!(client.held(), 0);
    }
    assert_eq!(after([frame(FIN | TEXT, &[b'x'; 1000])]).got.len(), 1);
}

#[test]
fn the_fragments_of_a_message_share_its_limit() {
    let first = frame(TEXT, &[b'x'; 600]);
    let fits = after([&first, &frame(FIN | CONTINUATION, &[b'y'; 400])]);
    assert_eq!((fits.got.len(), fits.code()), (1, None));
    let over = after([&first, &header(CONTINUATION, 401)]);
    assert_eq!((over.got.len(), over.code()), (0, Some(1009)));
    let again = after([&first, &frame(FIN | CONTINUATION, b""), &frame(FIN | TEXT, &[b'x'; 1000])]);
    assert_eq!((again.got.len(), again.code()), (2, None));
}

#[test]
fn fragments_are_counted_even_when_they_are_empty() {
    let fragments = |n: usize| {
        let mut frames = vec![frame(CONTINUATION, b""); n];
        frames[0] = frame(BINARY, b"");
        frames[n - 1][0] |= FIN;
        after(frames)
    };
    assert_eq!(fragments(16).got, [Got::Binary(vec![])]);
    assert_eq!(fragments(17).violation, Some(Violation::TOO_MANY_FRAGMENTS));
    let mut client = Client::default();
    let none = ReadLimits { max_fragments: 0, ..LIMITS };
    client.send_within(&none, &frame(FIN | TEXT, b"whole"));
    assert_eq!((client.got.len(), client.code()), (1, None));
    client.send_within(&none, &header(TEXT, 1));
    assert_eq!(client.code(), Some(1009));
}

#[test]
fn input_that_goes_on_behind_a_close_frame_is_noticed_whatever_the_cut() {
    let close = frame(FIN | CLOSE, b"\x03\xe8");
    let mut alone = Reader::default();
    let read = |reader: &mut Reader, bytes: &[u8]| {
        reader.read(&mut bytes.to_vec(), &LIMITS, |_| ControlFlow::Continue(())).unwrap();
        reader.overrun()
    };
    assert!(!read(&mut alone, &frame(FIN | TEXT, b"hello")));
    assert!(!read(&mut alone, &close));
    assert!(!read(&mut alone, b""));
    let more = [&close[..], b"x"].concat();
    for cut in 0..more.len() {
        let mut reader = Reader::default();
        assert!(!read(&mut reader, &more[..cut]), "cut at {cut}");
        assert!(read(&mut reader, &more[cut..]), "cut at {cut}");
    }
}

#[test]
fn payload_pays_for_fragments_and_empty_ones_stay_bounded() {
    let limits = ReadLimits { max_message: 1 << 20, max_fragments: 16 };
    let most = |bytes: usize| {
        let mut client = Client::default();
        client.send_within(&limits, &frame(BINARY, &vec![b'x'; bytes]));
        let next = frame(CONTINUATION, &vec![b'x'; bytes]);
        (1..20_000).find(|_| {
            client.send_within(&limits, &next);
            client.code().is_some()
        })
    };
    // The size of the message allows 16,384.
    assert_eq!(most(FRAGMENT_BYTES), Some((1 << 20) / FRAGMENT_BYTES));
    assert_eq!(most(0), Some(16));
    // 64 fragments of one byte allow one more.
    assert_eq!(most(1), Some(16));
    assert_eq!(most(FRAGMENT_BYTES / 2), Some(31));
}

#[test]
fn memory_follows_what_came_and_not_what_was_announced() {
    let limits = ReadLimits { max_message: 1 << 30, max_fragments: 1 };
    for kind in [TEXT, BINARY] {
        let mut client = Client::default();
        client.send_within(&limits, &header(FIN | kind, 1 << 30));
        let payload = &frame(FIN | kind, &[b'x'; 10_000])[8..];
        for (before, byte) in payload.chunks(1).enumerate() {
            client.send_within(&limits, byte);
            assert!(client.held() <= 2 * (before + 1), "{} held", client.held());
        }
        assert_eq!((client.held() >= 10_000, client.code()), (true, None));
    }
}

#[test]
fn a_message_that_fills_its_limit_never_holds_more() {
    for (kind, size) in [TEXT, BINARY].into_iter().flat_map(|kind| (1..12).map(move |n| (kind, n)))
    {
        let mut client = Client::default();
        let mut most = 0;
        let filled = format!("x{}", "\u{20AC}".repeat(333));
        for piece in frame(kind, filled.as_bytes()).chunks(size) {
            client.send(piece);
            most = most.max(client.held());
        }
        client.send(&frame(FIN | CONTINUATION, b""));
        assert_eq!((client.got.len(), client.held()), (1, 0));
        assert!((900..=1000).contains(&most), "{most} bytes held, pieces of {size}");
    }
}

/// The number of bytes of a text's payload that are taken one at a time until one is refused.
fn text_bytes_taken(payload: &[u8]) -> Option<usize> {
    let bytes = frame(FIN | TEXT, payload);
    let mut client = after([&bytes[..6]]);
    (0..payload.len()).find(|at| {
        client.send(&bytes[6 + at..=6 + at]);
        client.code() == Some(1007)
    })
}

#[test]
fn text_that_is_not_utf8_is_refused_at_its_first_impossible_byte() {
    let greek = "\u{3BA}\u{1F79}\u{3C3}\u{3BC}\u{3B5}".as_bytes();
    for (bad, at) in [
        (&b"\xF4\x90\x80\x80edited"[..], 1),
        (b"\xED\xA0\x80edited", 1),
        (b"\xC0\xAFedited", 0),
        (b"\xFE", 0),
        (b"\x80", 0),
        (b"\xE2\x82", 1),
    ] {
        let payload = [greek, bad].concat();
        assert_eq!(text_bytes_taken(&payload), Some(greek.len() + at), "{bad:X?}");
        assert_eq!(after([frame(FIN | TEXT, &payload)]).code(), Some(1007), "{bad:X?}");
        for cut in 0..=payload.len() {
            let (head, tail) = payload.split_at(cut);
            let client = after([frame(TEXT, head), frame(FIN | CONTINUATION, tail)]);
            assert_eq!((client.code(), client.got.len()), (Some(1007), 0), "{bad:X?} at {cut}");
        }
    }
    assert_eq!(text_bytes_taken(greek), None);
}

#[test]
fn binary_and_pings_may_hold_any_bytes() {
    let any: Vec<u8> = (0..=255).collect();
    let client = after([frame(FIN | BINARY, &any), frame(FIN | PING, &any[131..])]);
    assert_eq!(client.got, [Got::Binary(any.clone()), Got::Ping(any[131..].into())]);
}

#[test]
fn all_close_codes_get_the_verdict_of_the_registry() {
    for code in 0..=u16::MAX {
        let client = after([frame(FIN | CLOSE, &code.to_be_bytes())]);
        if matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            assert_eq!(client.got, [Got::Close(Some((code, String::new())))]);
        } else {
            assert_eq!((client.code(), client.got.len()), (Some(1002), 0), "{code}");
        }
    }
}

#[test]
fn a_close_frame_holds_nothing_or_a_code_and_text() {
    let full = [&b"\x0F\xA1"[..], &[b'r'; 123]].concat();
    let reason = "r".repeat(123);
    assert_eq!(after([frame(FIN | CLOSE, b"")]).got, [Got::Close(None)]);
    assert_eq!(after([frame(FIN | CLOSE, &full)]).got, [Got::Close(Some((4001, reason)))]);
    assert_eq!(after([frame(FIN | CLOSE, b"\x03")]).code(), Some(1002));
    assert_eq!(after([frame(FIN | CLOSE, b"\x03\xE8\xFF")]).code(), Some(1007));
    assert_eq!(after([frame(FIN | CLOSE, b"\x03\xE8\xE2\x82")]).code(), Some(1007));
}

#[test]
fn nothing_is_read_after_a_close_frame_or_a_violation() {
    let more = frame(FIN | TEXT, b"more");
    for (last, messages) in [(frame(FIN | CLOSE, b""), 1), (frame(FIN | 0xB, b""), 0)] {
        let glued = after([[&last[..], &more].concat()]);
        assert_eq!(glued.got.len(), messages);
        let cut = after([&frame(TEXT, b"begun"), &last, &more, &last, &more]);
        assert_eq!((cut.got.len(), cut.held()), (messages, 0));
    }
}

#[test]
fn messages_before_a_violation_are_handed_out() {
    let client = after([[frame(FIN | TEXT, b"first"), frame(FIN | 0x3, b"")].concat()]);
    assert_eq!(client.got, [Got::Text("first".into())]);
    assert_eq!(client.violation, Some(Violation::UNKNOWN_OPCODE));
}

#[test]
fn a_sink_that_breaks_hears_nothing_more() {
    let mut reader = Reader::default();
    let mut calls = 0;
    for _ in 0..3 {
        let mut input = frame(FIN | TEXT, b"again").repeat(3);
        let verdict = reader.read(&mut input, &LIMITS, |_| {
            calls += 1;
            ControlFlow::Break(Stop::End)
        });
        assert_eq!(verdict, Ok(input.len()));
    }
    assert_eq!(calls, 1);
}

#[test]
fn a_sink_that_pauses_hears_the_rest_when_it_is_handed_in_again() {
    let fragments = [frame(TEXT, b"in"), frame(FIN | CONTINUATION, b"parts")].concat();
    let messages = [frame(FIN | TEXT, b"whole"), frame(FIN | PING, b""), fragments].concat();
    let stream = [messages.repeat(2), frame(TEXT, b"begun")].concat();
    let expected = after([&stream]).got;
    for pause_every in 1..=expected.len() {
        let (mut reader, mut got) = (Reader::default(), Vec::<Got>::new());
        let (mut input, mut calls) = (stream.clone(), 0);
        while !input.is_empty() {
            let taken = reader.read(&mut input, &LIMITS, |message| {
                got.push(message.into());
                let pause = got.len().is_multiple_of(pause_every);
                if pause { ControlFlow::Break(Stop::Pause) } else { ControlFlow::Continue(()) }
            });
            input.drain(..taken.unwrap());
            calls += 1;
        }
        assert_eq!(got, expected, "every {pause_every}");
        assert!(calls > expected.len() / pause_every);
    }
}
