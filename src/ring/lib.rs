//! Floor 1. The lower half of the plane: sockets by slot, operations, completions. [`Ring`] is the
//! seam: [`Uring`] is Linux's `io_uring` (with the unsafe code of the data plane), `sim::SimRing` a
//! simulated kernel that injects faults, so that the plane's real code runs under both.
//!
//! This is a package of its own, which the gateway has as its module `ring` and the load generator
//! uses as well. The simulated kernel comes with the feature `sim`, which only tests and
//! simulations switch on.
//!
//! The contract of every `Ring`, and of its user:
//! - An operation may or may not have been taken by the kernel once it was queued; its memory
//!   belongs to the ring from then on, until the kernel is done with it.
//! - Completions are collected by [`Ring::reap`] in the order in which they were posted. Each names
//!   the slot, the generation and the operation that it was queued with; a completion of an earlier
//!   user of a slot can turn up at any time.
//! - A receive goes on until a completion says `more == false`; nothing else ends it, whatever its
//!   result. It can end without an error, with or without bytes.
//! - [`Ring::send_now`] completes only when it did not send everything: with the bytes that it
//!   sent, or an error. All of them are in before the submission returns.
//! - [`Ring::send`] waits for room and always completes, once. A second one for a slot is refused
//!   until then, because the ring could not tell whose bytes the kernel still reads.
//! - [`Ring::half_close`] completes once, with 0 or an error. It is for a socket without a pending
//!   send, once, and nothing may be sent behind it.
//! - [`Ring::ask_unsent`] always completes, once, with the bytes that the peer has not
//!   acknowledged.
//! - A slot is released when no operation on it is pending, never before: the kernel may look an
//!   operation's socket up by its slot as late as when a worker runs it. The kernel goes on
//!   delivering the bytes that its socket still holds for the peer; after [`Ring::reset`] it drops
//!   them.

mod buffers;
#[cfg(any(debug_assertions, feature = "sim"))]
mod contract;
#[cfg(feature = "sim")]
pub mod sim;
mod sockets;
mod uring;

use std::io;
use std::os::fd::BorrowedFd;

use bytes::Bytes;

pub use sockets::{reset_when_closed, send_now, tcp_socket, unix_socket, unsent};
pub use uring::{Uring, UringSizes};

/// One connection of one ring. `slot` is the index of its socket in the ring's table; `generation`
/// tells it from earlier and later users of that slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    /// Index in the table of sockets.
    pub slot: u32,
    /// Counts the users of this slot.
    pub generation: u32,
}

/// The kind of an operation, as its completion names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`Ring::receive`] or [`Ring::receive_once`].
    Receive,
    /// [`Ring::send_now`].
    SendNow,
    /// [`Ring::send`].
    Send,
    /// [`Ring::half_close`].
    HalfClose,
    /// [`Ring::hang_up`]: for information only.
    HangUp,
    /// [`Ring::ask_unsent`]: the result is a number of bytes.
    AskUnsent,
    /// [`Ring::reset`]: for information only.
    Reset,
    /// `Uring::accept` (feature `accept`): the result is the slot of the new socket.
    Accept,
}

/// The end of an operation, or one step of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The operation.
    pub op: Op,
    /// The connection that it was queued for.
    pub key: ConnKey,
    /// Bytes, or a negative errno.
    pub result: i32,
    /// A receive or accept: further completions follow.
    pub more: bool,
    /// A receive: the buffer that holds the bytes. Must be taken and given back.
    pub buffer: Option<u16>,
}

/// The submission queue is full: submit, then try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// Why [`Ring::send`] did not queue anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefused {
    /// The submission queue is full: submit, then try again.
    QueueFull,
    /// An earlier send on the slot has not completed: reap its completion first.
    Pending,
}

impl From<QueueFull> for SendRefused {
    fn from(_full: QueueFull) -> Self {
        Self::QueueFull
    }
}

/// Bytes that are held by the ring for any number of [`Ring::send_now`] until
/// [`Ring::clear_staged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged(pub u32);

/// A ring with a table of sockets. See the module for the contract.
pub trait Ring {
    /// A received buffer, held outside of the ring.
    type Buffer: AsMut<[u8]>;

    /// A socket that the caller lends for the length of [`install`](Self::install).
    type Socket<'a>: From<BorrowedFd<'a>>;

    /// How many slots the table has.
    fn slots(&self) -> u32;

    /// Puts a socket into a free slot. The caller's descriptor may be closed afterwards.
    ///
    /// # Errors
    /// The kernel refuses; the slot stays free.
    fn install(&mut self, slot: u32, socket: Self::Socket<'_>) -> io::Result<()>;

    /// Takes the socket out of its slot, which closes the connection.
    fn release(&mut self, slot: u32);

    /// Receives until further notice.
    ///
    /// # Errors
    /// The queue is full.
    fn receive(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Receives one buffer. The first completion is the last.
    ///
    /// # Errors
    /// The queue is full.
    fn receive_once(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Ends the pending receive of a slot, which gets its last completion behind those that are on
    /// their way. Does nothing if it has ended meanwhile.
    ///
    /// # Errors
    /// The queue is full.
    fn stop_receiving(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Keeps bytes for `send_now`.
    fn stage(&mut self, bytes: Bytes) -> Staged;

    /// The bytes that were staged.
    fn staged(&self, staged: Staged) -> &Bytes;

    /// Forgets all staged bytes. Does nothing while an operation that names them is unsubmitted.
    fn clear_staged(&mut self);

    /// Sends what fits into the socket's buffer, without waiting.
    ///
    /// # Errors
    /// The queue is full.
    fn send_now(&mut self, key: ConnKey, staged: Staged) -> Result<(), QueueFull>;

    /// Sends all, waiting for room. At most one per slot at a time.
    ///
    /// # Errors
    /// The queue is full, or an earlier send on the slot has not completed.
    fn send(&mut self, key: ConnKey, bytes: Bytes) -> Result<(), SendRefused>;

    /// Ends the sending direction behind all that was sent: the peer reads the end of the stream,
    /// and can still send.
    ///
    /// # Errors
    /// The queue is full.
    fn half_close(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Ends the pending receive and send of a slot: each gets its last completion.
    ///
    /// # Errors
    /// The queue is full.
    fn hang_up(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Asks how many bytes the socket holds that the peer has not acknowledged. A kernel that does
    /// not know completes with an error. At most one per slot at a time.
    ///
    /// # Errors
    /// The queue is full.
    fn ask_unsent(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Turns the release of this slot into a reset, once the queue is submitted: the kernel drops
    /// what it holds for the peer. Otherwise it keeps the queue of a closed TCP socket for minutes
    /// while the peer takes nothing.
    ///
    /// # Errors
    /// The queue is full.
    fn reset(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Hands the queue to the kernel. `true`: all of it was taken; `false`: reap, then call again.
    fn submit(&mut self) -> bool;

    /// Runs what the kernel has deferred and appends all completions to `into`.
    fn reap(&mut self, into: &mut Vec<Completion>);

    /// The buffer of a receive completion. Once per completion.
    fn take_buffer(&mut self, completion: &Completion) -> Option<Self::Buffer>;

    /// Makes a buffer available to the kernel again.
    fn give_back(&mut self, buffer: Self::Buffer);

    /// Gives memory back that a burst has left.
    fn trim(&mut self) {}
}
