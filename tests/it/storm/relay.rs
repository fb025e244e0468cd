//! A relay in front of a gateway: the same gateway by another address, as another node of a cluster
//! would serve it. It can swallow publishes, and it can die.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::gateway::Gateway;

/// The treatment of a publish.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Request and response are passed on.
    Pass,
    /// The connection is cut instead of passing the request on.
    SwallowRequest,
    /// The connection is cut when the gateway has accepted the request.
    SwallowResponse,
}

/// A relay. It is killed when dropped.
pub(super) struct Relay {
    address: SocketAddr,
    relaying: Arc<Relaying>,
    acceptor: Option<JoinHandle<()>>,
}

struct Relaying {
    gateway: SocketAddr,
    treatment: fn(usize) -> Treatment,
    /// The publishes so far.
    publishes: AtomicUsize,
    /// The WebSockets so far.
    handshakes: AtomicUsize,
    /// The pieces of bytes so far that clients sent on WebSockets: a request, a subscription, and
    /// client events.
    pieces: AtomicUsize,
    dead: AtomicBool,
    /// Both sockets of each connection.
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    pub(super) fn start(gateway: &Gateway) -> Self {
        Self::with(gateway, |_| Treatment::Pass)
    }

    /// `treatment` gives the treatment of a publish from the number of publishes before it.
    pub(super) fn with(gateway: &Gateway, treatment: fn(usize) -> Treatment) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let relaying = Arc::new(Relaying {
            gateway: gateway.address(),
            treatment,
            publishes: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            pieces: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let accepting = Arc::clone(&relaying);
        let acceptor = thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.dead.load(Ordering::SeqCst) {
                    return;
                }
                let relaying = Arc::clone(&accepting);
                // Every end of a connection is an error of a read or a write.
                thread::spawn(move || relaying.relay(client?));
            }
        });
        Self { address, relaying, acceptor: Some(acceptor) }
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(super) fn publishes(&self) -> usize {
        self.relaying.publishes.load(Ordering::SeqCst)
    }

    pub(super) fn handshakes(&self) -> usize {
        self.relaying.handshakes.load(Ordering::SeqCst)
    }

    pub(super) fn pieces(&self) -> usize {
        self.relaying.pieces.load(Ordering::SeqCst)
    }

    /// Cuts all connections and refuses new ones.
    pub(super) fn kill(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.relaying.dead.store(true, Ordering::SeqCst);
        // It sees that it is dead when it accepts this connection.
        let _woken = TcpStream::connect(self.address);
        acceptor.join().unwrap();
        for stream in self.relaying.streams.lock().unwrap().drain(..) {
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Relaying {
    fn relay(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.gateway)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.streams.lock().unwrap().push(stream.try_clone()?);
        }
        if self.dead.load(Ordering::SeqCst) {
            return client.shutdown(Shutdown::Both);
        }
        let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
        let mut requests = BufReader::new(client);
        match requests.fill_buf()? {
            // A connection that only asks whether anybody listens.
            [] => return Ok(()),
            [b'P', ..] => {
                let cut = self.publishes(&mut requests, server, &mut back);
                back.shutdown(Shutdown::Both)?;
                return cut;
            }
            _ => self.handshakes.fetch_add(1, Ordering::SeqCst),
        };
        let answering = thread::spawn(move || {
            let _ended = io::copy(&mut answers, &mut back);
            back.shutdown(Shutdown::Both)
        });
        let _ended = self.pass_on(&mut requests, &server);
        server.shutdown(Shutdown::Both)?;
        answering.join().unwrap()
    }

    fn pass_on(&self, requests: &mut impl BufRead, mut server: &TcpStream) -> io::Result<()> {
        loop {
            let piece = requests.fill_buf()?;
            if piece.is_empty() {
                return Ok(());
            }
            server.write_all(piece)?;
            let length = piece.len();
            requests.consume(length);
            self.pieces.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn publishes(
        &self,
        requests: &mut impl BufRead,
        mut server: TcpStream,
        client: &mut TcpStream,
    ) -> io::Result<()> {
        let mut answers = BufReader::new(server.try_clone()?);
        loop {
            let request = message(requests)?;
            let treatment = (self.treatment)(self.publishes.fetch_add(1, Ordering::SeqCst));
            if treatment == Treatment::SwallowRequest {
                return Ok(());
            }
            server.write_all(&request)?;
            let answer = message(&mut answers)?;
            if treatment == Treatment::SwallowResponse {
                return Ok(());
            }
            client.write_all(&answer)?;
        }
    }
}

/// Reads one HTTP message with a `Content-Length`.
pub(super) fn message(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let mut length = 0;
    loop {
        let start = message.len();
        if stream.read_until(b'\n', &mut message)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&message[start..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let head = message.len();
    message.resize(head + length, 0);
    stream.read_exact(&mut message[head..])?;
    Ok(message)
}
