mod cases;

use std::io::Write;

use crate::gateway::{served, served_with};
use crate::raw::{
    BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, Raw, TEXT, frame, frame_of_close, handshake,
    text,
};

const FIN: u8 = 0x80;
const PUSHER_PING: &str = r#"{"event":"pusher:ping","data":{}}"#;
const PUSHER_PONG: &str = r#"{"event":"pusher:pong"}"#;

/// A subscribe whose channel has letters of two to four bytes, and the answer's end.
const SUBSCRIBE: &str = r#"{"event":"pusher:subscribe","data":{"channel":"é-€-😀"}}"#;
const SUBSCRIBED: &str = r#""channel":"é-€-😀"}"#;

/// A ping of this length.
fn padded(length: usize) -> String {
    format!("{PUSHER_PING}{}", " ".repeat(length - PUSHER_PING.len()))
}

#[test]
fn a_message_may_come_in_any_fragments() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        let payload = SUBSCRIBE.as_bytes();
        for cut in 0..=payload.len() {
            let (first, second) = payload.split_at(cut);
            let fragments = [frame(TEXT, first), frame(FIN | CONTINUATION, second)].concat();
            raw.send(&fragments);
            assert!(raw.message().ends_with(SUBSCRIBED), "cut at {cut}");
        }
        raw.send(&frame(TEXT, b""));
        payload.chunks(1).for_each(|byte| raw.send(&frame(CONTINUATION, byte)));
        raw.send(&frame(FIN | CONTINUATION, b""));
        assert!(raw.message().ends_with(SUBSCRIBED));
        raw.send(&frame(BINARY, &payload[..10]));
        raw.send(&frame(FIN | CONTINUATION, &payload[10..]));
        assert!(raw.message().ends_with(SUBSCRIBED));
        raw.expect_alive();
    });
}

#[test]
fn control_frames_between_fragments_are_answered_at_once() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        let payload = SUBSCRIBE.as_bytes();
        raw.send(&frame(TEXT, &payload[..5]));
        for ping in [&b""[..], b"a", &[0xff; 125]] {
            raw.send(&frame(FIN | PING, ping));
            assert_eq!(raw.frame(), Some(Frame { opcode: PONG, payload: ping.to_vec() }));
            raw.send(&frame(FIN | PONG, ping));
        }
        raw.send(&frame(CONTINUATION, &payload[5..50]));
        raw.send(&frame(FIN | PING, b"b"));
        assert_eq!(raw.frame(), Some(Frame { opcode: PONG, payload: b"b".to_vec() }));
        raw.send(&frame(FIN | CONTINUATION, &payload[50..]));
        assert!(raw.message().ends_with(SUBSCRIBED));
    });
}

#[test]
fn frames_may_be_cut_at_every_byte() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        let bytes = [
            text(PUSHER_PING),
            frame(TEXT, &SUBSCRIBE.as_bytes()[..9]),
            frame(FIN | PING, b"ping"),
            frame(FIN | CONTINUATION, &SUBSCRIBE.as_bytes()[9..]),
        ]
        .concat();
        let expect_answers = |raw: &mut Raw| {
            assert_eq!(raw.message(), PUSHER_PONG);
            assert_eq!(raw.frame(), Some(Frame { opcode: PONG, payload: b"ping".to_vec() }));
            assert!(raw.message().ends_with(SUBSCRIBED));
        };
        for cut in 1..bytes.len() {
            raw.send(&bytes[..cut]);
            std::thread::yield_now();
            raw.send(&bytes[cut..]);
            expect_answers(&mut raw);
        }
        raw.trickle(&bytes);
        expect_answers(&mut raw);
    });
}

