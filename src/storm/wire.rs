//! Client sockets on a ring: opened the ordinary way, then kept in the ring's own file table.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::Bytes;
use ringwave_ring::{Completion, ConnKey, Ring, SendRefused, Uring, UringSizes};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

/// Entries of the submission queue. A turn hands on a few hundred operations at most.
const SUBMISSIONS: u32 = 1024;
/// Receive buffers: each is given back as soon as it is looked at.
const BUFFERS: u16 = 1024;
/// Size of a receive buffer in bytes: holds the batches that a server makes of many messages.
const BUFFER_SIZE: usize = 4096;
/// Source addresses that are tried before a connection is given up.
const SOURCES_TRIED: u32 = 4;

/// Received bytes.
pub(super) type Buffer = <Uring as Ring>::Buffer;

/// A ring of client sockets.
///
/// Never dropped: with twenty thousand pending receives the kernel takes seconds to cancel them all
/// in order. The process ends soon after its storm, and that ends them at once.
pub(super) struct Wire {
    ring: ManuallyDrop<Uring>,
    /// Taken and not yet looked at.
    completed: Vec<Completion>,
}

impl Wire {
    /// A ring with room for so many sockets.
    ///
    /// # Errors
    /// The kernel refuses the ring.
    pub(super) fn new(slots: u32, direct_descriptors: bool) -> io::Result<Self> {
        let ring = Uring::new(&UringSizes {
            slots: slots.max(1),
            submissions: SUBMISSIONS,
            buffers: BUFFERS,
            buffer_size: BUFFER_SIZE,
            direct_descriptors,
        })?;
        Ok(Self { ring: ManuallyDrop::new(ring), completed: Vec::new() })
    }

    /// Puts a socket that connects into a free slot. What is sent on it before it has connected
    /// waits in the kernel; whether it connects is told by its receive.
    ///
    /// # Errors
    /// The kernel refuses the socket; the slot stays free.
    pub(super) fn open(
        &mut self,
        slot: u32,
        to: SocketAddr,
        source: impl Fn(u32) -> Option<Ipv4Addr>,
    ) -> io::Result<()> {
        let mut tried = 0;
        let socket = loop {
            match connecting(to, source(tried)) {
                // No port is left on this address for this server.
                Err(error) if tried < SOURCES_TRIED && is_taken(&error) => tried += 1,
                socket => break socket?,
            }
        };
        self.ring.install(slot, socket.as_fd())
    }

    /// Receives until further notice.
    pub(super) fn receive(&mut self, key: ConnKey) {
        self.queued(|ring| ring.receive(key));
    }

    /// Sends all; at most one at a time per connection.
    pub(super) fn send(&mut self, key: ConnKey, bytes: &Bytes) {
        self.queued(|ring| ring.send(key, bytes.clone()));
    }

    /// Ends the operations of a connection.
    pub(super) fn hang_up(&mut self, key: ConnKey) {
        self.queued(|ring| ring.hang_up(key));
    }

    /// Closes a connection that has no operations any more.
    pub(super) fn release(&mut self, slot: u32) {
        self.ring.release(slot);
    }

    /// Hands on what was queued, sleeps until something happens or the time is over, and answers
    /// what happened.
    pub(super) fn wait(&mut self, timeout: Duration) -> Vec<Completion> {
        if self.completed.is_empty() {
            self.ring.wait(timeout);
        }
        self.ring.reap(&mut self.completed);
        std::mem::take(&mut self.completed)
    }

    /// Takes the memory of a list back, to be used again.
    pub(super) fn recycle(&mut self, mut list: Vec<Completion>) {
        if self.completed.is_empty() {
            list.clear();
            self.completed = list;
        }
    }

    /// The bytes of a receive, to be given back.
    pub(super) fn buffer(&mut self, completion: &Completion) -> Option<Buffer> {
        self.ring.take_buffer(completion)
    }

    /// Lets the kernel have a buffer again.
    pub(super) fn give_back(&mut self, buffer: Buffer) {
        self.ring.give_back(buffer);
    }

    /// Queues an operation, and makes room for it as long as the queue is full.
    fn queued<E: Into<SendRefused>>(
        &mut self,
        mut operation: impl FnMut(&mut Uring) -> Result<(), E>,
    ) {
        while let Err(SendRefused::QueueFull) = operation(&mut self.ring).map_err(E::into) {
            if !self.ring.submit() {
                self.ring.reap(&mut self.completed);
            }
        }
    }
}

fn connecting(to: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    if let (Some(source), SocketAddr::V4(_)) = (source, to) {
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// An error of the kernel, negated as completions have it, in words: `connection refused`.
pub(super) fn words(result: i32) -> String {
    without_number(&io::Error::from_raw_os_error(-result))
}

/// The error without its number, to stand in a sentence.
pub(super) fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
