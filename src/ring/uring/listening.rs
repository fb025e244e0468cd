//! Listening sockets, and the accepts that are pending on them.
//!
//! Each accept is an operation of its own with an address for the kernel to fill: a multishot
//! accept has one for all of its connections, and has ended in invalid descriptors and floods of
//! errors on several kernels (axboe/liburing#1062).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{opcode, squeue};
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::user_data::user_data;
use super::{Sockets, Uring};
use crate::ring::{ConnKey, ListenerId, Op, QueueFull};

/// A listening socket, in blocking mode: for a non-blocking one the kernel would answer an accept
/// with EAGAIN instead of waiting.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub socket: OwnedFd,
    /// The size of the send buffer that each of its connections gets, as setsockopt(2) takes it.
    /// `None` if they keep the one that the kernel gives them.
    pub send_buffer: Option<i32>,
}

impl Uring {
    /// Queues an accept of one connection into a free slot.
    pub(super) fn queue_accept(
        &mut self,
        listener: ListenerId,
        key: ConnKey,
    ) -> Result<(), QueueFull> {
        let mut address = self.listeners.address();
        let (at, len) = ((&raw mut address.address).cast(), &raw mut address.len);
        // A listener that was dropped has no descriptor, and its accept fails with EBADF.
        let socket = self.listeners.socket(listener).map_or(-1, |socket| socket.as_raw_fd());
        let accept = opcode::Accept::new(Fd(socket), at, len);
        let accept = match (&self.sockets, DestinationSlot::try_from_slot_target(key.slot)) {
            (Sockets::Direct, Ok(slot)) => accept.file_index(Some(slot)),
            (Sockets::Direct, Err(_)) | (Sockets::Plain(_), _) => accept.flags(libc::SOCK_CLOEXEC),
        };
        let accept = accept.build().user_data(user_data(Op::Accept, key));
        let queued = match self.send_buffer_entry(listener, key) {
            // The kernel runs a linked operation when the one before it has succeeded.
            Some(bound) => self.push_both(&accept.flags(squeue::Flags::IO_LINK), &bound),
            None => self.push(&accept),
        };
        if queued.is_err() {
            self.listeners.spare(address);
            return queued;
        }
        self.listeners.began(key.slot, listener, address);
        Ok(())
    }

    /// The operation that bounds the send buffer of the connection that an accept brings into this
    /// slot. `None` if the buffers of the listener's connections are not bounded, or if sockets
    /// have descriptors, which [`settle`](Self::settle) bounds.
    fn send_buffer_entry(&self, listener: ListenerId, key: ConnKey) -> Option<squeue::Entry> {
        let Sockets::Direct = self.sockets else { return None };
        let bytes = std::ptr::from_ref(self.listeners.send_buffer(listener)?).cast();
        let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_SNDBUF as u32);
        let len = size_of::<i32>() as u32;
        let bound = opcode::SetSockOpt::new(Fixed(key.slot), level, name, bytes, len).build();
        let bound = bound.flags(squeue::Flags::SKIP_SUCCESS);
        Some(bound.user_data(user_data(Op::HangUp, key)))
    }
}

/// The listening sockets of a ring, and the addresses of the peers of its pending accepts.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// The sockets by number. `None` for those that were dropped.
    sockets: Vec<Option<OwnedFd>>,
    /// The sizes of send buffers by number. They stay to the end, because the kernel reads them
    /// when it runs an operation, which may be later than the last accept.
    send_buffers: Vec<Option<Box<i32>>>,
    /// The listener and the peer's address of each pending accept by slot. An entry stays until the
    /// accept has completed.
    pending: HashMap<u32, (ListenerId, Box<PeerAddress>)>,
    /// Addresses that no accept uses.
    #[allow(clippy::vec_box, reason = "they go to pending accepts and back without moving")]
    spare: Vec<Box<PeerAddress>>,
}

