//! [`Ring`] on Linux's `io_uring`. One of the few files with unsafe code.
//!
//! A ring is created on the thread that uses it (`SINGLE_ISSUER`). Completions appear only when
//! that thread enters the kernel for them (`DEFER_TASKRUN`), so that the kernel never interrupts a
//! turn. The thread sleeps in the ring as well (`sleep`): on Linux 6.18 the ring's own descriptor
//! does not become readable for an `epoll` when work was deferred, and an `epoll` would be a system
//! call more for each wake.
//!
//! Sockets live in the ring's own file table ("direct descriptors"): they count against no
//! descriptor limit and cost no reference per operation. Before Linux 6.13 a socket that leaves the
//! table stays open while any older request of the ring is pending (axboe/liburing#1192), and a
//! receive can stay pending for ever. There, sockets keep ordinary descriptors.

#![allow(unsafe_code, reason = "system calls whose memory must outlive them")]

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, Fixed};
use io_uring::{IoUring, opcode, squeue, types};

use crate::buffers::{Buffer, BufferRing};
#[cfg(debug_assertions)]
use crate::contract::Contract;
use crate::narrow::to_u32;
use crate::ring::{Completion, ConnKey, ListenerId, Op, QueueFull, Ring, SendRefused, Staged};
use crate::sockets::{queued_bytes, reset_when_closed};

use listening::Listeners;
pub use listening::Listening;
pub use setup::UringSizes;
use sleep::WakeUp;
use user_data::{completion, user_data};

/// The group id of the only buffer ring.
const BUFFER_GROUP: u16 = 0;
/// The events that end a wait (poll(2)): bytes, and the end of the stream. Errors always end it.
const READABLE: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
/// `IORING_RECVSEND_POLL_FIRST` of `<linux/io_uring.h>`. Without it, a receive on an idle socket
/// fails for want of a buffer that it does not need yet (axboe/liburing#1275).
const POLL_FIRST: u16 = 1 << 0;
/// `IORING_ENTER_GETEVENTS`: runs deferred work and flushes an overflown completion queue.
const ENTER_GETEVENTS: u32 = 1;
/// The number of times that one `submit` or `reap` enters the kernel before it leaves deferred work
/// to the next turn.
const ENTER_ATTEMPTS: u32 = 16;

/// Entries that an empty list keeps memory for: more than a usual turn needs.
const ENTRIES_KEPT: usize = 256;

/// `SOCKET_URING_OP_SIOCOUTQ` of `<linux/io_uring.h>`, since Linux 6.6; setting an option of a
/// socket is there since 6.7. Both are needed only for sockets in the ring's own table, which is
/// used from 6.13 on.
const SOCKET_URING_OP_SIOCOUTQ: u32 = 1;
/// An option of sockets (socket(7)): the close does not wait, drops the unsent bytes and resets the
/// connection. Static, because the kernel reads it when the queue is submitted.
static RESET_AT_CLOSE: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
/// The length of that option in bytes.
const LINGER_LEN: u32 = size_of::<libc::linger>() as u32;
/// The bound of one send, for [`to_u32`].
const SLICE_BOUND: &str = "messages and backlogs are bounded by far less";

/// A ring of the kernel.
#[allow(missing_debug_implementations, reason = "IoUring has none")]
pub struct Uring {
    io: Box<IoUring>,
    /// The receive buffers. `None` only while the ring is dropped.
    buffers: Option<BufferRing>,
    /// The number of slots.
    slots: u32,
    sockets: Sockets,
    /// The bytes that queued `send_now` operations point into.
    staged: Vec<Bytes>,
    /// The users of pending `send`s by slot, with the bytes that the kernel reads for them. An
    /// entry stays until its send completes, even if another connection has the slot by then.
    sending: HashMap<u32, (ConnKey, Bytes)>,
    /// The listening sockets, and the addresses that the kernel writes for pending accepts.
    listeners: Listeners,
    /// Completions of operations that were done without the ring, on the descriptor of a socket.
    at_once: Vec<Completion>,
    /// The way for other threads to end a sleep.
    wake_up: WakeUp,
    /// Whether a close was queued that may not be submitted yet.
    closes: bool,
    /// Whether the first refusal of an [`Op::Reset`] was logged.
    refusal_told: bool,
    #[cfg(debug_assertions)]
    contract: Contract,
}

