//! [`Ring`] as a simulated kernel. Sockets are byte queues, and everything that the real kernel may
//! do rarely happens often. A run is determined by its seed, so that a failing one can be replayed.
//! [`SimNet`] is the side of the clients.
//!
//! The simulation varies the order of completions of different operations, the number of them that
//! a [`reap`](Ring::reap) finds, the time at which a hang-up takes effect, and the results of the
//! operations that it ends. It panics if the contract of [`Ring`] is broken.

#![allow(clippy::expect_used, reason = "a simulation ends at the first broken promise")]

mod accept;
mod faults;
mod net;
mod queued;
mod receive;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use bytes::Bytes;

use crate::contract::Contract;
use crate::narrow::to_u32;
use crate::ring::{Completion, ConnKey, ListenerId, Op, QueueFull, Ring, SendRefused, Staged};

pub use accept::SimListener;
pub use faults::{Dice, Faults};
pub use net::SimNet;
use queued::Queued;

/// Entries of the submission queue by default: few, so that it is often full.
const QUEUE_LEN: usize = 8;

/// The most steps of progress that an operation makes in one `reap`.
const ROUNDS_PER_REAP: usize = 3;

/// A receive buffer on loan.
#[derive(Debug)]
pub struct SimBuffer {
    id: u16,
    bytes: Vec<u8>,
}

impl AsMut<[u8]> for SimBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// A socket of a [`SimNet`], by the number that stands in for its descriptor.
#[derive(Clone, Copy, Debug)]
pub struct SimSocket(RawFd);

impl From<RawFd> for SimSocket {
    fn from(number: RawFd) -> Self {
        Self(number)
    }
}

// A real socket has no meaning in a simulation. Its number names the simulated one with that
// number.
impl From<BorrowedFd<'_>> for SimSocket {
    fn from(socket: BorrowedFd<'_>) -> Self {
        Self(socket.as_raw_fd())
    }
}

/// A socket in its slot.
#[derive(Debug)]
struct Installed {
    fd: RawFd,
    /// Whether it was hung up, so that its operations are about to end.
    hung_up: bool,
    /// Whether its release is a reset.
    resets: bool,
}

impl Installed {
    const fn new(fd: RawFd) -> Self {
        Self { fd, hung_up: false, resets: false }
    }
}

/// A pending accept.
#[derive(Debug)]
struct Accepting {
    key: ConnKey,
    listener: ListenerId,
    /// Whether its end was asked for.
    stopping: bool,
}

/// The simulated ring of one shard.
#[derive(Debug)]
pub struct SimRing {
    net: SimNet,
    dice: Dice,
    faults: Faults,
    /// The installed sockets by slot.
    table: Vec<Option<Installed>>,
    contract: Contract,
    queue: VecDeque<Queued>,
    queue_len: usize,
    staged: Vec<Bytes>,
    /// Waits until a socket is readable, by slot, with the operation that completes.
    waiting: BTreeMap<u32, (ConnKey, Op)>,
    /// Sends that wait for room, by slot, with the number of bytes sent so far.
    sending: BTreeMap<u32, (ConnKey, Bytes, usize)>,
    /// Half-closes that no worker has run yet, by slot.
    half_closing: BTreeMap<u32, ConnKey>,
    /// The listening sockets by number. `None` for those that were dropped.
    listeners: Vec<Option<SimListener>>,
    /// Pending accepts by slot.
    accepting: BTreeMap<u32, Accepting>,
    /// The addresses that completed accepts have brought, by slot.
    peers: BTreeMap<u32, Option<IpAddr>>,
    completed: Vec<Completion>,
    /// Filled buffers that a completion names.
    filled: BTreeMap<u16, Vec<u8>>,
    free_buffers: Vec<u16>,
    buffers: u16,
    buffer_size: usize,
    /// Connections that have left their slots, for stale completions.
    gone: Vec<ConnKey>,
    /// The most bytes that each of the next sends takes, whatever the dice say.
    script: VecDeque<usize>,
}

