//! The trait [`Ring`], and the values of its operations and completions.

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use bytes::Bytes;

/// One connection of one ring. `slot` is the index of its socket in the ring's table; `generation`
/// distinguishes it from earlier and later users of that slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey {
    /// The index in the table of sockets, below 2^24.
    pub slot: u32,
    /// The number of this user among all users of the slot.
    pub generation: u32,
}

/// The kind of an operation, as its completion names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`Ring::await_readable`]. Whatever its result is, the receive that follows says more.
    Readable,
    /// [`Ring::receive`] or `Uring::keep_receiving`.
    Receive,
    /// [`Ring::send_now`].
    SendNow,
    /// [`Ring::send`].
    Send,
    /// [`Ring::half_close`].
    HalfClose,
    /// [`Ring::hang_up`]. Its completion carries no information that is needed.
    HangUp,
    /// [`Ring::ask_unsent`]. The result is a number of bytes.
    AskUnsent,
    /// [`Ring::reset`]. It completes only with an error.
    Reset,
    /// [`Ring::accept`]. The result is 0, or a negative errno.
    Accept,
    /// `Uring::accept_all` (feature `accept`). The result is the slot of the new socket.
    AcceptAll,
}

/// The end of an operation, or one step of an operation that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The operation.
    pub op: Op,
    /// The connection that it was queued for.
    pub key: ConnKey,
    /// The number of bytes, or a negative errno.
    pub result: i32,
    /// Whether further completions of this operation follow. Only those of `Uring::keep_receiving`
    /// and `Uring::accept` have any.
    pub more: bool,
    /// Whether the socket has more to receive than the buffer of this receive took. Only a hint: a
    /// kernel may not know.
    pub left: bool,
    /// The buffer that holds the bytes of a receive. It must be taken and given back.
    pub buffer: Option<u16>,
}

/// A listening socket of a ring, by its number among those that the ring was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u16);

/// The submission queue is full: submit, then try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The reason why [`Ring::send`] did not queue anything.
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

/// Bytes that the ring holds for any number of [`Ring::send_now`] until [`Ring::clear_staged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged(pub u32);

/// A ring with a table of sockets.
///
/// # Contract
/// These rules hold for every ring and for its user:
/// - The memory of an operation belongs to the ring from the moment when it is queued until the
///   kernel is done with it. In between the kernel may have taken the operation or not.
/// - [`reap`](Self::reap) returns completions in the order in which the kernel posted them. Each
///   names the slot, the generation and the operation that it belongs to. A completion of an
///   earlier user of a slot can turn up at any time.
/// - [`accept`](Self::accept) always completes, once. If it succeeds, its slot holds the socket;
///   otherwise the slot stays free. [`peer`](Self::peer) is called for each such completion.
/// - [`await_readable`](Self::await_readable) completes once, as soon as the socket has bytes, the
///   end of the stream or an error. It goes by what the socket has and not by what comes, so it
///   completes at once if anything is left of earlier bytes. It may also complete without a reason.
/// - [`wait_and_receive`](Self::wait_and_receive) does both in one operation, which keeps more of
///   the kernel's memory while it waits. It completes once, as [`receive`](Self::receive) does.
/// - [`receive`](Self::receive) does not wait and always completes, once, before the submission
///   returns: with bytes in a buffer, with 0 at the end of the stream, or with an error: EAGAIN if
///   there is nothing, ENOBUFS if no buffer is free. The bytes may be fewer than the socket has.
/// - [`send_now`](Self::send_now) completes only if it did not send everything: with the number of
///   bytes that it sent, or an error. These completions are posted before the submission returns.
/// - [`send`](Self::send) waits for room and always completes, once. The ring refuses a second one
///   for a slot until then, because it could not tell whose bytes the kernel still reads.
/// - [`half_close`](Self::half_close) completes once, with 0 or an error. It is allowed once per
///   connection, without a pending send, and no send may follow it.
/// - [`ask_unsent`](Self::ask_unsent) always completes, once, with the number of bytes that the
///   peer has not acknowledged, or an error.
/// - A slot is released when no operation on it is pending, never before, because the kernel may
///   look up the socket of an operation as late as when a worker runs it. The kernel goes on
///   delivering the bytes that the socket still holds for the peer; after [`reset`](Self::reset) it
///   drops them.
pub trait Ring {
    /// A buffer with received bytes, on loan from the ring.
    type Buffer: AsMut<[u8]> + Debug;

    /// A socket that the caller lends for the duration of [`install`](Self::install).
    type Socket<'a>: From<BorrowedFd<'a>>;

    /// A listening socket.
    type Listener;

    /// The number of slots of the table.
    fn slots(&self) -> u32;

