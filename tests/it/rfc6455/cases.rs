//! The cases 1 to 7, 9 and 10 of Autobahn's test suite as a table, for machines without the Python
//! 2.7 that it needs. The numbers are its own; those of 9 send less here. Unlike Autobahn, which
//! expects its messages back, this knows by an error and a pong that the gateway has taken exactly
//! one message: a `pusher:ping` follows each.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::gateway::{Gateway, served_with};
use crate::raw::{
    BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Raw, TEXT, frame, frame_of_close, text,
};

use super::{FIN, PUSHER_PING, PUSHER_PONG};

/// The time for which the gateway waits for the answer to a Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The bytes that a client sends and the answers that it has to get.
struct Case {
    name: String,
    /// The bytes that are sent, each in a write of its own.
    writes: Vec<Vec<u8>>,
    /// The answers that have to come, in this order.
    answers: Vec<Answer>,
    end: End,
}

enum Answer {
    /// A message was taken.
    Taken,
    /// A pong with this payload.
    Pong(Vec<u8>),
}

/// The end of the connection.
enum End {
    /// The client sends a Close frame when all answers are there.
    Client,
    /// The Close frame is among the writes, and comes back with its code or without one.
    Answered(Option<u16>),
    /// The server sends a Close frame with this code.
    Failed(u16),
}

fn case(name: impl Into<String>) -> Case {
    Case { name: name.into(), writes: Vec::new(), answers: Vec::new(), end: End::Client }
}

impl Case {
    fn sends(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.writes.push(bytes.into());
        self
    }

    /// Sends a message in these fragments.
    fn says(self, kind: u8, fragments: &[&[u8]]) -> Self {
        self.sends(message(kind, fragments)).taken()
    }

    /// Expects that the bytes sent so far were a message.
    fn taken(mut self) -> Self {
        self.writes.push(text(PUSHER_PING));
        self.answers.push(Answer::Taken);
        self
    }

    fn pinged(mut self, payload: &[u8]) -> Self {
        self.writes.push(frame(FIN | PING, payload));
        self.answers.push(Answer::Pong(payload.to_vec()));
        self
    }

    /// Sends the bytes in writes of so many bytes.
    fn chopped(mut self, size: usize) -> Self {
        self.writes = self.writes.concat().chunks(size).map(<[u8]>::to_vec).collect();
        self
    }

    fn answered(self, code: Option<u16>) -> Self {
        Self { end: End::Answered(code), ..self }
    }

    fn fails(self, code: u16) -> Self {
        Self { end: End::Failed(code), ..self }
    }

    fn run(&self, gateway: &Gateway) {
        let name = &self.name;
        let mut raw = Raw::connect(gateway);
        let mut writer = raw.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            let writes = scope.spawn(move || {
                self.writes.iter().for_each(|bytes| writer.write_all(bytes).unwrap());
            });
            for answer in &self.answers {
                match answer {
                    Answer::Taken => {
                        let error = raw.message();
                        assert!(error.contains(r#""event":"pusher:error""#), "{name}: {error}");
                        assert_eq!(raw.message(), PUSHER_PONG, "{name}");
                    }
                    Answer::Pong(payload) => {
                        let pong = Frame { opcode: PONG, payload: payload.clone() };
                        assert_eq!(raw.frame(), Some(pong), "{name}");
                    }
                }
            }
            if matches!(self.end, End::Client) {
                // The client's Close frame is its last.
                writes.join().unwrap();
            }
            self.check_end(&mut raw);
        });
    }

    fn check_end(&self, raw: &mut Raw) {
        let expected = match self.end {
            End::Client => {
                raw.send(&frame_of_close(1000));
                Some(1000)
            }
            End::Answered(code) => code,
            End::Failed(code) => Some(code),
        };
        let close = raw.frame().unwrap_or_else(|| panic!("{}: no Close frame", self.name));
        assert_eq!(close.opcode, CLOSE, "{}: {close:?}", self.name);
        let code = close.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        assert_eq!(code, expected, "{}", self.name);
        if matches!(self.end, End::Failed(_)) {
            raw.send(&frame(FIN | CLOSE, &close.payload));
        }
        raw.expect_end();
    }
}

fn message(kind: u8, fragments: &[&[u8]]) -> Vec<u8> {
    let last = fragments.len() - 1;
    let frames = fragments.iter().enumerate().map(|(number, payload)| {
        let opcode = if number == 0 { kind } else { CONTINUATION };
        frame(if number == last { FIN | opcode } else { opcode }, payload)
    });
    frames.collect::<Vec<_>>().concat()
}