#[derive(Debug)]
enum Sockets {
    /// In the ring's file table.
    Direct,
    /// Ordinary descriptors by slot.
    Plain(Vec<Option<OwnedFd>>),
}

impl Uring {
    /// Sets up a ring for this thread.
    ///
    /// # Errors
    /// The kernel refuses the ring, the table or the buffers.
    pub fn new(sizes: &UringSizes) -> io::Result<Self> {
        let io = setup::build(sizes.submissions)?;
        // Only half-closes are run by a kernel worker (io_shutdown_prep of Linux asks for it). They
        // don't wait for anything, so one worker is enough.
        io.submitter().register_iowq_max_workers(&mut [1, 1])?;
        let sockets = if sizes.direct_descriptors {
            io.submitter().register_files_sparse(sizes.slots)?;
            Sockets::Direct
        } else {
            Sockets::Plain((0..sizes.slots).map(|_| None).collect())
        };
        let buffers = BufferRing::new(sizes.buffers, sizes.buffer_size);
        // SAFETY: the memory lives until the buffer ring is unregistered, or for ever (see `drop`).
        unsafe {
            io.submitter().register_buf_ring_with_flags(
                buffers.address(),
                buffers.entries(),
                BUFFER_GROUP,
                0,
            )?;
        }
        Ok(Self {
            io: Box::new(io),
            buffers: Some(buffers),
            slots: sizes.slots,
            sockets,
            staged: Vec::new(),
            sending: HashMap::new(),
            listeners: Listeners::default(),
            at_once: Vec::new(),
            wake_up: WakeUp::default(),
            closes: false,
            refusal_told: false,
            #[cfg(debug_assertions)]
            contract: Contract::new(sizes.slots),
        })
    }

    #[inline]
    fn push(&mut self, entry: &squeue::Entry) -> Result<(), QueueFull> {
        // SAFETY: each caller keeps the memory that the entry names until the kernel is done with
        // it: `staged` until the queue is empty, `sending` until the completion, receive buffers
        // until they are unregistered, the addresses and sizes of `listeners` until the completion
        // of the accept that they belong to.
        unsafe { self.io.submission().push(entry) }.map_err(|_full| QueueFull)
    }

    #[inline]
    fn push_both(
        &mut self,
        first: &squeue::Entry,
        second: &squeue::Entry,
    ) -> Result<(), QueueFull> {
        // SAFETY: as in `push`.
        unsafe { self.io.submission().push_multiple(&[first.clone(), second.clone()]) }
            .map_err(|_full| QueueFull)
    }

