//! A TCP proxy of a test's own, which breaks the connections through it in every way that a network
//! does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// The bytes that are passed on at once.
const CHUNK: usize = 16 << 10;

/// The fate of bytes that reach the proxy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flow {
    /// They are passed on.
    Open,
    /// They wait until the flow is another one, even if their sender has given up by then.
    Stalled,
    /// They are gone, and nobody is told. The connections break when the flow is another one.
    Swallowed,
    /// The server gets everything, and its answers are gone. The connections break when the flow is
    /// another one.
    Unanswered,
    /// There are none: connections are closed, those that come as well.
    Refused,
    /// They are passed on, so many in a second for each connection and direction.
    Throttled(u32),
}

/// A running proxy. It ends when dropped, and all connections with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The server behind the proxy.
    server: SocketAddr,
    flow: Flow,
    /// Both ends of every connection since the last cut.
    open: Vec<TcpStream>,
    /// Set when the proxy is dropped.
    ended: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Proxy {
    /// Starts a proxy in front of a server.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { server, flow: Flow::Open, open: Vec::new(), ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the fate of all bytes from now on.
    pub fn set(&self, flow: Flow) {
        let mut state = self.shared.state();
        let before = std::mem::replace(&mut state.flow, flow);
        let torn = matches!(before, Flow::Swallowed | Flow::Unanswered) && before != flow;
        if torn || flow == Flow::Refused {
            state.cut();
        }
        self.shared.changed.notify_all();
    }

    /// Breaks all connections. New ones come through.
    pub fn cut(&self) {
        self.shared.state().cut();
    }

    /// Sends new connections to another server, and breaks those that are there.
    pub fn turn_to(&self, server: SocketAddr) {
        let mut state = self.shared.state();
        state.server = server;
        state.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        state.flow = Flow::Refused;
        state.cut();
        drop(state);
        self.shared.changed.notify_all();
        // The accepting thread looks at the state when a connection comes.
        let _woken = TcpStream::connect(self.address);
    }
}

impl State {
    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            // It may have ended by itself.
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.state().ended {
                return;
            }
            // A client whose server is away loses its connection, as it would behind a real proxy.
            let _refused = self.open(client);
        }
    }

    fn open(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        let mut state = self.state();
        if state.flow == Flow::Refused {
            return Ok(());
        }
        let server = TcpStream::connect(state.server)?;
        let ends = [client, server];
        for (from, to) in [(0, 1), (1, 0)] {
            ends[from].set_nodelay(true)?;
            state.open.push(ends[from].try_clone()?);
            let direction = if to == 1 { Direction::ToServer } else { Direction::ToClient };
            let (from, to) = (ends[from].try_clone()?, ends[to].try_clone()?);
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pump(from, to, direction));
        }
        Ok(())
    }

    /// Passes bytes on until an end is closed, and closes the other one.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = [0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if self.passes(direction, count) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        for stream in [from, to] {
            // The other direction may have closed it.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether so many bytes are to be passed on. Returns when it is time for it.
    fn passes(&self, direction: Direction, count: usize) -> bool {
        let state = self.state();
        let state = self.changed.wait_while(state, |state| state.flow == Flow::Stalled).unwrap();
        let flow = state.flow;
        drop(state);
        match flow {
            Flow::Open | Flow::Stalled | Flow::Refused => true,
            Flow::Swallowed => false,
            Flow::Unanswered => direction == Direction::ToServer,
            Flow::Throttled(rate) => {
                thread::sleep(Duration::from_secs_f64(count as f64 / f64::from(rate)));
                true
            }
        }
    }
}
