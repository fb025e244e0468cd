//! The network between the simulated sockets and their clients.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::faults::Dice;

/// The bytes that a simulated socket holds for a client that does not read, by default.
const SOCKET_BUFFER: usize = 4096;

/// One simulated connection, as both sides see it.
#[derive(Debug)]
pub(super) struct Socket {
    pub to_server: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    /// The most bytes in `to_client`.
    capacity: usize,
    /// Whether the client closed its side, or vanished.
    pub client_closed: bool,
    /// Whether the network reset the connection.
    pub reset: bool,
    /// Whether the server ended its sending direction.
    pub half_closed: bool,
    /// Whether the server released the socket.
    server_closed: bool,
    /// Whether the server released it by a reset.
    server_reset: bool,
}

impl Socket {
    /// The events of poll(2) that end a wait. Zero if a receive would find nothing.
    pub(super) fn events(&self) -> i16 {
        let bytes = if self.to_server.is_empty() { 0 } else { libc::POLLIN };
        let end = if self.client_closed { libc::POLLIN | libc::POLLRDHUP } else { 0 };
        let error = if self.reset { libc::POLLERR | libc::POLLHUP } else { 0 };
        bytes | end | error
    }

    /// Whether there is something to receive.
    pub(super) fn readable(&self) -> bool {
        self.events() != 0
    }

    /// Whether a send would end or take bytes.
    pub(super) fn writable(&self) -> bool {
        self.room() > 0 || self.client_closed || self.reset
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.to_client.len())
    }
}

/// The clients' side of the simulated sockets.
#[derive(Clone, Debug, Default)]
pub struct SimNet(Rc<RefCell<Vec<Socket>>>);

impl SimNet {
    /// Makes a new connection. Its number stands for the accepted descriptor.
    #[must_use]
    pub fn connect(&self) -> RawFd {
        self.connect_with(SOCKET_BUFFER)
    }

    /// Makes a new connection whose socket holds at most `capacity` bytes for its client.
    #[must_use]
    pub fn connect_with(&self, capacity: usize) -> RawFd {
        let mut sockets = self.0.borrow_mut();
        sockets.push(Socket {
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            capacity,
            client_closed: false,
            reset: false,
            half_closed: false,
            server_closed: false,
            server_reset: false,
        });
        RawFd::try_from(sockets.len() - 1).expect("a simulation has few sockets")
    }

    /// Sends bytes from the client. They do not arrive if the server has closed.
    pub fn write(&self, fd: RawFd, bytes: &[u8]) {
        self.with(fd, |socket| {
            if !socket.server_closed {
                socket.to_server.extend(bytes);
            }
        });
    }

    /// Reads up to `most` bytes as the client.
    #[must_use]
    pub fn read(&self, fd: RawFd, most: usize) -> Vec<u8> {
        let read = |socket: &mut Socket| {
            let len = most.min(socket.to_client.len());
            socket.to_client.drain(..len).collect()
        };
        self.with(fd, read).unwrap_or_default()
    }

    /// Whether there is anything for the client to read.
    #[must_use]
    pub fn readable(&self, fd: RawFd) -> bool {
        self.with(fd, |socket| !socket.to_client.is_empty()).unwrap_or(false)
    }

    /// Closes the connection from the client.
    pub fn close(&self, fd: RawFd) {
        self.with(fd, |socket| socket.client_closed = true);
    }

    /// Whether the client has read all bytes and the connection has ended.
    #[must_use]
    pub fn ended(&self, fd: RawFd) -> bool {
        let over = |socket: &mut Socket| socket.server_closed && socket.to_client.is_empty();
        self.with(fd, over).unwrap_or(true)
    }

    /// Whether the client has read all bytes and the end of the stream.
    #[must_use]
    pub fn finished(&self, fd: RawFd) -> bool {
        let over = |socket: &mut Socket| {
            (socket.half_closed || socket.server_closed) && socket.to_client.is_empty()
        };
        self.with(fd, over).unwrap_or(true)
    }

    /// Whether the server has closed the connection.
    #[must_use]
    pub fn released(&self, fd: RawFd) -> bool {
        self.with(fd, |socket| socket.server_closed).unwrap_or(true)
    }

    /// Whether the server has ended the connection by a reset.
    #[must_use]
    pub fn reset_by_server(&self, fd: RawFd) -> bool {
        self.with(fd, |socket| socket.server_reset).unwrap_or(false)
    }

    /// Whether the simulated network reset this connection.
    #[must_use]
    pub fn was_reset(&self, fd: RawFd) -> bool {
        self.with(fd, |socket| socket.reset).unwrap_or(false)
    }

    /// Closes the connection from the server. If it has not read all bytes, its TCP resets the
    /// connection, and bytes on their way to the client may be lost (RFC 2525 section 2.17). The
    /// same holds if the server asks for a reset.
    pub(super) fn release(&self, fd: RawFd, resets: bool, dice: &mut Dice) {
        self.with(fd, |socket| {
            assert!(!socket.server_closed, "socket {fd} is released twice");
            socket.server_closed = true;
            socket.server_reset = resets;
            if resets || !socket.to_server.is_empty() {
                let arrived = dice.below(socket.to_client.len() + 1);
                socket.to_client.truncate(arrived);
            }
        });
    }

    pub(super) fn with<T>(&self, fd: RawFd, of: impl FnOnce(&mut Socket) -> T) -> Option<T> {
        let mut sockets = self.0.borrow_mut();
        sockets.get_mut(usize::try_from(fd).ok()?).map(of)
    }
}
