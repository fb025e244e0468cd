//! Clients of a gateway over plain sockets: subscribers that may be on many channels each, and a
//! publisher.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::redis_server::DEADLINE;

/// The development app.
const APP_ID: &str = "100001";
const KEY: &str = "app-key";
const SECRET: &str = "app-secret";

/// A WebSocket connection.
pub(crate) struct Subscriber {
    stream: TcpStream,
    /// The bytes that were read and not taken yet.
    unread: Vec<u8>,
    socket_id: String,
}

impl Subscriber {
    pub(crate) fn connect(address: &str) -> Self {
        let mut stream = connect(address);
        let request = format!(
            "GET /app/{KEY}?protocol=7 HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the gateway reads");
        let mut subscriber = Self { stream, unread: Vec::new(), socket_id: String::new() };
        let head = take_head(&mut subscriber.stream, &mut subscriber.unread);
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let established: Value = serde_json::from_slice(&subscriber.next()).expect("it is JSON");
        let told: Value = serde_json::from_str(established["data"].as_str().unwrap_or_default())
            .expect("it is JSON");
        told["socket_id"]
            .as_str()
            .expect("it has a socket id")
            .clone_into(&mut subscriber.socket_id);
        subscriber
    }

    /// Asks for subscriptions of public channels, without waiting for the answers.
    pub(crate) fn subscribe(&mut self, channels: impl Iterator<Item = String>) {
        let requests = channels
            .map(|channel| json!({ "event": "pusher:subscribe", "data": { "channel": channel } }));
        self.send(requests);
    }

    /// Asks for subscriptions of presence channels as this user, without waiting for the answers.
    pub(crate) fn enter(&mut self, user_id: &str, channels: impl Iterator<Item = String>) {
        let member = json!({ "user_id": user_id, "user_info": { "name": user_id } }).to_string();
        let socket_id = self.socket_id.clone();
        let requests = channels.map(|channel| {
            let auth = format!("{KEY}:{}", sign(&format!("{socket_id}:{channel}:{member}")));
            let data = json!({ "channel": channel, "auth": auth, "channel_data": member });
            json!({ "event": "pusher:subscribe", "data": data })
        });
        self.send(requests);
    }

    /// Waits for so many messages that contain a text.
    pub(crate) fn await_messages(&mut self, text: &str, count: usize) {
        let mut missing = count;
        while missing > 0 {
            missing -= usize::from(contains(&self.next(), text));
        }
    }

    /// Waits for the next message.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.next_or_end().expect("the gateway keeps its connections")
    }

    /// Waits for the next message; `None` if the connection has ended.
    pub(crate) fn next_or_end(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((head, len)) = frame_lengths(&self.unread)
                && self.unread.len() >= head + len
            {
                let message = self.unread[head..head + len].to_vec();
                self.unread.drain(..head + len);
                return Some(message);
            }
            if !read_more(&mut self.stream, &mut self.unread) {
                return None;
            }
        }
    }

    /// Sends messages as text frames, whose mask of zeros leaves them as they are.
    fn send(&mut self, messages: impl Iterator<Item = Value>) {
        let mut frames = Vec::new();
        for message in messages {
            let text = message.to_string();
            match u16::try_from(text.len()).expect("a message of the bench is short") {
                len @ ..=125 => frames.extend([0x81, 0x80 | len as u8]),
                len => {
                    frames.extend([0x81, 0x80 | 126]);
                    frames.extend(len.to_be_bytes());
                }
            }
            frames.extend([0; 4]);
            frames.extend(text.as_bytes());
        }
        self.stream.write_all(&frames).expect("the gateway reads");
    }
}

/// An HTTP connection that publishes.
pub(crate) struct Publisher {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Publisher {
    pub(crate) fn connect(address: &str) -> Self {
        Self { stream: connect(address), unread: Vec::new() }
    }

    /// The request that publishes an event.
    pub(crate) fn request(channel: &str, data: &str) -> Vec<u8> {
        let body = json!({ "name": "e", "channel": channel, "data": data }).to_string();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let path = format!("/apps/{APP_ID}/events");
        let query = format!(
            "auth_key={KEY}&auth_timestamp={}&auth_version=1.0&body_md5={}",
            now.as_secs(),
            hex::encode(Md5::digest(&body))
        );
        let signature = sign(&format!("POST\n{path}\n{query}"));
        let head =
            format!("POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: bench");
        format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// Sends a request and waits for the response.
    pub(crate) fn publish(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("the gateway reads");
        let head = take_head(&mut self.stream, &mut self.unread);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let len = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let len: usize = len.expect("a response tells its length");
        while self.unread.len() < len {
            assert!(read_more(&mut self.stream, &mut self.unread), "the response is cut");
        }
        self.unread.drain(..len);
    }
}

/// Whether a message contains a text.
pub(crate) fn contains(message: &[u8], text: &str) -> bool {
    message.windows(text.len()).any(|window| window == text.as_bytes())
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the gateway accepts");
    stream.set_nodelay(true).expect("a socket takes options");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket takes options");
    stream
}

/// Reads what has come; returns whether the connection goes on.
fn read_more(stream: &mut TcpStream, unread: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    // A gateway that is killed resets its connections.
    let count = stream.read(&mut buffer).unwrap_or_default();
    unread.extend(&buffer[..count]);
    count > 0
}

/// Takes the head of a response.
fn take_head(stream: &mut TcpStream, unread: &mut Vec<u8>) -> String {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(at) = unread.windows(END.len()).position(|window| window == END) {
            let head: Vec<u8> = unread.drain(..at + END.len()).collect();
            return String::from_utf8_lossy(&head).into_owned();
        }
        assert!(read_more(stream, unread), "the gateway has closed a connection");
    }
}

/// The lengths of the head and the payload of the first frame, as soon as its head is there.
fn frame_lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes {
        [_, 126, a, b, ..] => Some((4, usize::from(u16::from_be_bytes([a, b])))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            let len = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            Some((10, usize::try_from(len).ok()?))
        }
        [_, len @ ..=125, ..] => Some((2, usize::from(len))),
        _ => None,
    }
}

fn sign(text: &str) -> String {
    let hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes any key");
    hex::encode(hmac.chain_update(text).finalize().into_bytes())
}