impl Listeners {
    pub(super) fn add(&mut self, listening: Listening) -> ListenerId {
        let Listening { socket, send_buffer } = listening;
        let number = u16::try_from(self.sockets.len()).unwrap_or(u16::MAX);
        self.sockets.push(Some(socket));
        self.send_buffers.push(send_buffer.map(Box::new));
        ListenerId(number)
    }

    pub(super) fn remove(&mut self, listener: ListenerId) {
        if let Some(entry) = self.sockets.get_mut(usize::from(listener.0)) {
            *entry = None;
        }
    }

    pub(super) fn socket(&self, listener: ListenerId) -> Option<BorrowedFd<'_>> {
        self.sockets.get(usize::from(listener.0))?.as_ref().map(AsFd::as_fd)
    }

    /// The size of the send buffer of connections, in memory that lives as long as the listener.
    pub(super) fn send_buffer(&self, listener: ListenerId) -> Option<&i32> {
        self.send_buffers.get(usize::from(listener.0))?.as_deref()
    }

    /// An address for an accept to fill, from the spare ones or new.
    pub(super) fn address(&mut self) -> Box<PeerAddress> {
        let mut address = self.spare.pop().unwrap_or_default();
        address.clear();
        address
    }

    /// Keeps the address of an accept that was queued until it has completed.
    pub(super) fn began(&mut self, slot: u32, listener: ListenerId, address: Box<PeerAddress>) {
        self.pending.insert(slot, (listener, address));
    }

    /// Takes back the address of an accept that was not queued.
    pub(super) fn spare(&mut self, address: Box<PeerAddress>) {
        self.spare.push(address);
    }

    /// The address that a completed accept has brought.
    pub(super) fn ended(&mut self, slot: u32) -> Option<IpAddr> {
        let (_, address) = self.pending.remove(&slot)?;
        let ip = address.ip();
        self.spare.push(address);
        ip
    }

    /// Bounds the send buffer of a socket that the accept into this slot has brought, if those of
    /// its listener are bounded.
    pub(super) fn bound_send_buffer(&self, slot: u32, socket: BorrowedFd<'_>) {
        let Some((listener, _)) = self.pending.get(&slot) else { return };
        if let Some(bytes) = self.send_buffer(*listener) {
            // A size that the kernel refuses leaves its own, which is larger.
            let _larger =
                set_socket_send_buffer_size(socket, usize::try_from(*bytes).unwrap_or_default());
        }
    }
}

/// The memory for an address of a peer, which the kernel writes. An address with a scope or of a
/// unix socket may be cut: only the part that holds an IP address is read.
#[repr(C)]
pub(super) struct PeerAddress {
    pub(super) address: libc::sockaddr_in6,
    pub(super) len: libc::socklen_t,
}

/// The length of the memory for the address itself.
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

impl Default for PeerAddress {
    fn default() -> Self {
        let address = libc::sockaddr_in6 {
            sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        };
        Self { address, len: ADDRESS_LEN }
    }
}

impl std::fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PeerAddress").field(&self.ip()).finish()
    }
}

impl PeerAddress {
    /// Forgets the address of the last accept.
    fn clear(&mut self) {
        self.address.sin6_family = libc::AF_UNSPEC as libc::sa_family_t;
        self.len = ADDRESS_LEN;
    }

    /// The IP address. `None` for any other kind of address.
    fn ip(&self) -> Option<IpAddr> {
        match i32::from(self.address.sin6_family) {
            // The address of a `sockaddr_in` lies where `sin6_flowinfo` does: both follow a family
            // and a port of two bytes each, in network order (ip(7), ipv6(7)).
            libc::AF_INET => Some(Ipv4Addr::from(self.address.sin6_flowinfo.to_ne_bytes()).into()),
            libc::AF_INET6 => Some(Ipv6Addr::from(self.address.sin6_addr.s6_addr).into()),
            _ => None,
        }
    }
}
