//! The gateway's process: the real executable with its development app.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use md5::{Digest, Md5};
use ringwave::protocol::auth::Secret;
use ringwave::protocol::outbound;

use crate::Server;
use crate::subscribers::Subscribers;

const CHANNEL: &str = "bench";
const EVENT: &str = "e";

/// The gateway's process, and a connection to its API.
pub(crate) struct Gateway {
    child: Child,
    address: String,
    api: TcpStream,
    body: String,
    frame_bytes: usize,
}

impl Gateway {
    /// Starts it; each event carries this many bytes of `data`.
    pub(crate) fn start(shards: usize, data_bytes: usize) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        let child = Command::new("taskset")
            .args(["-c", "0", env!("CARGO_BIN_EXE_ringwave"), "start"])
            .args(["--port", &port.to_string(), "--shards", &shards.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("taskset (util-linux) starts the gateway");
        let address = format!("127.0.0.1:{port}");
        let api = connect(&address);
        api.set_nodelay(true).expect("a TCP socket");
        let data = "x".repeat(data_bytes);
        let frame_bytes = outbound::event(EVENT, &data, CHANNEL).len();
        let body = format!(r#"{{"name":"{EVENT}","channel":"{CHANNEL}","data":"{data}"}}"#);
        Self { child, address, api, body, frame_bytes }
    }

    fn request(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let query = format!(
            "auth_key=app-key&auth_timestamp={}&auth_version=1.0&body_md5={}",
            now.expect("a clock behind 1970").as_secs(),
            hex::encode(Md5::digest(self.body.as_bytes()))
        );
        let path = "/apps/app-id/events";
        let signed = format!("POST\n{path}\n{query}");
        let signature = Secret::new("app-secret").sign(&[signed.as_bytes()]);
        format!(
            "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: bench\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
            self.body.len(),
            self.body
        )
    }
}

impl Server for Gateway {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn subscribe(&self, count: usize) -> Subscribers {
        Subscribers::read((0..count).map(|_| subscribe(&self.address)).collect())
    }

    fn publish(&mut self) {
        let request = self.request();
        self.api.write_all(request.as_bytes()).expect("the gateway reads");
        let mut answer = [0; 1024];
        let len = self.api.read(&mut answer).expect("the gateway answers");
        assert!(answer[..len].starts_with(b"HTTP/1.1 200"), "a publish was refused");
    }

    fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().expect("the gateway runs");
        self.child.wait().expect("the gateway ends");
    }
}

fn connect(address: &str) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "the gateway: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A socket that has read everything up to its `subscription_succeeded`.
fn subscribe(address: &str) -> TcpStream {
    let mut socket = connect(address);
    let upgrade = "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let message = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{CHANNEL}"}}}}"#);
    let length = 0x80 | u8::try_from(message.len()).expect("a short message");
    // A mask of zeros is a mask.
    let mut frame = vec![0x81, length, 0, 0, 0, 0];
    frame.extend_from_slice(message.as_bytes());
    socket.write_all(upgrade.as_bytes()).expect("the gateway reads");
    read_until(&mut socket, b"activity_timeout");
    socket.write_all(&frame).expect("the gateway reads");
    read_until(&mut socket, b"\"channel\":\"bench\"}");
    socket
}

fn read_until(socket: &mut TcpStream, end: &[u8]) {
    let mut received = Vec::new();
    while !received.windows(end.len()).any(|window| window == end) {
        let mut chunk = [0; 1024];
        let len = socket.read(&mut chunk).expect("the gateway sends");
        assert!(len > 0, "the gateway closed");
        received.extend_from_slice(&chunk[..len]);
    }
}