impl SimRing {
    /// A ring with `slots` slots and `buffers` receive buffers of `buffer_size` bytes.
    #[must_use]
    pub fn new(
        net: SimNet,
        seed: u64,
        faults: Faults,
        slots: u32,
        buffers: u16,
        buffer_size: usize,
    ) -> Self {
        Self {
            net,
            dice: Dice::new(seed),
            faults,
            table: (0..slots).map(|_| None).collect(),
            contract: Contract::new(slots),
            queue: VecDeque::new(),
            queue_len: QUEUE_LEN,
            staged: Vec::new(),
            waiting: BTreeMap::new(),
            sending: BTreeMap::new(),
            half_closing: BTreeMap::new(),
            listeners: Vec::new(),
            accepting: BTreeMap::new(),
            peers: BTreeMap::new(),
            completed: Vec::new(),
            filled: BTreeMap::new(),
            free_buffers: (0..buffers).collect(),
            buffers,
            buffer_size,
            gone: Vec::new(),
            script: VecDeque::new(),
        }
    }

    /// Sets the number of entries of the submission queue, at least one.
    #[must_use]
    pub fn with_queue(self, queue_len: usize) -> Self {
        Self { queue_len, ..self }
    }

    /// Injects these faults from now on.
    pub const fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Injects no faults from now on, so that everything can settle.
    pub const fn heal(&mut self) {
        self.set_faults(Faults::NONE);
    }

    /// Has the next sends take at most this many bytes each, and end with that.
    pub fn script_sends(&mut self, lens: impl IntoIterator<Item = usize>) {
        self.script.extend(lens);
    }

    /// Drops the rest of the script.
    pub fn script_sends_no_more(&mut self) {
        self.script.clear();
    }

    /// Whether a [`reap`](Ring::reap) would find anything but a fault. The real ring's eventfd
    /// would be readable.
    #[must_use]
    pub fn ready(&self) -> bool {
        let is = |key: &ConnKey, what: fn(&net::Socket) -> bool| {
            let installed = self.table[key.slot as usize].as_ref();
            installed.is_some_and(|of| {
                of.hung_up || self.net.with(of.fd, |socket| what(socket)).unwrap_or(false)
            })
        };
        !self.completed.is_empty()
            || !self.half_closing.is_empty()
            || self.waiting.values().any(|(key, _)| is(key, net::Socket::readable))
            || self.sending.values().any(|(key, ..)| is(key, net::Socket::writable))
            || self.accepting.values().any(|accept| self.accepts(accept))
    }

    /// The resources that are still in use, in words. `None` if every slot, buffer and operation
    /// came back.
    #[must_use]
    pub fn leaks(&self) -> Option<String> {
        let slots = self.table.iter().flatten().count();
        let buffers = usize::from(self.buffers) - self.free_buffers.len();
        let pending = self.waiting.len()
            + self.sending.len()
            + self.half_closing.len()
            + self.accepting.len();
        let operations = pending + self.queue.len();
        let staged = self.staged.len();
        (slots + buffers + operations + staged > 0).then(|| {
            format!("{slots} slots, {buffers} buffers, {operations} operations, {staged} staged")
        })
    }

    /// Whether this slot waits until its socket is readable.
    #[must_use]
    pub fn waiting(&self, slot: u32) -> bool {
        self.waiting.contains_key(&slot)
    }

    fn push(&mut self, entry: Queued) -> Result<(), QueueFull> {
        if self.queue.len() == self.queue_len {
            return Err(QueueFull);
        }
        self.queue.push_back(entry);
        Ok(())
    }

    fn complete(&mut self, op: Op, key: ConnKey, result: i32) {
        let (more, left, buffer) = (false, false, None);
        self.completed.push(Completion { op, key, result, more, left, buffer });
    }

    /// Completes a receive with bytes in a buffer.
    fn complete_receive(&mut self, key: ConnKey, bytes: Vec<u8>, left: bool, buffer: u16) {
        let (op, result, more) = (Op::Receive, length(bytes.len()), false);
        self.filled.insert(buffer, bytes);
        self.completed.push(Completion { op, key, result, more, left, buffer: Some(buffer) });
    }

