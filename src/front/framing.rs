//! The boundaries of the heads and bodies of requests in the bytes that hyper is given.
//!
//! hyper reads ahead, and it removes `Content-Length` from a request that has `Transfer-Encoding`
//! as well (RFC 9112 section 6.3 allows it). A proxy in front that believes the length sees other
//! requests than hyper does, so such a request has to be refused, and only the bytes of its head
//! show it. Besides, hyper doubles its buffer to 16 KiB for any head that arrives in two pieces,
//! which a client may leave unfinished. Hence the socket keeps a head until it is complete, and
//! gives hyper one head at a time. Bytes that follow a head or a body wait in the socket's buffer.
//!
//! Contract: the socket calls [`Framing::give`] with all bytes that it has received and not given,
//! and gives hyper as many as the call returns. The service calls [`Framing::head_taken`] when it
//! gets a request, before hyper reads any of its body, and [`Framing::answered`] with the answer.
//!
//! hyper alone decides what a request is. The end of a head or of a chunked body is found by the
//! empty line that it has to end with; if hyper sees no end there, it asks for more and gets it.
//! Bytes that begin no request are given at once, so that their sender is answered at once.

use std::cell::RefCell;
use std::io::BufRead;

/// The position in the requests of one connection up to which hyper has been given the bytes.
#[derive(Debug, Default)]
pub(super) struct Framing(RefCell<Part>);

/// The part of a request that the next byte belongs to.
#[derive(Debug)]
enum Part {
    /// A head.
    Head(Head),
    /// A body with this many bytes to come.
    Body(u64),
    /// A chunked body. It ends with an empty line, of which this many bytes have come.
    Chunks(u8),
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

/// The state of a head. Offsets count from the first byte that hyper has not been given.
#[derive(Debug, Default)]
struct Head {
    /// The number of bytes that were looked at.
    seen: usize,
    /// The beginning of the line that has not ended.
    line_at: usize,
    /// Whether a line that is not empty has ended.
    begun: bool,
    /// The number of bytes up to the end of the empty line, once that has come. They are given.
    end: Option<usize>,
    /// Whether the bytes begin no request, so that hyper is given them as they come.
    passes: bool,
    has_length: bool,
    has_encoding: bool,
}

impl Framing {
    /// Returns the number of these bytes that hyper, which has `room` for some, may have now: none
    /// before the head that they belong to is complete, and none beyond that head or body. `all`
    /// says that no more can come, so that none are kept.
    pub(super) fn give(&self, received: &[u8], room: usize, all: bool) -> usize {
        let part = &mut *self.0.borrow_mut();
        // A body never fills the room, because hyper would double its buffer.
        let room_of_body = room.saturating_sub(1).max(1);
        match part {
            Part::Head(head) => head.give(received, room, all),
            Part::Body(left) => {
                let room = room_of_body;
                // A longer body than memory can address has more bytes than were received.
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let given = most.min(room).min(received.len());
                *left -= given as u64;
                if *left == 0 {
                    *part = Part::default();
                }
                given
            }
            Part::Chunks(matched) => {
                let received = received.get(..room_of_body).unwrap_or(received);
                let end = received.iter().position(|&byte| {
                    *matched = match (*matched, byte) {
                        (before @ (0 | 2), b'\r') | (before @ (1 | 3), b'\n') => before + 1,
                        (_, b'\r') => 1,
                        _ => 0,
                    };
                    *matched == 4
                });
                if end.is_some() {
                    *matched = 0;
                }
                end.map_or(received.len(), |at| at + 1)
            }
        }
    }

    /// Whether hyper has been given nothing of the request to come.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(&*self.0.borrow(), Part::Head(head) if head.end.is_none() && !head.passes)
    }

    /// Notes that hyper has taken a head. `body` is the length of the body behind it, `None` if it
    /// is chunked. Returns whether the head gives the length in two ways.
    pub(super) fn head_taken(&self, body: Option<u64>) -> bool {
        let next = match body {
            Some(0) => Part::default(),
            Some(bytes) => Part::Body(bytes),
            None => Part::Chunks(0),
        };
        match self.0.replace(next) {
            Part::Head(head) => head.has_length && head.has_encoding,
            Part::Body(_) | Part::Chunks(_) => false,
        }
    }

    /// Notes that the request is answered. A chunked body has ended then, or the connection will.
    pub(super) fn answered(&self) {
        let part = &mut *self.0.borrow_mut();
        if let Part::Chunks(_) = part {
            *part = Part::default();
        }
    }
}

impl Head {
    fn give(&mut self, received: &[u8], room: usize, all: bool) -> usize {
        if self.end == Some(0) {
            // hyper did not take these bytes for a head.
            *self = Self::default();
        }
        if self.end.is_none() && !self.passes {
            self.look(received);
        }
        self.passes |= all && self.end.is_none();
        let due = match self.end {
            Some(end) => end,
            None if self.passes => received.len(),
            None => 0,
        };
        let given = due.min(room).min(received.len());
        self.end = self.end.map(|end| end - given);
        given
    }

    /// Looks at the new bytes.
    fn look(&mut self, received: &[u8]) {
        let mut new = received.get(self.seen..).unwrap_or_default();
        while !new.is_empty() {
            // `skip_until` is faster than a look at each byte, and reading from memory cannot fail.
            self.seen += new.skip_until(b'\n').unwrap_or_default();
            if !received.get(..self.seen).is_some_and(|seen| seen.ends_with(b"\n")) {
                break;
            }
            self.see_line(received.get(self.line_at..self.seen).unwrap_or_default());
            self.line_at = self.seen;
            if self.end.is_some() || self.passes {
                return;
            }
        }
        // A control character at the start is not HTTP. A TLS record, for one, may have no line
        // end.
        let first = received.get(self.line_at);
        self.passes |= !self.begun && first.is_some_and(|&byte| byte < b' ' && byte != b'\r');
    }