#[test]
fn frames_may_be_glued_in_any_number() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        // These are more bytes than a receive buffer has, so that a frame is cut at its end.
        raw.send(&text(PUSHER_PING).repeat(1000));
        for _ in 0..1000 {
            assert_eq!(raw.message(), PUSHER_PONG);
        }
        let (small, large) =
            (text(PUSHER_PING), text(&format!("{}{PUSHER_PING}", " ".repeat(9000))));
        raw.send(&[&small[..], &large, &small, &large, &large, &small].concat());
        for _ in 0..6 {
            assert_eq!(raw.message(), PUSHER_PONG);
        }
    });
}

#[test]
fn frames_right_behind_the_handshake_are_served_whatever_the_cut() {
    served(|gateway| {
        let bytes = [handshake().into_bytes(), text(PUSHER_PING), text(SUBSCRIBE)].concat();
        let head = handshake().len();
        for cut in (head.saturating_sub(3)..=bytes.len()).chain([1, head / 2]) {
            let mut raw = Raw::open(gateway, &bytes[..cut.max(head)]);
            raw.send(&bytes[cut.max(head)..]);
            raw.established();
            assert_eq!(raw.message(), PUSHER_PONG, "cut at {cut}");
            assert!(raw.message().ends_with(SUBSCRIBED), "cut at {cut}");
        }
    });
}

#[test]
fn lengths_of_every_form_are_taken() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        for length in [33, 125, 126, 127, 128, 255, 256, 4095, 4096, 4097, 8192, 9_999, 10_000] {
            raw.send(&text(&padded(length)));
            assert_eq!(raw.message(), PUSHER_PONG, "{length}");
        }
    });
    let large = |setup: crate::gateway::Setup| setup.env("REVERB_APP_MAX_MESSAGE_SIZE", "200000");
    served_with(large, |gateway| {
        let mut raw = Raw::connect(gateway);
        for length in [65_535, 65_536, 65_537, 200_000] {
            raw.send(&text(&padded(length)));
            assert_eq!(raw.message(), PUSHER_PONG, "{length}");
        }
    });
}

#[test]
fn any_mask_is_taken_off() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        for mask in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0, 0, 0, 0x80]] {
            let mut bytes = vec![FIN | TEXT, 0x80 | u8::try_from(PUSHER_PING.len()).unwrap()];
            bytes.extend(mask);
            bytes.extend(PUSHER_PING.bytes().zip(mask.iter().cycle()).map(|(byte, by)| byte ^ by));
            raw.send(&bytes);
            assert_eq!(raw.message(), PUSHER_PONG);
        }
    });
}