    fn execute(&mut self, entry: Queued) {
        match entry {
            Queued::AwaitReadable(key) => {
                self.waiting.insert(key.slot, (key, Op::Readable));
            }
            Queued::WaitAndReceive(key) => {
                self.waiting.insert(key.slot, (key, Op::Receive));
            }
            Queued::Receive(key) => self.receive_now(key),
            Queued::StopReceiving(key) => self.stop_receive(key),
            Queued::SendNow(key, staged) => {
                let bytes = self.staged[staged.0 as usize].clone();
                match self.put(key, &bytes) {
                    Ok((sent, _)) if sent == bytes.len() => {}
                    Ok((0, _)) => {
                        let errno = self.no_room();
                        self.complete(Op::SendNow, key, -errno);
                    }
                    Ok((sent, _)) => self.complete(Op::SendNow, key, length(sent)),
                    Err(errno) => self.complete(Op::SendNow, key, -errno),
                }
            }
            Queued::Send(key, bytes) => {
                self.sending.insert(key.slot, (key, bytes, 0));
            }
            Queued::HalfClose(key) => {
                self.half_closing.insert(key.slot, key);
            }
            Queued::HangUp(key) => {
                let installed = self.table[key.slot as usize].as_mut();
                installed.expect("a hang-up of an empty slot").hung_up = true;
            }
            Queued::AskUnsent(key) => {
                let fd = self.socket(key).expect("a question about an empty slot");
                let unsent = self.net.with(fd, |socket| socket.to_client.len()).unwrap_or(0);
                let known = !self.dice.chance(self.faults.stray_again);
                let result = if known { length(unsent) } else { -libc::EOPNOTSUPP };
                self.complete(Op::AskUnsent, key, result);
            }
            Queued::Reset(key) => {
                let installed = self.table[key.slot as usize].as_mut();
                installed.expect("a reset of an empty slot").resets = true;
            }
            Queued::Accept(listener, key) => self.arm_accept(listener, key),
            Queued::StopAccepting(key) => self.stop_accept(key),
        }
    }

    fn socket(&self, key: ConnKey) -> Option<RawFd> {
        self.table.get(key.slot as usize)?.as_ref().map(|installed| installed.fd)
    }

    fn is_hung_up(&self, slot: u32) -> bool {
        self.table[slot as usize].as_ref().is_some_and(|installed| installed.hung_up)
    }

    /// An errno that a send without room may end with.
    fn no_room(&mut self) -> i32 {
        if self.dice.chance(self.faults.stray_again) {
            return self.dice.one_of(&[libc::EAGAIN, libc::EINTR, libc::ENOBUFS, libc::ENOMEM]);
        }
        libc::EAGAIN
    }

    /// Moves bytes into the socket's buffer. Returns their number and whether the script chose it,
    /// or an errno.
    fn put(&mut self, key: ConnKey, bytes: &[u8]) -> Result<(usize, bool), i32> {
        let fd = self.socket(key).ok_or(libc::EBADF)?;
        let (dice, faults, script) = (&mut self.dice, &self.faults, &mut self.script);
        let put = |socket: &mut net::Socket| {
            socket.reset |= dice.chance(faults.reset);
            if socket.reset {
                return Err(libc::ECONNRESET);
            }
            if socket.client_closed {
                return Err(libc::EPIPE);
            }
            let mut len = bytes.len().min(socket.room());
            let scripted = script.pop_front();
            if let Some(most) = scripted {
                len = len.min(most);
            } else if len > 0 && dice.chance(faults.short_send) {
                len = dice.below(len + 1);
            }
            socket.to_client.extend(&bytes[..len]);
            Ok((len, scripted.is_some()))
        };
        self.net.with(fd, put).unwrap_or(Err(libc::EBADF))
    }

    fn progress_send(&mut self, slot: u32) {
        let Some((key, bytes, sent)) = self.sending.remove(&slot) else { return };
        if self.dice.chance(self.faults.stray_again) {
            let result = if sent > 0 { length(sent) } else { -self.no_room() };
            return self.complete(Op::Send, key, result);
        }
        match self.put(key, &bytes[sent..]) {
            Ok((more, scripted)) if scripted || sent + more == bytes.len() => {
                self.complete(Op::Send, key, length(sent + more));
            }
            Ok((more, _)) => {
                self.sending.insert(slot, (key, bytes, sent + more));
            }
            Err(errno) => self.complete(Op::Send, key, -errno),
        }
    }