/// Runs the cases, and checks that none waits for the close timeout, which is three seconds.
fn pass(cases: &[Case]) {
    let large = |setup: crate::gateway::Setup| setup.env("REVERB_APP_MAX_MESSAGE_SIZE", "1048576");
    served_with(large, |gateway| {
        let began = Instant::now();
        cases.iter().for_each(|case| case.run(gateway));
        let count = u32::try_from(cases.len()).unwrap();
        let took = began.elapsed();
        assert!(took < CLOSE_TIMEOUT * count / 3, "{count} cases took {took:?}");
    });
}

const HELLO: &[u8] = b"Hello, world!";

#[test]
fn cases_1_messages_of_every_length() {
    let mut cases = Vec::new();
    for (group, kind, byte) in [(1, TEXT, b'*'), (2, BINARY, 0xfe)] {
        for (number, length) in [0, 125, 126, 127, 128, 65_535, 65_536].into_iter().enumerate() {
            let payload = vec![byte; length];
            // Bytes that are not UTF-8 are an error of the application, not of the framing.
            cases.push(case(format!("1.{group}.{}", number + 1)).says(kind, &[&payload]));
        }
        cases.push(case(format!("1.{group}.8")).says(kind, &[&[byte; 65_536]]).chopped(997));
    }
    pass(&cases);
}

