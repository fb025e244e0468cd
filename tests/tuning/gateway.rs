//! The gateway as a process, and a client and a publisher that reach it over any stream of bytes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tungstenite::Message;

use crate::digest::{hmac_sha256, md5};

/// A time that is longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const APP: [(&str, &str); 3] = [
    ("REVERB_APP_ID", "app-id"),
    ("REVERB_APP_KEY", "app-key"),
    ("REVERB_APP_SECRET", "app-secret"),
];

/// A process that is killed when the test ends before it.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a [`command`].
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, and waits for it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        self.ended()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of the process", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A command that starts the gateway, with an app and a short drain, and with nothing else of ours
/// in its environment.
pub(crate) fn command(program: &str) -> Command {
    const OURS: [&str; 5] = ["REVERB_", "RINGWAVE_", "LISTEN_", "NOTIFY_", "WATCHDOG_"];
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if OURS.iter().any(|ours| name.as_encoded_bytes().starts_with(ours.as_bytes())) {
            command.env_remove(name);
        }
    }
    command.envs(APP).env("RINGWAVE_SHUTDOWN_WINDOW", "0");
    command
}

/// `ringwave start`, listening there, with the directory of the test as its own.
pub(crate) fn ringwave(directory: &crate::Directory, listen: &[String]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_ringwave"));
    with_flags(&mut command, listen);
    command.current_dir(&directory.0).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The address of a unix socket, for `--listen`.
pub(crate) fn url(path: &str) -> String {
    format!("unix://{path}")
}

/// Adds the flags of a gateway with two shards.
pub(crate) fn with_flags(command: &mut Command, listen: &[String]) {
    command.args(["start", "--shards=2"]);
    command.args(listen.iter().map(|address| format!("--listen={address}")));
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn free_port() -> u16 {
    free_ports::<1>()[0]
}

/// Free ports, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

pub(crate) fn tcp(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(crate) fn unix(path: &str) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Checks that a WebSocket on one stream gets an event that is published on another.
#[track_caller]
pub(crate) fn carries<S: Read + Write>(subscriber: S, publisher: impl Read + Write) {
    let mut client = Client::connect(subscriber);
    client.subscribe("orders");
    publish(publisher, "orders");
    let event = client.next();
    assert!(event.contains("\"shipped\"") && event.contains("\"orders\""), "{event}");
}

/// A Pusher client that knows what these tests need.
pub(crate) struct Client<S>(tungstenite::WebSocket<S>);

impl<S: Read + Write> Client<S> {
    #[track_caller]
    pub(crate) fn connect(stream: S) -> Self {
        let address = "ws://localhost/app/app-key?protocol=7&client=js&version=8.4.0&flash=false";
        let (socket, _response) =
            tungstenite::client(address, stream).unwrap_or_else(|error| panic!("{error}"));
        let mut client = Self(socket);
        assert!(client.next().contains("pusher:connection_established"));
        client
    }

    fn subscribe(&mut self, channel: &str) {
        let subscribe =
            format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#);
        self.0.send(Message::text(subscribe)).unwrap();
        assert!(self.next().contains("subscription_succeeded"));
    }

    #[track_caller]
    fn next(&mut self) -> String {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }
}

/// Publishes twice on one connection, the first time to a channel without subscribers.
#[track_caller]
fn publish(mut stream: impl Read + Write, channel: &str) {
    for channel in ["nobody", channel] {
        let body = format!(r#"{{"name":"shipped","channel":"{channel}","data":"1"}}"#);
        stream.write_all(signed(&body).as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

fn signed(body: &str) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let digest = md5(body.as_bytes());
    let query = format!("auth_key=app-key&auth_timestamp={now}&auth_version=1.0&body_md5={digest}");
    let text = format!("POST\n/apps/app-id/events\n{query}");
    let signature = hmac_sha256("app-secret", &text);
    format!(
        "POST /apps/app-id/events?{query}&auth_signature={signature} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