    fn cancel(&mut self, op: Op, key: ConnKey) -> Result<(), QueueFull> {
        let named = CancelBuilder::user_data(user_data(op, key));
        let entry = opcode::AsyncCancel2::new(named).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(user_data(Op::HangUp, key)))
    }

    /// Queues a receive into a buffer of the kernel's choice. `flags` are those of recv(2), and
    /// `modes` those of `io_uring`.
    fn receive_with(&mut self, key: ConnKey, flags: i32, modes: u16) -> Result<(), QueueFull> {
        let null = std::ptr::null_mut();
        let entry = self.entry(
            key.slot,
            |socket| {
                let receive = opcode::Recv::new(socket, null, 0).flags(flags);
                receive.buf_group(BUFFER_GROUP).ioprio(modes).build()
            },
            |socket| {
                let receive = opcode::Recv::new(socket, null, 0).flags(flags);
                receive.buf_group(BUFFER_GROUP).ioprio(modes).build()
            },
        );
        let entry = entry.flags(squeue::Flags::BUFFER_SELECT);
        self.push(&entry.user_data(user_data(Op::Receive, key)))?;
        #[cfg(debug_assertions)]
        self.contract.receive(key);
        Ok(())
    }

    /// Builds an entry for the socket of a slot.
    #[inline]
    fn entry(
        &self,
        slot: u32,
        direct: impl FnOnce(Fixed) -> squeue::Entry,
        plain: impl FnOnce(Fd) -> squeue::Entry,
    ) -> squeue::Entry {
        match &self.sockets {
            Sockets::Direct => direct(Fixed(slot)),
            Sockets::Plain(table) => plain(Fd(descriptor(table, slot))),
        }
    }

    /// Makes one `io_uring_enter(2)`. Returns `false` if the kernel wants completions to be taken
    /// first.
    fn enter(&self, to_submit: u32, flags: u32) -> bool {
        // SAFETY: no argument is passed; the counts and flags are plain numbers.
        let entered =
            unsafe { self.io.submitter().enter::<libc::sigset_t>(to_submit, 0, flags, None) };
        may_go_on(entered)
    }

    /// Frees the bytes of an operation that has ended, and logs a refused reset.
    fn settle(&mut self, completion: &Completion) {
        let key = completion.key;
        if completion.op == Op::Reset && !std::mem::replace(&mut self.refusal_told, true) {
            let errno = -completion.result;
            tracing::warn!(
                errno,
                "the kernel does not let io_uring set socket options (an SELinux policy may keep \
                 it from doing so): it will hold what clients have not read for up to 90 seconds \
                 after their end"
            );
        }
        if completion.op == Op::Send
            && self.sending.get(&key.slot).is_some_and(|(sender, _)| *sender == key)
        {
            self.sending.remove(&key.slot);
        }
        if completion.op == Op::Accept
            && let Sockets::Plain(table) = &mut self.sockets
            && completion.result >= 0
        {
            // SAFETY: the kernel has just made the descriptor for this accept, so that nobody else
            // owns it, and each completion is settled once.
            let socket = unsafe { OwnedFd::from_raw_fd(completion.result) };
            self.listeners.bound_send_buffer(key.slot, socket.as_fd());
            if let Some(entry) = table.get_mut(key.slot as usize) {
                *entry = Some(socket);
            }
        }
        #[cfg(debug_assertions)]
        match (completion.op, u32::try_from(completion.result)) {
            (Op::AcceptAll, Ok(slot)) => self.contract.installed(slot),
            (Op::AcceptAll, Err(_errno)) => {}
            _ => self.contract.completed(completion),
        }
    }

    #[inline]
    fn unsubmitted(&mut self) -> usize {
        let mut queue = self.io.submission();
        queue.sync();
        queue.len()
    }
}

impl Ring for Uring {
    type Buffer = Buffer;
    type Socket<'a> = BorrowedFd<'a>;
    type Listener = Listening;

    fn slots(&self) -> u32 {
        self.slots
    }

    fn install(&mut self, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        // For a non-blocking socket the kernel returns EAGAIN instead of waiting itself.
        rustix::io::ioctl_fionbio(socket, false)?;
        match &mut self.sockets {
            Sockets::Direct => {
                // A close of this slot that is still queued must not meet the new socket.
                if std::mem::take(&mut self.closes) && !self.submit() {
                    self.closes = true;
                    return Err(io::ErrorKind::ResourceBusy.into());
                }
                self.io.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
            }
            Sockets::Plain(table) => {
                let own = socket.try_clone_to_owned()?;
                let entry = table.get_mut(slot as usize);
                *entry.ok_or(io::ErrorKind::InvalidInput)? = Some(own);
            }
        }
        #[cfg(debug_assertions)]
        self.contract.installed(slot);
        Ok(())
    }

    fn listen(&mut self, listener: Listening) -> ListenerId {
        self.listeners.add(listener)
    }

