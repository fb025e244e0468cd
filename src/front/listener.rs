//! The listening sockets of a shard: what they are to the ring, and how they close.

use std::io;
use std::net;
use std::os::fd::OwnedFd;
use std::os::unix::net as unix;
use std::time::Duration;

use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use crate::ring;

use super::accepted::Opening;

/// The listening sockets of one shard, bound by the server or by who started it.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Each of this shard alone (`SO_REUSEPORT`): shut down when the shard stops.
    pub tcp: Vec<Listening<net::TcpListener>>,
    /// Clones of sockets that all shards accept from, and that outlive the process.
    pub shared_tcp: Vec<Listening<net::TcpListener>>,
    /// Clones of sockets that all shards accept from.
    pub unix: Vec<Listening<unix::UnixListener>>,
    /// The sockets outlive the process: at a stop, whoever waits in their queues is left to the
    /// successor.
    pub inherited: bool,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listening<L> {
    /// The socket.
    pub(crate) socket: L,
    /// What its connections begin with.
    pub(crate) opening: Opening,
}

impl<L> From<L> for Listening<L> {
    fn from(socket: L) -> Self {
        Self { socket, opening: Opening::Http }
    }
}

/// A listener as the reception takes it.
pub(super) struct Prepared {
    pub(super) socket: ring::Listening,
    pub(super) opening: Opening,
    pub(super) door: Door,
}

impl Listeners {
    /// Makes the listeners ready to be accepted from by a ring.
    ///
    /// # Errors
    /// The options of a socket cannot be set.
    pub(super) fn prepare(self) -> io::Result<Vec<Prepared>> {
        let last_call = if self.inherited { Duration::ZERO } else { LAST_CALL };
        let mut prepared = Vec::new();
        for Listening { socket, opening } in self.tcp {
            let own = Some(socket.try_clone()?);
            prepared.push(Prepared {
                socket: tcp(socket)?,
                opening,
                door: Door { own, last_call },
            });
        }
        for Listening { socket, opening } in self.shared_tcp {
            let socket = tcp(socket)?;
            prepared.push(Prepared { socket, opening, door: Door { own: None, last_call } });
        }
        for Listening { socket, opening } in self.unix {
            // A non-blocking listener would answer an accept with EAGAIN instead of waiting.
            socket.set_nonblocking(false)?;
            let send_buffer = send_buffer_below_default(&socket)?;
            let socket = ring::Listening { socket: OwnedFd::from(socket), send_buffer };
            prepared.push(Prepared { socket, opening, door: Door { own: None, last_call } });
        }
        Ok(prepared)
    }
}

fn tcp(socket: net::TcpListener) -> io::Result<ring::Listening> {
    socket.set_nonblocking(false)?;
    // Accepted sockets inherit it (Linux), which saves a system call for each.
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    Ok(ring::Listening { socket: OwnedFd::from(socket), send_buffer: None })
}

/// The size of the send buffers of the connections of a listener of unix sockets, as setsockopt(2)
/// takes it. They do not inherit the listener's: they get the kernel's default
/// (`net.core.wmem_default`). `None` when that is not larger.
fn send_buffer_below_default(listener: &unix::UnixListener) -> io::Result<Option<i32>> {
    let bound = SockRef::from(listener).send_buffer_size()?;
    let default = Socket::new(Domain::UNIX, Type::STREAM, None)?.send_buffer_size()?;
    // The kernel doubles the value that it is given.
    let half = i32::try_from(bound / 2).unwrap_or(i32::MAX);
    Ok((bound < default).then_some(half))
}

/// The way to turn new connections away at a stop. The kernel resets whoever is in the queue of a
/// listener that closes. So at a stop the listeners turn new connections away first, then take
/// everything that is in their queues, and close behind that.
#[derive(Debug, Default)]
pub(crate) struct Door {
    /// The listener, if it belongs to this shard alone. Nothing is to be done for a shared one: a
    /// unix socket turns new connections away once its file is gone, and an inherited listener
    /// serves the successor.
    own: Option<net::TcpListener>,
    last_call: Duration,
}

impl Door {
    /// From now on the kernel ignores whoever wants to connect. Clients try again a second later by
    /// themselves (RFC 6298), when the next process may listen; those that the kernel has answered
    /// already still come into the queue. Returns how long to wait for these.
    pub(super) fn turn_away(&self) -> Duration {
        if let Some(listener) = &self.own
            && let Err(error) = SockRef::from(listener).attach_filter(&IGNORE_SYN)
        {
            tracing::debug!(%error, "a listener closes without turning connections away first");
        }
        self.last_call
    }
}

/// A program for the packets of a TCP listener, which begin with their TCP header: drops those that
/// have SYN among their flags, and lets all others pass.
const IGNORE_SYN: [SockFilter; 4] = {
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 2;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
};

/// How long listeners still accept when they turn new connections away already: what it takes for
/// the last packet of a handshake that the kernel has answered, on networks that are near. Those
/// that are farther than this are reset, as all were without it.
const LAST_CALL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;

    use super::*;

    #[test]
    fn a_smaller_send_buffer_than_the_kernels_default_is_that_of_unix_connections() {
        let name = format!("ringwave-buffer-{}", std::process::id());
        let address = unix::SocketAddr::from_abstract_name(name).unwrap();
        let listener = unix::UnixListener::bind_addr(&address).unwrap();
        let default = SockRef::from(&listener).send_buffer_size().unwrap();
        for (bytes, expected) in [(10_000, Some(10_000)), (default, None)] {
            SockRef::from(&listener).set_send_buffer_size(bytes).unwrap();
            assert_eq!(send_buffer_below_default(&listener).unwrap(), expected);
        }
    }
}
