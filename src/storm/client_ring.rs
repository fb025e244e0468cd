//! Client sockets on a ring. They are opened in the ordinary way and then kept in the ring's own
//! file table.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::Bytes;
use ringwave_ring::{Completion, ConnKey, Ring, SendRefused, Uring, UringSizes};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

/// Entries of the submission queue. A turn queues a few hundred operations at most.
const SUBMISSIONS: u32 = 1024;
/// Receive buffers. Each is given back as soon as its bytes are read.
const BUFFERS: u16 = 1024;
/// Size of a receive buffer in bytes. It holds a batch that a server makes of many messages.
const BUFFER_SIZE: u16 = 4096;
/// The most source addresses that are tried for one connection.
const SOURCES_TRIED: u32 = 4;

/// Received bytes.
pub(crate) type Buffer = <Uring as Ring>::Buffer;

/// A ring of client sockets.
///
/// It is never dropped, because the kernel takes seconds to cancel twenty thousand pending receives
/// in order. The process ends soon after its storm, and its end ends them at once.
pub(crate) struct ClientRing {
    ring: ManuallyDrop<Uring>,
    /// Completions that were reaped and not handled yet.
    completed: Vec<Completion>,
}

impl ClientRing {
    /// A ring with room for so many sockets.
    ///
    /// # Errors
    /// The kernel refuses the ring.
    pub(crate) fn new(slots: u32, direct_descriptors: bool) -> io::Result<Self> {
        let ring = Uring::new(&UringSizes {
            slots: slots.max(1),
            submissions: SUBMISSIONS,
            buffers: BUFFERS,
            buffer_size: BUFFER_SIZE,
            direct_descriptors,
        })?;
        Ok(Self { ring: ManuallyDrop::new(ring), completed: Vec::new() })
    }

    /// Puts a socket that connects into a free slot. The kernel holds sends back until it has
    /// connected, and a receive or a send tells if it has not.
    ///
    /// # Errors
    /// The kernel refuses the socket; the slot stays free.
    pub(crate) fn open(
        &mut self,
        slot: u32,
        to: SocketAddr,
        source: impl Fn(u32) -> Option<Ipv4Addr>,
    ) -> io::Result<()> {
        let mut tried = 0;
        let socket = loop {
            match connecting(to, source(tried)) {
                // This address has no port left for this server.
                Err(error) if tried < SOURCES_TRIED && is_in_use(&error) => tried += 1,
                socket => break socket?,
            }
        };
        self.ring.install(slot, socket.as_fd())
    }

    /// Receives until further notice.
    pub(crate) fn receive(&mut self, key: ConnKey) {
        self.queued(|ring| ring.keep_receiving(key));
    }

    /// Sends all bytes. A connection can have one send at a time.
    pub(crate) fn send(&mut self, key: ConnKey, bytes: &Bytes) {
        self.queued(|ring| ring.send(key, bytes.clone()));
    }

    /// Ends the operations of a connection.
    pub(crate) fn hang_up(&mut self, key: ConnKey) {
        self.queued(|ring| ring.stop_receiving(key));
        self.queued(|ring| ring.hang_up(key));
    }

    /// Closes a connection that has no operations any more.
    pub(crate) fn release(&mut self, slot: u32) {
        self.ring.release(slot);
    }

    /// Submits the queued operations, sleeps until something completes or the time is over, and
    /// returns the completions.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Vec<Completion> {
        if self.completed.is_empty() {
            self.ring.submit_and_wait(timeout);
        }
        self.ring.reap(&mut self.completed);
        std::mem::take(&mut self.completed)
    }

    /// Takes the memory of a list of completions back, to be used again.
    pub(crate) fn recycle(&mut self, mut list: Vec<Completion>) {
        if self.completed.is_empty() {
            list.clear();
            self.completed = list;
        }
    }

    /// The bytes of a receive. The buffer must be given back.
    pub(crate) fn buffer(&mut self, completion: &Completion) -> Option<Buffer> {
        self.ring.take_buffer(completion)
    }

    /// Gives a buffer back to the kernel.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.ring.give_back(buffer);
    }

    /// Queues an operation. Submits the queue first if it is full.
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

fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}