    fn forget(&mut self, listener: ListenerId) {
        self.listeners.remove(listener);
    }

    fn accept(&mut self, listener: ListenerId, key: ConnKey) -> Result<(), QueueFull> {
        self.queue_accept(listener, key)?;
        #[cfg(debug_assertions)]
        self.contract.accept(key);
        Ok(())
    }

    fn stop_accepting(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.cancel(Op::Accept, key)?;
        #[cfg(debug_assertions)]
        self.contract.stop_accepting(key);
        Ok(())
    }

    fn peer(&mut self, accepted: &Completion) -> Option<IpAddr> {
        self.listeners.ended(accepted.key.slot)
    }

    fn release(&mut self, slot: u32) {
        #[cfg(debug_assertions)]
        self.contract.released(slot);
        match &mut self.sockets {
            Sockets::Direct => {
                let released = self.io.submitter().register_files_update(slot, &[-1]);
                if let Err(error) = released {
                    tracing::error!(%error, slot, "cannot release a socket: it stays open");
                }
            }
            Sockets::Plain(table) => {
                if let Some(entry) = table.get_mut(slot as usize) {
                    *entry = None;
                }
            }
        }
    }

    fn close(&mut self, slot: u32) -> Result<(), QueueFull> {
        if let Sockets::Plain(_) = &self.sockets {
            self.release(slot);
            return Ok(());
        }
        let entry = opcode::Close::new(Fixed(slot)).build().flags(squeue::Flags::SKIP_SUCCESS);
        let key = ConnKey { slot, generation: 0 };
        self.push(&entry.user_data(user_data(Op::HangUp, key)))?;
        self.closes = true;
        #[cfg(debug_assertions)]
        self.contract.released(slot);
        Ok(())
    }

    fn await_readable(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        let entry = self.entry(
            key.slot,
            |socket| opcode::PollAdd::new(socket, READABLE).build(),
            |socket| opcode::PollAdd::new(socket, READABLE).build(),
        );
        self.push(&entry.user_data(user_data(Op::Readable, key)))?;
        #[cfg(debug_assertions)]
        self.contract.await_readable(key);
        Ok(())
    }

    fn wait_and_receive(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.receive_with(key, 0, POLL_FIRST)
    }

    fn receive(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.receive_with(key, libc::MSG_DONTWAIT, 0)
    }

    fn stop_receiving(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.cancel(Op::Receive, key)
    }

    #[inline]
    fn stage(&mut self, bytes: Bytes) -> Staged {
        self.staged.push(bytes);
        Staged(to_u32(self.staged.len() - 1, "a turn stages a few thousand slices"))
    }

    #[inline]
    fn staged(&self, staged: Staged) -> &Bytes {
        &self.staged[staged.0 as usize]
    }

    #[inline]
    fn clear_staged(&mut self) {
        if self.unsubmitted() == 0 {
            self.staged.clear();
        }
    }

