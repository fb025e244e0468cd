//! HTTP/1.1 over a plain socket: requests as bytes, responses taken apart.

use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::gateway::{APP_ID, Gateway, KEY, SECRET, eventually};
use super::sign::{hmac_sha256, md5};

/// A request of the API.
#[derive(Clone)]
pub struct Call {
    pub method: &'static str,
    /// The path, with the prefix if it is sent with one.
    pub path: String,
    /// The path that is signed, if it differs.
    pub signed_path: Option<String>,
    pub query: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub key: String,
    pub secret: String,
    pub timestamp: u64,
    /// Header lines without their line ends.
    pub headers: Vec<String>,
}

impl Call {
    fn new(method: &'static str, endpoint: &str, body: Vec<u8>) -> Self {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Self {
            method,
            path: format!("/apps/{APP_ID}/{endpoint}"),
            signed_path: None,
            query: Vec::new(),
            body,
            key: KEY.to_owned(),
            secret: SECRET.to_owned(),
            timestamp,
            headers: Vec::new(),
        }
    }

    /// `endpoint` is what follows the app's id.
    pub fn get(endpoint: &str) -> Self {
        Self::new("GET", endpoint, Vec::new())
    }

    pub fn post(endpoint: &str, body: &Value) -> Self {
        Self::new("POST", endpoint, body.to_string().into_bytes())
    }

    pub fn post_text(endpoint: &str, body: &str) -> Self {
        Self::new("POST", endpoint, body.as_bytes().to_vec())
    }

    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// The target: path and signed query.
    pub fn target(&self) -> String {
        let mut params = self.query.clone();
        let mut add = |name: &str, value: String| params.push((name.to_owned(), value));
        add("auth_key", self.key.clone());
        add("auth_timestamp", self.timestamp.to_string());
        add("auth_version", "1.0".to_owned());
        if !self.body.is_empty() {
            add("body_md5", md5(&self.body));
        }
        params.sort();
        let query: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = query.join("&");
        let path = self.signed_path.as_ref().unwrap_or(&self.path);
        let signature = hmac_sha256(&self.secret, &format!("{}\n{path}\n{query}", self.method));
        format!("{}?{query}&auth_signature={signature}", self.path)
    }

    /// The head, up to the headers that say how long the body is.
    pub fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: it\r\n", self.method, self.target());
        self.headers.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
        head
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head().into_bytes();
        if self.method == "POST" {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).bytes());
            bytes.extend(b"Content-Type: application/json\r\n");
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends the request on a connection of its own.
    #[track_caller]
    pub fn send(&self, gateway: &Gateway) -> Response {
        let mut http = Http::over(gateway.tcp());
        http.send(&self.bytes());
        http.response()
    }

    /// Sends the request and returns the JSON of a success.
    #[track_caller]
    pub fn ok(&self, gateway: &Gateway) -> Value {
        let response = self.send(gateway);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }
}

/// Publishes one event to one channel.
#[track_caller]
pub fn publish(gateway: &Gateway, channel: &str, event: &str, data: &str) {
    let body = serde_json::json!({ "name": event, "channel": channel, "data": data });
    assert_eq!(Call::post("events", &body).ok(gateway), serde_json::json!({}));
}

/// The number of connections that the app has.
#[track_caller]
pub fn connections(gateway: &Gateway) -> u64 {
    Call::get("connections").ok(gateway)["connections"].as_u64().unwrap()
}

/// Waits until the app has so many connections: a client that left is counted for a moment more.
#[track_caller]
pub fn until_connected(gateway: &Gateway, count: u64) {
    eventually(&format!("connections: {count}"), || (connections(gateway) == count).then_some(()));
}

/// Waits until the app has no channel: a client that left is subscribed for a moment more.
#[track_caller]
pub fn until_vacated(gateway: &Gateway) {
    let nothing = serde_json::json!({ "channels": {} });
    eventually("all channels are vacated", || {
        (Call::get("channels").ok(gateway) == nothing).then_some(())
    });
}

/// A response. Status 0 means that the connection was closed without one.
#[derive(Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// One connection.
pub struct Http<S> {
    pub stream: S,
    /// The bytes that were received and not taken yet.
    received: Vec<u8>,
}

impl<S: Read + Write> Http<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// Sends as much as the peer takes, because it may not read a refused request to its end.
    pub fn send(&mut self, bytes: &[u8]) {
        let _refused = self.stream.write_all(bytes);
    }

    /// The next response, informational ones too.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let Some(end) = self.receive_until(|received| find(received, b"\r\n\r\n")) else {
            let left = String::from_utf8_lossy(&self.received);
            assert!(self.received.is_empty(), "it ended within a response: {left:?}");
            return Response::default();
        };
        let head: Vec<u8> = self.received.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        let status =
            status_line.strip_prefix("HTTP/1.1 ").or_else(|| status_line.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let mut response = Response {
            status: status.unwrap_or_else(|| panic!("{status_line:?}")),
            headers: headers.collect(),
            body: Vec::new(),
        };
        let length = response.header("content-length").map_or(0, |text| text.parse().unwrap());
        self.receive_until(|received| (received.len() >= length).then_some(0)).unwrap();
        response.body = self.received.drain(..length).collect();
        response
    }

    /// The head of the answer to a HEAD request: its `Content-Length` has no body.
    pub fn head_response(&mut self) -> String {
        let end = self.receive_until(|received| find(received, b"\r\n\r\n")).unwrap();
        String::from_utf8(self.received.drain(..end + 4).collect()).unwrap()
    }

    /// All responses until the end of the connection.
    #[track_caller]
    pub fn responses(&mut self) -> Vec<Response> {
        std::iter::from_fn(|| Some(self.response()).filter(|response| response.status != 0))
            .collect()
    }

    /// Takes what was received beyond the last response.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.received)
    }

    /// Receives until `done` gives a value. Returns `None` if the connection ended before that.
    fn receive_until(&mut self, done: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
        loop {
            if let Some(at) = done(&self.received) {
                return Some(at);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