    /// Has a worker of the kernel end the sending direction, whatever else has ended by then.
    fn progress_half_close(&mut self, slot: u32) {
        let Some(key) = self.half_closing.remove(&slot) else { return };
        let half_closed = self.socket(key).and_then(|fd| {
            self.net.with(fd, |socket| {
                socket.half_closed = true;
                if socket.reset { -libc::ENOTCONN } else { 0 }
            })
        });
        self.complete(Op::HalfClose, key, half_closed.unwrap_or(-libc::EBADF));
    }

    /// Ends the operations of a socket that was hung up, as a cancellation or a shutdown would.
    fn end_operations(&mut self, slot: u32) {
        let cancelled = self.dice.chance(500);
        if let Some(&(key, Op::Readable)) = self.waiting.get(&slot) {
            self.waiting.remove(&slot);
            let result = if cancelled { -libc::ECANCELED } else { i32::from(libc::POLLHUP) };
            self.complete(Op::Readable, key, result);
        }
        if let Some((key, _, sent)) = self.sending.remove(&slot) {
            let error = if cancelled { -libc::ECANCELED } else { -libc::EPIPE };
            let result = if sent > 0 { length(sent) } else { error };
            self.complete(Op::Send, key, result);
        }
    }

    /// Completes an operation of a connection that has left its slot, with or without a buffer.
    fn complete_stale(&mut self) {
        if self.gone.is_empty() || !self.dice.chance(self.faults.stale) {
            return;
        }
        let key = self.gone[self.dice.below(self.gone.len())];
        match self.dice.below(4) {
            0 => self.complete(Op::Readable, key, -libc::ECANCELED),
            1 => self.complete(Op::Readable, key, i32::from(libc::POLLIN)),
            2 => self.complete(Op::Send, key, 1),
            _ => {
                let Some(buffer) = self.free_buffers.pop() else { return };
                // The bytes are a text message.
                let bytes = vec![0x81, 0x82, 0, 0, 0, 0, b'{', b'}'];
                let left = self.dice.chance(500);
                self.complete_receive(key, bytes, left, buffer);
            }
        }
    }

    /// Gives each pending operation a chance to make progress, in any order.
    fn progress(&mut self) {
        let waits = self.waiting.keys().map(|&slot| (Op::Readable, slot));
        let sends = self.sending.keys().map(|&slot| (Op::Send, slot));
        let half_closes = self.half_closing.keys().map(|&slot| (Op::HalfClose, slot));
        let accepts = self.accepting.keys().map(|&slot| (Op::Accept, slot));
        let mut pending: Vec<_> = waits.chain(sends).chain(half_closes).chain(accepts).collect();
        self.dice.shuffle(&mut pending);
        for (op, slot) in pending {
            if self.dice.chance(self.faults.delay) {
                continue;
            }
            if op == Op::Accept {
                self.progress_accept(slot);
            } else if op == Op::HalfClose {
                self.progress_half_close(slot);
            } else if self.is_hung_up(slot) && self.dice.chance(700) {
                self.end_operations(slot);
            } else if op == Op::Readable {
                self.progress_wait(slot);
            } else {
                self.progress_send(slot);
            }
        }
    }
}

impl Ring for SimRing {
    type Buffer = SimBuffer;
    type Socket<'a> = SimSocket;
    type Listener = SimListener;

    fn slots(&self) -> u32 {
        u32::try_from(self.table.len()).expect("the table was made of a u32")
    }

    fn install(&mut self, slot: u32, SimSocket(fd): SimSocket) -> io::Result<()> {
        let entry = self.table.get_mut(slot as usize).ok_or(io::ErrorKind::InvalidInput)?;
        self.contract.installed(slot);
        *entry = Some(Installed::new(fd));
        Ok(())
    }

    fn listen(&mut self, listener: SimListener) -> ListenerId {
        self.listeners.push(Some(listener));
        ListenerId(u16::try_from(self.listeners.len() - 1).expect("a ring has few listeners"))
    }

    fn forget(&mut self, listener: ListenerId) {
        let pending = self.accepting.values().any(|accept| accept.listener == listener);
        assert!(!pending, "a listener is dropped with a pending accept");
        self.listeners[usize::from(listener.0)] = None;
    }

