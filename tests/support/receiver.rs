//! An app's server that takes webhooks: checks every signature, keeps every event, and answers as
//! it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::gateway::{KEY, SECRET, eventually};
use super::sign::hmac_sha256;

/// An app's server. It runs until the process ends.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The status of its answers; 0 means that it never answers.
    status: AtomicU16,
    /// The events of all requests that were answered with 200.
    events: Mutex<Vec<Value>>,
    /// The heads of all requests, in lower case.
    heads: Mutex<Vec<String>>,
    /// The number of open connections.
    connections: AtomicU16,
}

impl Receiver {
    pub fn start() -> Self {
        Self::start_with(Some)
    }

    /// Starts a receiver with something between the socket and HTTP, such as TLS. If `wrap` returns
    /// `None`, the connection is dropped.
    pub fn start_with<S, W>(wrap: W) -> Self
    where
        S: Read + Write,
        W: Fn(std::net::TcpStream) -> Option<S> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { status: AtomicU16::new(200), ..State::default() });
        let (serving, wrap) = (Arc::clone(&state), Arc::new(wrap));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, wrap) = (Arc::clone(&serving), Arc::clone(&wrap));
                thread::spawn(move || {
                    state.connections.fetch_add(1, Ordering::SeqCst);
                    if let Some(stream) = wrap(stream.unwrap()) {
                        serve(&state, stream);
                    }
                    state.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, state }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Sets the status of all answers from now on; 0 means no answer.
    pub fn answer(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// Returns the number of open connections.
    pub fn connections(&self) -> u16 {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn events(&self) -> Vec<Value> {
        self.state.events.lock().unwrap().clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }

    /// Waits for so many events; there may not be more.
    #[track_caller]
    pub fn expect(&self, count: usize) -> Vec<Value> {
        let events = eventually(&format!("{count} events: {:?}", self.events()), || {
            Some(self.events()).filter(|events| events.len() >= count)
        });
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// Waits for an event.
    #[track_caller]
    pub fn expect_event(&self, event: &Value) {
        let events = || self.state.events.lock().unwrap();
        eventually(&format!("{event}"), || events().contains(event).then_some(()));
    }
}

fn serve(state: &State, stream: impl Read + Write) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = read(&mut stream) {
        let field = |name: &str| {
            let prefix = format!("{name}: ");
            head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
        };
        assert_eq!(field("x-pusher-key"), KEY, "{head}");
        assert_eq!(field("x-pusher-signature"), hmac_sha256(SECRET, &body), "{head}{body}");
        assert_eq!(field("content-type"), "application/json");
        let json: Value = serde_json::from_str(&body).unwrap();
        assert!(json["time_ms"].as_u64().unwrap() > 1_600_000_000_000, "{body}");
        state.heads.lock().unwrap().push(head);
        let status = state.status.load(Ordering::SeqCst);
        if status == 0 {
            loop {
                thread::park();
            }
        }
        if status == 200 {
            state.events.lock().unwrap().extend(json["events"].as_array().unwrap().iter().cloned());
        }
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let names = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_lowercase()),
        None => format!("{line}\n"),
    };
    let head: String = head.lines().map(names).collect();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}
