//! Any bytes as HTTP, through hyper and the routes, with and without cuts: the answers are HTTP,
//! the same for every cut, and no client without the secret reaches the shard.

#![no_main]

use std::cell::OnceCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringwave_fuzz::{FrontEnd, Heard};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    cuts: [u8; 3],
    parts: Vec<Part<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Raw(&'a [u8]),
    Line(Line),
    Header(u8, &'a str),
    EndOfHead,
    Known(u8),
}

#[derive(Arbitrary, Debug)]
enum Line {
    Up,
    Options,
    WebSocket,
    Prefixed,
    Events,
    Channels,
    Old,
}

const NAMES: [&str; 12] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Upgrade",
    "Expect",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Origin",
    "Forwarded",
    "X-Forwarded-For",
    "A",
];

const KNOWN: [&str; 10] = [
    "Host: h\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: keep-alive, Upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Sec-WebSocket-Version: 13\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "Connection: close\r\n",
    "\r\n",
];

impl Part<'_> {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Raw(bytes) => bytes.to_vec(),
            Self::Line(line) => line.text().into(),
            Self::Header(name, value) => {
                format!("{}: {value}\r\n", NAMES[usize::from(*name) % NAMES.len()]).into_bytes()
            }
            Self::EndOfHead => b"\r\n".to_vec(),
            Self::Known(known) => KNOWN[usize::from(*known) % KNOWN.len()].into(),
        }
    }
}

impl Line {
    const fn text(&self) -> &'static str {
        match self {
            Self::Up => "GET /up HTTP/1.1\r\n",
            Self::Options => "OPTIONS //ws/up HTTP/1.1\r\n",
            Self::WebSocket => "GET /app/app-key?protocol=7&client=js HTTP/1.1\r\n",
            Self::Prefixed => "GET /ws/app/app-key HTTP/1.1\r\n",
            Self::Events => "POST /apps/app-id/events?auth_key=app-key HTTP/1.1\r\n",
            Self::Channels => "GET /apps/app-id/channels?auth_key=app-key HTTP/1.1\r\n",
            Self::Old => "GET /up HTTP/1.0\r\n",
        }
    }
}

/// The statuses and bodies of answers that follow each other.
fn answers(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let (head, rest) = bytes.split_at(end);
        let head = std::str::from_utf8(head).expect("a head is text");
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        assert!(head.starts_with("HTTP/1."), "{head}");
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            })
            .unwrap_or(0);
        assert!(rest.len() >= length, "{length} bytes announced, {} sent", rest.len());
        let (body, rest) = rest.split_at(length);
        answers.push((status.expect("a status"), body.to_vec()));
        bytes = rest;
    }
    answers
}

/// Drops the answer to a head that never ends. hyper judges the beginning of a head as it comes
/// first, and what comes later only once the head has ended.
fn settled(answers: &[(u16, Vec<u8>)]) -> &[(u16, Vec<u8>)] {
    match answers {
        [settled @ .., (400, body)] if body.is_empty() => settled,
        all => all,
    }
}

fn check(answers: &[(u16, Vec<u8>)], heard: &[Heard], sent: &[u8]) {
    for (status, _) in answers {
        let expected = [100, 200, 400, 401, 404, 405, 408, 413, 414, 426, 431, 501, 505];
        assert!(expected.contains(status), "{status}");
    }
    for heard in heard {
        match heard {
            Heard::Adopted(leftover) if leftover.is_empty() => {}
            Heard::Adopted(leftover) => {
                assert!(sent.windows(leftover.len()).any(|piece| piece == leftover));
            }
            other => panic!("without a signature: {other:?}"),
        }
    }
    assert!(heard.len() <= 1, "a connection becomes one WebSocket");
}

fuzz_target!(|input: Input<'_>| {
    thread_local!(static FRONT: OnceCell<FrontEnd> = const { OnceCell::new() });
    let bytes: Vec<u8> = input.parts.iter().flat_map(Part::bytes).collect();
    if bytes.windows(5).any(|word| word == b"HEAD ") {
        // Its answer announces a body that does not come.
        return;
    }
    let mut pieces = Vec::new();
    let mut rest = &bytes[..];
    for cut in input.cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    FRONT.with(|front| {
        let front = front.get_or_init(|| FrontEnd::start("/ws"));
        let (whole, heard) = front.exchange([&bytes[..]]);
        let whole = answers(&whole);
        check(&whole, &heard, &bytes);
        let (cut, heard_in_pieces) = front.exchange(pieces);
        let cut = answers(&cut);
        assert_eq!(settled(&whole), settled(&cut), "cut by {:?}", input.cuts);
        check(&cut, &heard_in_pieces, &bytes);
        assert_eq!(heard.len(), heard_in_pieces.len(), "cut by {:?}", input.cuts);
    });
});