    fn accept(&mut self, listener: ListenerId, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::Accept(listener, key))?;
        self.contract.accept(key);
        Ok(())
    }

    fn stop_accepting(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::StopAccepting(key))?;
        self.contract.stop_accepting(key);
        Ok(())
    }

    fn peer(&mut self, accepted: &Completion) -> Option<IpAddr> {
        let peer = self.peers.remove(&accepted.key.slot);
        peer.expect("the peer of an accept that has not completed")
    }

    fn release(&mut self, slot: u32) {
        let owner = self.contract.released(slot);
        let queued = self.queue.iter().any(|entry| entry.key().slot == slot);
        assert!(!queued, "released with a queued operation");
        let unseen = self.completed.iter().any(|completion| Some(completion.key) == owner);
        assert!(!unseen, "released with a completion that was not taken");
        let installed = self.table[slot as usize].take();
        let installed = installed.expect("a slot is released twice");
        self.gone.extend(owner);
        self.net.release(installed.fd, installed.resets, &mut self.dice);
    }

    fn close(&mut self, slot: u32) -> Result<(), QueueFull> {
        if self.queue.len() == self.queue_len {
            return Err(QueueFull);
        }
        self.release(slot);
        Ok(())
    }

    fn await_readable(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::AwaitReadable(key))?;
        self.contract.await_readable(key);
        Ok(())
    }

    fn wait_and_receive(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::WaitAndReceive(key))?;
        self.contract.receive(key);
        Ok(())
    }

    fn receive(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::Receive(key))?;
        self.contract.receive(key);
        Ok(())
    }

    fn stop_receiving(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::StopReceiving(key))
    }

    fn stage(&mut self, bytes: Bytes) -> Staged {
        self.staged.push(bytes);
        Staged(to_u32(self.staged.len() - 1, "a simulation stages few slices"))
    }

    fn staged(&self, staged: Staged) -> &Bytes {
        &self.staged[staged.0 as usize]
    }

    fn clear_staged(&mut self) {
        if self.queue.is_empty() {
            self.staged.clear();
        }
    }

    fn send_now(&mut self, key: ConnKey, staged: Staged) -> Result<(), QueueFull> {
        self.push(Queued::SendNow(key, staged))?;
        self.contract.send_now(key);
        Ok(())
    }

    fn send(&mut self, key: ConnKey, bytes: Bytes) -> Result<(), SendRefused> {
        self.push(Queued::Send(key, bytes))?;
        self.contract.send(key);
        Ok(())
    }

    fn half_close(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::HalfClose(key))?;
        self.contract.half_close(key);
        Ok(())
    }

    fn hang_up(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::HangUp(key))?;
        self.contract.hang_up(key);
        Ok(())
    }

    fn ask_unsent(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::AskUnsent(key))?;
        self.contract.ask_unsent(key);
        Ok(())
    }

    fn reset(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Queued::Reset(key))?;
        self.contract.reset(key);
        Ok(())
    }

    fn submit(&mut self) -> bool {
        while let Some(entry) = self.queue.pop_front() {
            if self.dice.chance(self.faults.busy) {
                self.queue.push_front(entry);
                return false;
            }
            self.execute(entry);
        }
        true
    }

    fn submit_and_wait(&mut self, _timeout: Duration) -> bool {
        self.submit()
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        for _ in 0..1 + self.dice.below(ROUNDS_PER_REAP) {
            self.progress();
        }
        self.complete_stale();
        self.completed.iter().for_each(|completion| self.contract.completed(completion));
        into.append(&mut self.completed);
    }

    fn take_buffer(&mut self, completion: &Completion) -> Option<SimBuffer> {
        let id = completion.buffer?;
        let bytes = self.filled.remove(&id).expect("a buffer is taken twice");
        Some(SimBuffer { id, bytes })
    }

    fn give_back(&mut self, buffer: SimBuffer) {
        assert!(!self.free_buffers.contains(&buffer.id), "buffer {} came back twice", buffer.id);
        self.free_buffers.push(buffer.id);
    }
}

fn length(len: usize) -> i32 {
    i32::try_from(len).expect("a simulation moves few bytes")
}
