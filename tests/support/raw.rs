//! A WebSocket client of bytes: sends any frame, right or wrong, and takes the server's apart.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::client::target;
use super::frames::masked;
use super::gateway::Gateway;
use super::http::Http;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// `Sec-WebSocket-Key` of RFC 6455 section 1.3, and the answer to it.
pub const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Code and reason of a Close frame.
    #[track_caller]
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let (code, reason) = self.payload.split_first_chunk().expect("a code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap())
    }
}

pub struct Raw {
    pub stream: TcpStream,
    received: Vec<u8>,
}

/// The head of a handshake.
pub fn handshake() -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: it\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n\r\n",
        target()
    )
}

/// A masked frame. `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, [0x37, 0xfa, 0x21, 0x3d], payload)
}

/// A whole text message.
pub fn text(payload: &str) -> Vec<u8> {
    frame(0x80 | TEXT, payload.as_bytes())
}

impl Raw {
    /// Opens a WebSocket and takes `connection_established`.
    #[track_caller]
    pub fn connect(gateway: &Gateway) -> Self {
        let mut raw = Self::open(gateway, handshake().as_bytes());
        raw.established();
        raw
    }

    /// Sends these bytes, which hold a handshake, and takes the 101.
    #[track_caller]
    pub fn open(gateway: &Gateway, bytes: &[u8]) -> Self {
        Self::over(gateway.tcp(), bytes)
    }

    #[track_caller]
    pub fn over(stream: TcpStream, bytes: &[u8]) -> Self {
        let mut http = Http::over(stream);
        http.send(bytes);
        let response = http.response();
        assert_eq!(response.status, 101, "{}", response.text());
        assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT));
        let (stream, received) = http.into_parts();
        Self { stream, received }
    }

    #[track_caller]
    pub fn established(&mut self) -> String {
        let message = self.message();
        assert!(message.contains("pusher:connection_established"), "{message}");
        message
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends each byte in a segment of its own.
    #[track_caller]
    pub fn trickle(&mut self, bytes: &[u8]) {
        bytes.chunks(1).for_each(|byte| self.send(byte));
    }

    /// Takes the next frame. Returns `None` at the end of the stream.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = parsed(&self.received) {
                self.received.drain(..len);
                return Some(frame);
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.received.is_empty(), "it ended within a frame");
                    return None;
                }
                Ok(count) => self.received.extend(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame: {error}"),
            }
        }
    }

    /// The next frame, which has to be text. Pings before it are left unanswered.
    #[track_caller]
    pub fn message(&mut self) -> String {
        loop {
            let frame = self.frame().expect("a frame");
            if frame.opcode != PING {
                assert_eq!(frame.opcode, TEXT, "{frame:?}");
                return String::from_utf8(frame.payload).unwrap();
            }
        }
    }

    /// Checks that the next frame is a Close with this code, and that the stream ends behind it,
    /// which the server does when it has the answer or does not wait for one.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let frame = self.frame().expect("a Close frame");
        let (found, reason) = frame.close();
        assert_eq!(found, code, "{reason}");
        let _gone = self.stream.write_all(&frame_of_close(code));
        assert_eq!(self.frame(), None);
        reason
    }

    /// Checks that the server has ended the stream, and not by a reset, which could have destroyed
    /// what it had sent.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert!(self.received.is_empty(), "more came: {:?}", self.received);
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            other => panic!("no end: {other:?}, {byte:?}"),
        }
    }

    /// Checks that the server still answers, so nothing that came before was an error.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        self.send(&text(r#"{"event":"pusher:ping","data":{}}"#));
        assert_eq!(self.message(), r#"{"event":"pusher:pong"}"#);
    }

    /// Ends the sending direction.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// A Close frame with only a code.
pub fn frame_of_close(code: u16) -> Vec<u8> {
    frame(0x80 | CLOSE, &code.to_be_bytes())
}

/// The first frame and its length, if it is complete. The server's are whole and not masked.
fn parsed(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    assert_eq!(first & 0xf0, 0x80, "not final, or with reserved bits");
    assert!(second < 0x80, "masked");
    let (length, header) = match second {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).unwrap(), 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(header..header + length)?.to_vec();
    Some((Frame { opcode: first & 0x0f, payload }, header + length))
}
