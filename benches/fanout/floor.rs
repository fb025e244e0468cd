//! The floor: accepts sockets, and for each byte on its control connection sends ready bytes to all
//! of them. No parsing, no lists, no protocol: only what the kernel demands for a fan-out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use ringwave::id::ConnKey;
use ringwave::ring::{Op, Ring, Uring};

use crate::Server;
use crate::subscribers::{Subscribers, sizes};

/// The floor's process, and the way to it.
pub(crate) struct Floor {
    child: Child,
    address: String,
    control: Option<TcpStream>,
    frame_bytes: usize,
}

impl Floor {
    /// Starts it; each message has this many bytes.
    pub(crate) fn start(frame_bytes: usize) -> Self {
        let own = std::env::current_exe().expect("the path of this bench");
        let mut child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(own)
            .args(["--floor", &frame_bytes.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset (util-linux) starts the floor");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output is piped");
        BufReader::new(output).read_line(&mut line).expect("it tells its address");
        Self { child, address: line.trim().to_owned(), control: None, frame_bytes }
    }
}

impl Server for Floor {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn subscribe(&self, count: usize) -> Subscribers {
        let connect = || TcpStream::connect(&self.address).expect("the floor accepts");
        Subscribers::read((0..count).map(|_| connect()).collect())
    }

    fn publish(&mut self) {
        let control = self.control.get_or_insert_with(|| {
            let stream = TcpStream::connect(&self.address).expect("the floor accepts");
            stream.set_nodelay(true).expect("a TCP socket");
            stream
        });
        control.write_all(&[1]).expect("the floor reads");
        control.read_exact(&mut [0]).expect("the floor answers");
    }

    fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().expect("the floor runs");
        self.child.wait().expect("the floor ends");
    }
}

/// The floor's side. The first byte that any connection sends makes it the control connection.
pub(crate) fn serve(frame_bytes: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("{}", listener.local_addr().expect("a bound socket"));
    let mut subscribers = Vec::new();
    listener.set_nonblocking(false).expect("a socket");
    let mut control = loop {
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_nodelay(true).expect("a TCP socket");
        // The control connection is the last one: it writes at once, subscribers never do.
        socket.set_read_timeout(Some(std::time::Duration::from_micros(500))).expect("a TCP socket");
        let mut socket = socket;
        if socket.read_exact(&mut [0]).is_ok() {
            socket.set_read_timeout(None).expect("a TCP socket");
            break socket;
        }
        subscribers.push(socket);
    };
    let mut ring = Uring::new(&sizes(subscribers.len(), 64)).expect("a ring");
    for (slot, socket) in (0..).zip(&subscribers) {
        ring.install(slot, socket.as_raw_fd()).expect("a free slot");
    }
    let sockets = u32::try_from(subscribers.len()).expect("few sockets");
    let frame = Bytes::from(vec![b'x'; frame_bytes]);
    let mut completions = Vec::new();
    loop {
        send_to_all(&mut ring, sockets, frame.clone(), &mut completions);
        if control.write_all(&[1]).is_err() || control.read_exact(&mut [0]).is_err() {
            return;
        }
    }
}

/// One send per socket; what a socket does not take at once is sent when it has room.
fn send_to_all(
    ring: &mut Uring,
    sockets: u32,
    frame: Bytes,
    completions: &mut Vec<ringwave::ring::Completion>,
) {
    let staged = ring.stage(frame.clone());
    for slot in 0..sockets {
        let key = ConnKey { slot, generation: 0 };
        while ring.send_now(key, staged).is_err() {
            ring.submit();
        }
    }
    ring.submit();
    ring.clear_staged();
    ring.reap(completions);
    let mut waiting = 0;
    for completion in completions.drain(..) {
        let sent = usize::try_from(completion.result).unwrap_or(0);
        while ring.send(completion.key, frame.slice(sent..)).is_err() {
            ring.submit();
        }
        waiting += 1;
    }
    while waiting > 0 {
        ring.submit();
        ring.reap(completions);
        waiting -= completions.drain(..).filter(|of| of.op == Op::Send).count();
    }
}