    fn see_line(&mut self, line: &[u8]) {
        if matches!(line, b"\n" | b"\r\n") {
            // Empty lines before a request are not part of it (RFC 9112 section 2.2).
            self.end = self.begun.then_some(self.seen);
        } else if self.begun {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            self.has_length |= name.eq_ignore_ascii_case(b"content-length");
            self.has_encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
        } else {
            self.begun = true;
            let line = line.trim_ascii_end();
            self.passes = !line.ends_with(b" HTTP/1.1") && !line.ends_with(b" HTTP/1.0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\n\r\n";

    /// Receives the bytes in pieces of this size, and gives as many as may be given each time.
    /// Returns the sizes of what is given.
    fn given(framing: &Framing, bytes: &[u8], piece: usize) -> Vec<usize> {
        let (mut kept, mut sizes) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            kept.extend_from_slice(piece);
            while !kept.is_empty() {
                let given = framing.give(&kept, usize::MAX, false);
                if given == 0 {
                    break;
                }
                sizes.push(given);
                kept.drain(..given);
            }
        }
        sizes
    }

    #[test]
    fn one_whole_head_is_given_at_a_time_however_its_bytes_arrive() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "\r\n\nGET / HTTP/1.0\nA: b\n\n"] {
            let both = [head.as_bytes(), NEXT].concat();
            for piece in 1..=both.len() {
                let sizes = given(&Framing::default(), &both, piece);
                assert_eq!(sizes, [head.len(), NEXT.len()], "{head:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_head_with_both_lengths_is_known_in_any_order_and_case_and_piece() {
        for (first, second, both) in [
            ("Content-Length: 5", "Transfer-Encoding: chunked", true),
            ("transfer-encoding:chunked", "CONTENT-LENGTH: bad", true),
            ("Content-Length: 5", "X-Transfer-Encoding: chunked", false),
            ("Content-Length: 5", "Content-Length: 5", false),
            ("Transfer-Encodings: chunked", "Content-Length: 5", false),
            ("X: Content-Length: 5", "Transfer-Encoding: chunked", false),
            ("Content-Lengt: 5", "Transfer-Encoding: chunked", false),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{first}\r\nHost: h\r\n{second}\r\n\r\n");
            for piece in 1..=head.len() {
                let framing = Framing::default();
                assert_eq!(given(&framing, head.as_bytes(), piece), [head.len()]);
                assert_eq!(framing.head_taken(None), both, "{head:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_head_is_given_in_as_many_parts_as_there_is_room_for() {
        let framing = Framing::default();
        let mut kept = [NEXT, NEXT].concat();
        for expected in [10, 10, 2] {
            assert_eq!(framing.give(&kept, 10, false), expected);
            kept.drain(..expected);
        }
        assert!(!framing.head_taken(Some(0)));
        assert_eq!(framing.give(&kept, 10, false), 10);
    }

    #[test]
    fn what_begins_no_request_and_what_does_not_end_is_given_as_it_is() {
        for bytes in [
            &b"\x16\x03\x01\x02\0\x01"[..],
            b"SSH-2.0-OpenSSH\r\n",
            b"GET /up HTTP/1.2\r\n",
            b"GET /up\n",
            b"\r\n\r\n\0\r\nQUIT\n",
        ] {
            assert_eq!(Framing::default().give(bytes, 99, false), bytes.len(), "{bytes:?}");
        }
        let framing = Framing::default();
        let half = b"GET /up HTTP/1.1\r\nA: b";
        assert_eq!(framing.give(half, 99, false), 0);
        assert_eq!(framing.give(half, 99, true), half.len());
    }

    #[test]
    fn nothing_of_the_next_request_is_given_with_a_body() {
        let framing = Framing::default();
        let sent = [b"POST / HTTP/1.1\r\n\r\n12345", NEXT].concat();
        assert_eq!(framing.give(&sent, 99, false), 19);
        assert!(!framing.head_taken(Some(5)));
        assert_eq!(framing.give(&sent[19..], 4, false), 3);
        assert_eq!(framing.give(&sent[22..], 99, false), 2);
        framing.answered();
        assert_eq!(framing.give(&sent[24..], 99, false), NEXT.len());
    }

    #[test]
    fn chunks_are_given_up_to_the_empty_line_at_their_end() {
        // A body may have empty lines of its own.
        let body = b"8\r\na\r\n\r\nbcd\r\n4\r\n\r\r\n\r\r\n2\r\n\r\n\r\n0\r\nT: x\r\n\r\n";
        let sent = [&body[..], NEXT].concat();
        for room in 1..=body.len() {
            let framing = Framing::default();
            framing.head_taken(None);
            let mut at = 0;
            while at < body.len() {
                at += framing.give(&sent[at..], room, false);
            }
            assert_eq!(at, body.len(), "with room for {room}");
            framing.answered();
            assert_eq!(framing.give(&sent[at..], 99, false), NEXT.len());
        }
    }

    #[test]
    fn what_hyper_does_not_take_as_a_head_does_not_hold_back_what_follows() {
        let framing = Framing::default();
        let sent = [NEXT, NEXT].concat();
        assert_eq!(framing.give(&sent, 99, false), NEXT.len());
        assert_eq!(framing.give(&sent[NEXT.len()..], 99, false), NEXT.len());
    }
}