    /// Puts a socket into a free slot. The caller's descriptor may be closed afterwards.
    ///
    /// # Errors
    /// The kernel refuses the socket, and the slot stays free.
    fn install(&mut self, slot: u32, socket: Self::Socket<'_>) -> io::Result<()>;

    /// Takes a listening socket, to accept from until the ring is dropped or
    /// [`forget`](Self::forget) is called.
    fn listen(&mut self, listener: Self::Listener) -> ListenerId;

    /// Drops a listening socket. None of its accepts may be pending. Its number is not used again.
    fn forget(&mut self, listener: ListenerId);

    /// Accepts one connection into a free slot, which belongs to `key` from now on.
    ///
    /// # Errors
    /// The queue is full.
    fn accept(&mut self, listener: ListenerId, key: ConnKey) -> Result<(), QueueFull>;

    /// Ends a pending accept. Its completion follows, and may still bring a connection.
    ///
    /// # Errors
    /// The queue is full.
    fn stop_accepting(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// The address of the peer that an accept has brought. `None` if it failed, and for a peer that
    /// has no address, such as that of a unix socket.
    fn peer(&mut self, accepted: &Completion) -> Option<IpAddr>;

    /// Takes the socket out of its slot, which closes the connection.
    fn release(&mut self, slot: u32);

    /// Releases a slot as [`release`](Self::release) does, but as an operation of the queue, which
    /// saves a system call. The operations that are queued behind it find the slot free.
    ///
    /// # Errors
    /// The queue is full.
    fn close(&mut self, slot: u32) -> Result<(), QueueFull>;

    /// Waits until there is something to receive. A slot can have one such wait at a time.
    ///
    /// # Errors
    /// The queue is full.
    fn await_readable(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Waits until there is something to receive, and receives it. No other wait or receive of the
    /// slot may be pending.
    ///
    /// # Errors
    /// The queue is full.
    fn wait_and_receive(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Receives as many bytes as are there and fit into one buffer, without waiting.
    ///
    /// # Errors
    /// The queue is full.
    fn receive(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Ends a pending receive that waits. Its completion follows, and may still bring bytes. Does
    /// nothing if it has completed meanwhile.
    ///
    /// # Errors
    /// The queue is full.
    fn stop_receiving(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Holds bytes for `send_now`.
    fn stage(&mut self, bytes: Bytes) -> Staged;

    /// The staged bytes.
    fn staged(&self, staged: Staged) -> &Bytes;

    /// Drops all staged bytes. Does nothing while operations are queued that may name them.
    fn clear_staged(&mut self);

    /// Sends as many bytes as fit into the socket's buffer, without waiting.
    ///
    /// # Errors
    /// The queue is full.
    fn send_now(&mut self, key: ConnKey, staged: Staged) -> Result<(), QueueFull>;

    /// Sends all bytes, and waits for room. A slot can have one such send at a time.
    ///
    /// # Errors
    /// The queue is full, or an earlier send on the slot has not completed.
    fn send(&mut self, key: ConnKey, bytes: Bytes) -> Result<(), SendRefused>;

    /// Ends the sending direction behind all sent bytes. The peer reads the end of the stream and
    /// can still send.
    ///
    /// # Errors
    /// The queue is full.
    fn half_close(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Ends the pending wait and the pending send of a slot. Each gets its completion.
    ///
    /// # Errors
    /// The queue is full.
    fn hang_up(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Asks for the number of bytes that the socket holds and the peer has not acknowledged. A
    /// kernel that cannot tell completes with an error. A slot can have one such question at a
    /// time.
    ///
    /// # Errors
    /// The queue is full.
    fn ask_unsent(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Turns the release of this slot into a reset, once the queue is submitted: the kernel drops
    /// the bytes that it holds for the peer. Otherwise it keeps the send queue of a closed TCP
    /// socket for minutes while the peer does not read.
    ///
    /// # Errors
    /// The queue is full.
    fn reset(&mut self, key: ConnKey) -> Result<(), QueueFull>;

    /// Hands the queue to the kernel. Returns whether the kernel took all of it. Otherwise the
    /// caller reaps completions and calls again.
    fn submit(&mut self) -> bool;

    /// Submits as [`submit`](Self::submit) does, and sleeps in the same system call until there is
    /// a completion, the ring is woken, or `timeout` is over. A completion that has not been reaped
    /// ends the sleep at once, as does one of the submission itself, or a wake-up since the last
    /// sleep. The sleep may also end without a reason, and does not begin unless the kernel takes
    /// all of the queue. A simulated ring does not sleep.
    fn submit_and_wait(&mut self, timeout: Duration) -> bool;

    /// Runs the work that the kernel has deferred, and appends all completions to `into`.
    fn reap(&mut self, into: &mut Vec<Completion>);

    /// The buffer of a receive completion. A completion yields it once.
    fn take_buffer(&mut self, completion: &Completion) -> Option<Self::Buffer>;

    /// Gives a buffer back to the kernel.
    fn give_back(&mut self, buffer: Self::Buffer);

    /// Gives back memory that a burst has left.
    fn trim(&mut self) {}
}