#[test]
fn a_violation_of_the_framing_is_closed_with_1002() {
    served(|gateway| {
        let unmasked = [&[FIN | TEXT, 33][..], PUSHER_PING.as_bytes()].concat();
        let long_ping = frame(FIN | PING, &[b'x'; 126]);
        let violations: [(&str, Vec<u8>); 22] = [
            ("unmasked", unmasked),
            ("unmasked close", vec![FIN | CLOSE, 0, 0, 0]),
            ("RSV1", frame(FIN | 0x40 | TEXT, b"{}")),
            ("RSV2", frame(FIN | 0x20 | TEXT, b"{}")),
            ("RSV3", frame(FIN | 0x10 | PING, b"")),
            ("opcode 3", frame(FIN | 3, b"")),
            ("opcode 7", frame(FIN | 7, b"")),
            ("opcode 11", frame(FIN | 11, b"")),
            ("opcode 15", frame(FIN | 15, b"")),
            ("fragmented ping", frame(PING, b"")),
            ("fragmented close", frame(CLOSE, &1000_u16.to_be_bytes())),
            ("ping of 126 bytes", long_ping),
            ("orphan continuation", frame(FIN | CONTINUATION, b"{}")),
            ("orphan fragment", frame(CONTINUATION, b"{}")),
            ("message in message", [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat()),
            ("binary in text", [frame(TEXT, b"{"), frame(BINARY, b"}")].concat()),
            ("length 5 in 16 bits", vec![FIN | TEXT, 0xfe, 0, 5, 0, 0, 0, 0]),
            ("length 125 in 64 bits", [&[FIN | TEXT, 0xff][..], &[0; 7], &[125], &[0; 4]].concat()),
            ("length of 2^63", [&[FIN | TEXT, 0xff, 0x80][..], &[0; 11]].concat()),
            ("length of 2^64-1", [&[FIN | BINARY][..], &[0xff; 13]].concat()),
            ("close of one byte", frame(FIN | CLOSE, b"x")),
            ("close code 1005", frame_of_close(1005)),
        ];
        for (what, bytes) in violations {
            let mut raw = Raw::connect(gateway);
            raw.send(&bytes);
            let reason = raw.expect_close(1002);
            assert!(!reason.is_empty(), "{what}");
        }
        for code in [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65_535] {
            let mut raw = Raw::connect(gateway);
            raw.send(&frame_of_close(code));
            raw.expect_close(1002);
        }
    });
}

#[test]
fn text_that_is_not_utf8_is_closed_with_1007() {
    served(|gateway| {
        let payloads: [&[u8]; 9] = [
            b"\xff",
            b"abc\x80",
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xed\xa0\x80",
            b"\xf0\x80\x80\xaf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"\xe2\x82",
        ];
        for payload in payloads {
            let mut raw = Raw::connect(gateway);
            raw.send(&frame(FIN | TEXT, payload));
            raw.expect_close(1007);
            for cut in 0..=payload.len() {
                let mut raw = Raw::connect(gateway);
                raw.send(&frame(TEXT, &payload[..cut]));
                // The connection may have been closed by now, so that the rest meets a closed
                // socket.
                let rest = frame(FIN | CONTINUATION, &payload[cut..]);
                let _closed = raw.stream.write_all(&rest);
                raw.expect_close(1007);
            }
        }
        let mut raw = Raw::connect(gateway);
        raw.send(&frame(FIN | CLOSE, b"\x03\xe8\xff"));
        raw.expect_close(1007);
    });
}

#[test]
fn an_invalid_byte_is_found_before_its_message_is_complete() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        raw.send(&frame(TEXT, b"abc\xff"));
        raw.expect_close(1007);
        let mut raw = Raw::connect(gateway);
        let whole = frame(FIN | TEXT, &[b"abc\xff".as_slice(), &[b'd'; 100]].concat());
        raw.send(&whole[..20]);
        raw.expect_close(1007);
    });
}

#[test]
fn a_message_over_the_limit_is_closed_with_1009_before_it_is_sent() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        // This is only the header, which announces 10,001 bytes.
        raw.send(&[FIN | TEXT, 0xfe, 0x27, 0x11, 0, 0, 0, 0]);
        assert_eq!(raw.expect_close(1009), "Maximum message size exceeded");
        let mut raw = Raw::connect(gateway);
        raw.send(&[&[FIN | BINARY, 0xff, 0, 0, 0, 0xff][..], &[0; 8]].concat());
        raw.expect_close(1009);
        let mut raw = Raw::connect(gateway);
        raw.send(&frame(TEXT, &[b' '; 6000]));
        raw.send(&frame(CONTINUATION, &[b' '; 4000]));
        raw.send(&[FIN | CONTINUATION, 0x81, 0, 0, 0, 0]);
        raw.expect_close(1009);
    });
}

#[test]
fn fragments_without_end_are_closed_with_1009() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        raw.send(&frame(TEXT, b""));
        let empty = frame(CONTINUATION, b"").repeat(2000);
        let _closed = raw.stream.write_all(&empty);
        assert_eq!(raw.expect_close(1009), "Too many fragments");
    });
}

#[test]
fn a_message_far_over_the_limit_can_be_written_whole_before_the_close_frame_is_read() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        raw.send(&frame(FIN | TEXT, &vec![b' '; 3 << 20]));
        assert_eq!(raw.frame().unwrap().close().0, 1009);
        raw.send(&frame_of_close(1009));
        // A reset would have reached this client while it wrote, before it read anything.
        raw.expect_end();
    });
}