    #[inline]
    fn send_now(&mut self, key: ConnKey, staged: Staged) -> Result<(), QueueFull> {
        const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let bytes = &self.staged[staged.0 as usize];
        let (start, len) = (bytes.as_ptr(), to_u32(bytes.len(), SLICE_BOUND));
        let entry = self.entry(
            key.slot,
            |socket| opcode::Send::new(socket, start, len).flags(FLAGS).build(),
            |socket| opcode::Send::new(socket, start, len).flags(FLAGS).build(),
        );
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry.user_data(user_data(Op::SendNow, key)))?;
        #[cfg(debug_assertions)]
        self.contract.send_now(key);
        Ok(())
    }

    fn send(&mut self, key: ConnKey, bytes: Bytes) -> Result<(), SendRefused> {
        const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        // The new bytes would take the place of those that the kernel still reads.
        if self.sending.contains_key(&key.slot) {
            return Err(SendRefused::Pending);
        }
        let (start, len) = (bytes.as_ptr(), to_u32(bytes.len(), SLICE_BOUND));
        let entry = self.entry(
            key.slot,
            |socket| opcode::Send::new(socket, start, len).flags(FLAGS).build(),
            |socket| opcode::Send::new(socket, start, len).flags(FLAGS).build(),
        );
        self.push(&entry.user_data(user_data(Op::Send, key)))?;
        self.sending.insert(key.slot, (key, bytes));
        #[cfg(debug_assertions)]
        self.contract.send(key);
        Ok(())
    }

    fn half_close(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        let entry = self.entry(
            key.slot,
            |socket| opcode::Shutdown::new(socket, libc::SHUT_WR).build(),
            |socket| opcode::Shutdown::new(socket, libc::SHUT_WR).build(),
        );
        self.push(&entry.user_data(user_data(Op::HalfClose, key)))?;
        #[cfg(debug_assertions)]
        self.contract.half_close(key);
        Ok(())
    }

    fn hang_up(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        #[cfg(debug_assertions)]
        self.contract.hang_up(key);
        if let Sockets::Plain(table) = &self.sockets {
            if let Some(Some(socket)) = table.get(key.slot as usize) {
                // This fails if the peer has left already, and then the operations end anyway.
                let _gone = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
            }
            return Ok(());
        }
        // Operations are cancelled by name. By descriptor, the kernel visits every pending request
        // of the ring: 0.5 ms of CPU per hang-up with 19,000 connections (Linux 6.18,
        // io_cancel_req_match).
        self.cancel(Op::Readable, key)?;
        if self.sending.get(&key.slot).is_some_and(|(sender, _)| *sender == key) {
            self.cancel(Op::Send, key)?;
        }
        Ok(())
    }

    fn ask_unsent(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        match &self.sockets {
            Sockets::Direct => {
                let ask = opcode::UringCmd16::new(Fixed(key.slot), SOCKET_URING_OP_SIOCOUTQ);
                self.push(&ask.build().user_data(user_data(Op::AskUnsent, key)))?;
            }
            Sockets::Plain(table) => {
                let socket = table.get(key.slot as usize).and_then(Option::as_ref);
                let result = socket.map_or(0, queued_bytes);
                let (op, more, left, buffer) = (Op::AskUnsent, false, false, None);
                self.at_once.push(Completion { op, key, result, more, left, buffer });
            }
        }
        #[cfg(debug_assertions)]
        self.contract.ask_unsent(key);
        Ok(())
    }

    fn reset(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        match &self.sockets {
            Sockets::Direct => {
                let linger = std::ptr::from_ref(&RESET_AT_CLOSE).cast();
                let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_LINGER as u32);
                let entry =
                    opcode::SetSockOpt::new(Fixed(key.slot), level, name, linger, LINGER_LEN);
                let entry = entry.build().flags(squeue::Flags::SKIP_SUCCESS);
                self.push(&entry.user_data(user_data(Op::Reset, key)))?;
            }
            Sockets::Plain(table) => {
                if let Some(Some(socket)) = table.get(key.slot as usize) {
                    reset_when_closed(socket);
                }
            }
        }
        #[cfg(debug_assertions)]
        self.contract.reset(key);
        Ok(())
    }

    fn submit(&mut self) -> bool {
        for _ in 0..ENTER_ATTEMPTS {
            let unsubmitted = self.unsubmitted();
            if unsubmitted == 0 {
                return true;
            }
            let entries = to_u32(unsubmitted, "a queue has at most 32,768 entries");
            if !self.enter(entries, 0) {
                return false;
            }
        }
        false
    }

    fn submit_and_wait(&mut self, timeout: Duration) -> bool {
        // The kernel does not know of completions that were made here.
        if !self.at_once.is_empty() || !self.poll_wake_up() {
            return self.submit();
        }
        self.sleep(timeout) || self.submit()
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        let mut attempts = 0;
        for completion in std::mem::take(&mut self.at_once) {
            self.settle(&completion);
            into.push(completion);
        }
        loop {
            let (deferred, overflown) = {
                let queue = self.io.submission();
                (queue.taskrun(), queue.cq_overflow())
            };
            attempts += 1;
            if deferred || overflown {
                self.enter(0, ENTER_GETEVENTS);
            }
            let before = into.len();
            for entry in self.io.completion() {
                match completion(&entry) {
                    Some(completion) => into.push(completion),
                    None => self.wake_up.completed(&entry),
                }
            }
            for completion in &into[before..] {
                self.settle(completion);
            }
            // An overflow is emptied however long it is, because a failed `send_now` may be in it.
            // It comes to an end, because only `keep_receiving` completes more than once, and that
            // is over when it finds the queue full. Deferred work can wait: no sleep begins before
            // the kernel has run it.
            let rest_can_wait = deferred && attempts >= ENTER_ATTEMPTS;
            if !overflown && (!deferred || rest_can_wait) {
                return;
            }
        }
    }

    #[inline]
    fn take_buffer(&mut self, completion: &Completion) -> Option<Buffer> {
        // A negative result is an error, and its buffer holds no bytes.
        let len = usize::try_from(completion.result).unwrap_or(0);
        self.buffers.as_mut()?.lease(completion.buffer?, len)
    }

    #[inline]
    fn give_back(&mut self, buffer: Buffer) {
        if let Some(buffers) = &mut self.buffers {
            buffers.publish(buffer);
        }
    }

    fn trim(&mut self) {
        shrink(&mut self.staged);
        shrink(&mut self.at_once);
        if self.sending.is_empty() {
            self.sending = HashMap::new();
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may write into buffers and read from slices until every request has ended.
        let timeout = types::Timespec::new().sec(1);
        let ended = self.io.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any());
        let none_left =
            ended.is_ok() || ended.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let freed = none_left && self.io.submitter().unregister_buf_ring(BUFFER_GROUP).is_ok();
        if !freed {
            // Closing a ring is asynchronous (io_uring_setup(2)). Memory that the kernel may still
            // touch is never freed. The process ends soon after.
            std::mem::forget(self.buffers.take());
            std::mem::forget(std::mem::take(&mut self.sending));
            std::mem::forget(std::mem::take(&mut self.staged));
            std::mem::forget(std::mem::take(&mut self.listeners));
        }
    }
}