#[test]
fn cases_2_pings_and_pongs() {
    let ten = |name: &str| {
        (0..10).fold(case(name), |ten, number| ten.pinged(format!("payload-{number}").as_bytes()))
    };
    let pong = |payload: &[u8]| frame(FIN | PONG, payload);
    pass(&[
        case("2.1").pinged(b""),
        case("2.2").pinged(HELLO),
        case("2.3").pinged(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        case("2.4").pinged(&[0xfe; 125]),
        case("2.5").sends(frame(FIN | PING, &[0xfe; 126])).fails(1002),
        case("2.6").pinged(&[0xfe; 125]).chopped(1),
        case("2.7").sends(pong(b"")),
        case("2.8").sends(pong(b"unsolicited pong payload")),
        case("2.9").sends(pong(b"unsolicited pong payload")).pinged(b"ping payload"),
        ten("2.10"),
        ten("2.11").chopped(1),
    ]);
}

#[test]
fn cases_3_reserved_bits() {
    let reserved = |bits: u8, opcode: u8| frame(FIN | bits << 4 | opcode, HELLO);
    let ping = frame(FIN | PING, b"");
    let close = [&[FIN | 7 << 4 | CLOSE], &frame_of_close(1000)[1..]].concat();
    pass(&[
        case("3.1").sends(reserved(1, TEXT)).fails(1002),
        case("3.2").says(TEXT, &[HELLO]).sends(reserved(2, TEXT)).sends(ping.clone()).fails(1002),
        case("3.3")
            .says(TEXT, &[HELLO])
            .sends([reserved(3, TEXT), ping.clone()].concat())
            .fails(1002),
        case("3.4")
            .says(TEXT, &[HELLO])
            .sends(reserved(4, TEXT))
            .sends(ping)
            .chopped(1)
            .fails(1002),
        case("3.5").sends(reserved(5, BINARY)).fails(1002),
        case("3.6").sends(reserved(6, PING)).fails(1002),
        case("3.7").sends(close).fails(1002),
    ]);
}

#[test]
fn cases_4_reserved_opcodes() {
    let mut cases = Vec::new();
    for (group, opcodes) in [(1, 3..=7), (2, 11..=15)] {
        for (number, opcode) in opcodes.enumerate() {
            let name = format!("4.{group}.{}", number + 1);
            let after = frame(FIN | PING, b"");
            cases.push(match number {
                0 => case(name).sends(frame(FIN | opcode, b"")).fails(1002),
                1 => case(name).sends(frame(FIN | opcode, HELLO)).fails(1002),
                2 => {
                    let said = case(name).says(TEXT, &[HELLO]);
                    said.sends(frame(FIN | opcode, b"")).sends(after).fails(1002)
                }
                3 => {
                    let said = case(name).says(TEXT, &[HELLO]);
                    said.sends(frame(FIN | opcode, HELLO)).sends(after).fails(1002)
                }
                _ => {
                    let said = case(name).says(TEXT, &[HELLO]).sends(frame(FIN | opcode, HELLO));
                    said.sends(after).chopped(1).fails(1002)
                }
            });
        }
    }
    pass(&cases);
}

#[test]
fn cases_5_fragments_and_what_comes_between_them() {
    let first = || frame(TEXT, b"fragment1");
    let next = |fin: u8, payload: &[u8]| frame(fin | CONTINUATION, payload);
    let whole = || frame(FIN | TEXT, b"Hello, world!");
    let between = |name: &str| {
        let pinged = case(name).sends(first()).pinged(b"ping");
        pinged.sends(next(FIN, b"fragment2")).taken()
    };
    let five = |name: &str| {
        let begun = case(name).sends(first()).sends(next(0, b"2")).pinged(b"pongme 1!");
        let more = begun.sends(next(0, b"3")).sends(next(0, b"4")).pinged(b"pongme 2!");
        more.sends(next(FIN, b"5")).taken()
    };
    let orphan = |name: &str, fin: u8| {
        case(name).sends([next(fin, b"non-continuation payload"), whole()].concat()).fails(1002)
    };
    let pair = [&b"fragment1"[..], b"fragment2"];
    let late = [next(0, b"fragment3"), whole()].concat();
    let twice = [next(0, b"1"), frame(TEXT, b"2"), next(FIN, b"3")].concat().repeat(2);
    pass(&[
        case("5.1").sends([frame(PING, b"1"), next(FIN, b"2")].concat()).fails(1002),
        case("5.2").sends([frame(PONG, b"1"), next(FIN, b"2")].concat()).fails(1002),
        case("5.3").says(TEXT, &pair),
        case("5.4").sends(first()).sends(next(FIN, b"fragment2")).taken(),
        case("5.5").says(TEXT, &pair).chopped(1),
        between("5.6"),
        between("5.7"),
        between("5.8").chopped(1),
        orphan("5.9", FIN),
        orphan("5.10", FIN),
        orphan("5.11", FIN).chopped(1),
        orphan("5.12", 0),
        orphan("5.13", 0),
        orphan("5.14", 0).chopped(1),
        case("5.15").says(TEXT, &pair).sends(late).fails(1002),
        case("5.16").sends(twice.clone()).fails(1002),
        case("5.17").sends(twice).chopped(1).fails(1002),
        case("5.18").sends([first(), frame(FIN | TEXT, b"fragment2")].concat()).fails(1002),
        five("5.19"),
        five("5.20").chopped(1),
    ]);
}

/// Text of Greek letters, as in Markus Kuhn's test of UTF-8 decoders.
const KOSME: &[u8] = "κόσμε".as_bytes();

/// The sequences that must be taken: 6.5 to 6.11 and 6.22.
const VALID: [&[u8]; 18] = [
    KOSME,
    b"\x00",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xf4\x8f\xbf\xbf",
    b"\xef\xbf\xbe",
    b"\xf0\x9f\xbf\xbe",
    b"\xf0\x9f\xbf\xbf",
    b"\xf3\xbf\xbf\xbe",
    b"\xf4\x8f\xbf\xbe",
    b"hello\x24\xc2\xa2\xe2\x82\xac\xf0\xa4\xad\xa2",
];

/// The sequences that must not be taken: 6.6 and 6.12 to 6.21.
const INVALID: [&[u8]; 46] = [
    // These are cut within a character.
    b"\xce",
    b"\xce\xba\xe1\xbd",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce",
    // Longer than four bytes, or above U+10FFFF.
    b"\xf4\x90\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfb\xbf\xbf\xbf\xbf",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfd\xbf\xbf\xbf\xbf\xbf",
    // Continuations without a beginning.
    b"\x80",
    b"\xbf",
    b"\x80\xbf",
    b"\x80\xbf\x80\xbf\x80\xbf\x80\xbf",
    // Beginnings without a continuation.
    b"\xc0 \xc1 \xc2 ",
    b"\xe0 \xe1 \xee ",
    b"\xf0 \xf1 \xf6 ",
    b"\xf8 \xf9 ",
    // The last continuation is missing.
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xf8\x80\x80\x80",
    b"\xdf",
    b"\xef\xbf",
    b"\xf7\xbf\xbf",
    b"\xfb\xbf\xbf\xbf",
    b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80",
    // Bytes that never occur.
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    // Overlong forms.
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x87\xbf\xbf\xbf",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xf0\x80\x80\x80",
    // Surrogates, alone and in pairs.
    b"\xed\xa0\x80",
    b"\xed\xad\xbf",
    b"\xed\xb0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xed\xaf\xbf\xed\xbf\xbf",
];

#[test]
fn cases_6_text_in_utf8() {
    let euro = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let bytes: Vec<_> = euro.chunks(1).collect();
    let split = [KOSME, &b"\xed\xa0\x80"[..], b"edited"].concat();
    let (begin, rest) = split.split_at(KOSME.len());
    let late = [frame(TEXT, begin), frame(CONTINUATION, rest)];
    let early = frame(FIN | TEXT, &split)[..6 + KOSME.len() + 2].to_vec();
    let mut cases = vec![
        case("6.1.1").says(TEXT, &[b""]),
        case("6.1.2").says(TEXT, &[b"", b"", b""]),
        case("6.1.3").says(TEXT, &[b"", b"middle frame payload", b""]),
        case("6.2.1").says(TEXT, &[euro]),
        case("6.2.2").says(TEXT, &[&euro[..11], &euro[11..]]),
        case("6.2.3").says(TEXT, &bytes),
        case("6.2.4").says(TEXT, &KOSME.chunks(1).collect::<Vec<_>>()),
        case("6.3.1").sends(frame(FIN | TEXT, &split)).fails(1007),
        case("6.3.2").sends(message(TEXT, &split.chunks(1).collect::<Vec<_>>())).fails(1007),
        // The error comes before the message is complete.
        case("6.4.1").sends(late[0].clone()).sends(late[1].clone()).fails(1007),
        case("6.4.3").sends(early).fails(1007),
    ];
    let numbered = |name: &'static str, of: &'static [&'static [u8]]| {
        of.iter().map(move |payload| (format!("6, {name} {payload:x?}"), *payload))
    };
    for (name, payload) in numbered("valid", &VALID) {
        cases.push(case(name).says(TEXT, &[payload]));
    }
    for (name, payload) in numbered("invalid", &INVALID) {
        cases.push(case(&*name).sends(frame(FIN | TEXT, payload)).fails(1007));
        cases.push(case(name).sends(message(TEXT, &[payload, b""])).fails(1007));
    }
    pass(&cases);
}

#[test]
fn cases_7_closing() {
    let close = |payload: &[u8]| frame(FIN | CLOSE, payload);
    let reason = |code: u16, reason: &[u8]| close(&[&code.to_be_bytes()[..], reason].concat());
    let normal = || frame_of_close(1000);
    let behind = |name: &str, bytes: Vec<u8>| {
        case(name).sends([normal(), bytes].concat()).answered(Some(1000))
    };
    let mut cases = vec![
        case("7.1.1").says(TEXT, &[HELLO]).sends(normal()).answered(Some(1000)),
        behind("7.1.2", normal()),
        behind("7.1.3", frame(FIN | PING, b"")),
        behind("7.1.4", frame(FIN | TEXT, HELLO)),
        case("7.1.5")
            .sends([frame(TEXT, b"fragment1"), normal(), frame(FIN | CONTINUATION, b"2")].concat())
            .answered(Some(1000)),
        case("7.1.6")
            .says(TEXT, &[&[b'*'; 256 * 1024]])
            .sends([normal(), frame(FIN | PING, b"")].concat())
            .answered(Some(1000)),
        case("7.3.1").sends(close(b"")).answered(None),
        case("7.3.2").sends(close(b"a")).fails(1002),
        case("7.3.3").sends(normal()).answered(Some(1000)),
        case("7.3.4").sends(reason(1000, HELLO)).answered(Some(1000)),
        case("7.3.5").sends(reason(1000, &[b'*'; 123])).answered(Some(1000)),
        case("7.3.6").sends(reason(1000, &[b'*'; 124])).fails(1002),
        case("7.5.1").sends(reason(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited")).fails(1007),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(case(format!("7.7, {code}")).sends(frame_of_close(code)).answered(Some(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(case(format!("7.9 and 7.13, {code}")).sends(frame_of_close(code)).fails(1002));
    }
    pass(&cases);
}

#[test]
fn cases_9_large_messages_in_small_fragments_and_small_writes() {
    const LARGE: usize = 256 * 1024;
    let mut cases = Vec::new();
    for (group, kind) in [(1, TEXT), (2, BINARY)] {
        for length in [64 * 1024, LARGE, 1 << 20] {
            let payload = vec![b'*'; length];
            cases.push(case(format!("9.{group}, {length} bytes")).says(kind, &[&payload]));
        }
    }
    let payload = vec![b'*'; LARGE];
    for (group, kind) in [(3, TEXT), (4, BINARY)] {
        // These are four times as many fragments as a message may have if they are empty.
        for size in [64, 256, 1024, 4096, 16_384, 65_536, LARGE] {
            let fragments: Vec<_> = payload.chunks(size).collect();
            cases.push(case(format!("9.{group}, fragments of {size}")).says(kind, &fragments));
        }
    }
    for (group, kind) in [(5, TEXT), (6, BINARY)] {
        for size in [64, 512, 2048] {
            let name = format!("9.{group}, writes of {size}");
            cases.push(case(name).says(kind, &[&payload[..LARGE / 4]]).chopped(size));
        }
    }
    for (group, kind) in [(7, TEXT), (8, BINARY)] {
        for size in [0, 64, 1024] {
            let name = format!("9.{group}, 200 messages of {size}");
            let many = (0..200).fold(case(name), |many, _| many.says(kind, &[&payload[..size]]));
            cases.push(many);
        }
    }
    pass(&cases);
}

#[test]
fn case_10_a_message_in_fragments_of_an_odd_size() {
    let payload = vec![b'*'; 65_536];
    let fragments: Vec<_> = payload.chunks(1300).collect();
    pass(&[case("10.1.1").says(TEXT, &fragments)]);
}