#[test]
fn a_client_that_never_stops_sending_behind_a_violation_is_cut_off() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        raw.send(&frame(FIN | 3, b""));
        let flood = vec![0; 1 << 20];
        let taken = (0..64).take_while(|_| raw.stream.write_all(&flood).is_ok()).count();
        // 4 MiB are discarded, and the sockets of both sides hold some.
        assert!(taken < 32, "{taken} MiB were taken");
    });
}

#[test]
fn a_close_frame_is_answered_by_the_same_and_then_the_end() {
    served(|gateway| {
        for code in [1000_u16, 1001, 1003, 1007, 1011, 1014, 3000, 4000, 4999] {
            let mut raw = Raw::connect(gateway);
            raw.send(&frame(FIN | CLOSE, &[&code.to_be_bytes()[..], "bye, ü".as_bytes()].concat()));
            assert_eq!(raw.frame().unwrap().close().0, code);
            assert_eq!(raw.frame(), None);
        }
        let mut raw = Raw::connect(gateway);
        raw.send(&frame(FIN | CLOSE, b""));
        assert_eq!(raw.frame(), Some(Frame { opcode: CLOSE, payload: Vec::new() }));
        assert_eq!(raw.frame(), None);
    });
}

#[test]
fn requests_before_a_close_frame_are_answered_and_those_behind_it_are_not() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        let bytes = [
            text(PUSHER_PING),
            frame(FIN | PING, b"last"),
            frame_of_close(1000),
            text(PUSHER_PING),
            frame(FIN | 0x70 | 15, b""),
        ];
        raw.send(&bytes.concat());
        assert_eq!(raw.message(), PUSHER_PONG);
        assert_eq!(raw.frame(), Some(Frame { opcode: PONG, payload: b"last".to_vec() }));
        assert_eq!(raw.frame().unwrap().close().0, 1000);
        assert_eq!(raw.frame(), None);
    });
}

#[test]
fn a_close_frame_in_the_middle_of_a_message_closes() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        raw.send(&[frame(TEXT, b"{"), frame_of_close(1001)].concat());
        assert_eq!(raw.frame().unwrap().close().0, 1001);
        assert_eq!(raw.frame(), None);
    });
}

#[test]
fn a_connection_that_just_ends_is_taken_as_gone() {
    served(|gateway| {
        for bytes in [Vec::new(), text(PUSHER_PING)[..7].to_vec(), frame(TEXT, b"{")] {
            let mut raw = Raw::connect(gateway);
            raw.send(&bytes);
            raw.finish();
            assert_eq!(raw.frame(), None);
        }
        crate::gateway::eventually("nobody is left", || {
            let count = crate::http::Call::get("connections").ok(gateway);
            (count["connections"] == 0).then_some(())
        });
    });
}

#[test]
fn a_flood_of_pings_is_answered_in_full() {
    served(|gateway| {
        let mut raw = Raw::connect(gateway);
        let mut writer = raw.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..5000_u32 {
                    let ping = frame(FIN | PING, &number.to_be_bytes());
                    writer.write_all(&ping).unwrap();
                }
            });
            for number in 0..5000_u32 {
                let payload = number.to_be_bytes().to_vec();
                assert_eq!(raw.frame(), Some(Frame { opcode: PONG, payload }));
            }
        });
    });
}

#[test]
fn nobody_receives_bytes_of_somebody_else() {
    served(|gateway| {
        std::thread::scope(|scope| {
            for number in 0..8_u8 {
                scope.spawn(move || {
                    let mut raw = Raw::connect(gateway);
                    let payload = [b'a' + number; 100];
                    for round in 0..300 {
                        raw.send(&frame(FIN | PING, &payload));
                        if round % 7 == 0 {
                            raw = Raw::connect(gateway);
                            raw.send(&frame(FIN | PING, &payload));
                        }
                        let expected = Frame { opcode: PONG, payload: payload.to_vec() };
                        assert_eq!(raw.frame(), Some(expected));
                    }
                });
            }
        });
    });
}