/// Whether the ring can go on after an `io_uring_enter(2)`. Otherwise completions must be reaped
/// first.
fn may_go_on(entered: io::Result<usize>) -> bool {
    match entered.map_err(|error| error.raw_os_error()) {
        Ok(_taken) => true,
        // The call was interrupted before anything was done, or the timeout is over.
        Err(Some(libc::EINTR | libc::ETIME)) => true,
        // The completion queue is over-full, or a request could not be allocated.
        Err(Some(libc::EBUSY | libc::EAGAIN)) => false,
        Err(errno) => {
            // With EBADR a completion was lost, so an operation will never end. With anything else
            // the ring itself is broken. In neither case can the process go on.
            let errno = errno.unwrap_or_default();
            tracing::error!(errno, "io_uring_enter failed; the process cannot go on");
            std::process::abort();
        }
    }
}

/// Gives back the memory of an empty list, except for that of a usual turn.
fn shrink<T>(list: &mut Vec<T>) {
    if list.is_empty() {
        list.shrink_to(ENTRIES_KEPT);
    }
}

fn descriptor(table: &[Option<OwnedFd>], slot: u32) -> RawFd {
    // With -1 the operation fails with EBADF.
    table.get(slot as usize).and_then(Option::as_ref).map_or(-1, AsRawFd::as_raw_fd)
}

#[cfg(feature = "accept")]
mod accept;
mod listening;
mod multishot;
mod setup;
mod sleep;
mod user_data;

#[cfg(test)]
mod tests;
