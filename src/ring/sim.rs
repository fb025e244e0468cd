//! [`Ring`] as a simulated kernel: sockets are byte queues, and everything that the real one may do
//! happens often instead of rarely. Deterministic by seed, so that a failing run can be replayed.
//!
//! [`SimNet`] is the other side: the clients of the simulated sockets.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use bytes::Bytes;

use super::{Completion, Op, QueueFull, Ring, Staged};
use crate::id::ConnKey;

/// Bytes that a simulated socket holds for a client that does not read.
const SOCKET_BUFFER: usize = 4096;

/// What goes wrong, each in thousandths per opportunity.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A send takes only a part, at any byte.
    pub short_send: u32,
    /// A receive ends although nothing happened, with or without bytes.
    pub silent_end: u32,
    /// EAGAIN where none is due.
    pub stray_again: u32,
    /// ENOBUFS although buffers are there.
    pub no_buffers: u32,
    /// The peer resets the connection.
    pub reset: u32,
    /// A completion of an earlier user of the slot turns up.
    pub stale: u32,
    /// The kernel takes only a part of the queue.
    pub busy: u32,
}

/// A small deterministic generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    #[allow(clippy::cast_possible_truncation, reason = "below a usize")]
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// True in `thousandths` of all cases.
    pub fn chance(&mut self, thousandths: u32) -> bool {
        self.roll() % 1000 < u64::from(thousandths)
    }
}

/// One simulated connection, as both sides see it.
#[derive(Debug, Default)]
struct Socket {
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// The client closed its side, or vanished.
    client_closed: bool,
    /// The connection was reset.
    reset: bool,
    /// The server released the socket.
    server_closed: bool,
}

/// The clients' side of the simulated sockets.
#[derive(Clone, Debug, Default)]
pub struct SimNet(Rc<RefCell<BTreeMap<RawFd, Socket>>>);

impl SimNet {
    /// A new connection; the number stands in for the accepted descriptor.
    #[must_use]
    pub fn connect(&self) -> RawFd {
        let mut sockets = self.0.borrow_mut();
        let fd = RawFd::try_from(sockets.len()).unwrap_or(RawFd::MAX);
        sockets.insert(fd, Socket::default());
        fd
    }

    /// The client sends.
    pub fn write(&self, fd: RawFd, bytes: &[u8]) {
        if let Some(socket) = self.0.borrow_mut().get_mut(&fd) {
            socket.to_server.extend(bytes);
        }
    }

    /// The client reads up to `most` bytes.
    #[must_use]
    pub fn read(&self, fd: RawFd, most: usize) -> Vec<u8> {
        let mut sockets = self.0.borrow_mut();
        let Some(socket) = sockets.get_mut(&fd) else { return Vec::new() };
        let len = most.min(socket.to_client.len());
        socket.to_client.drain(..len).collect()
    }

    /// The client closes.
    pub fn close(&self, fd: RawFd) {
        if let Some(socket) = self.0.borrow_mut().get_mut(&fd) {
            socket.client_closed = true;
        }
    }

    /// Whether the client has read all and the connection has ended.
    #[must_use]
    pub fn ended(&self, fd: RawFd) -> bool {
        let sockets = self.0.borrow();
        let over = |socket: &Socket| socket.server_closed && socket.to_client.is_empty();
        sockets.get(&fd).is_none_or(over)
    }

    /// Whether the simulated network reset this connection.
    #[must_use]
    pub fn was_reset(&self, fd: RawFd) -> bool {
        self.0.borrow().get(&fd).is_some_and(|socket| socket.reset)
    }
}

#[derive(Debug)]
enum Entry {
    Receive(ConnKey),
    SendNow(ConnKey, Staged),
    Send(ConnKey, Bytes),
    HangUp(ConnKey),
}

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

/// The simulated ring of one shard.
#[derive(Debug)]
pub struct SimRing {
    net: SimNet,
    dice: Dice,
    faults: Faults,
    /// By slot: the installed socket.
    table: Vec<Option<RawFd>>,
    queue: VecDeque<Entry>,
    queue_len: usize,
    staged: Vec<Bytes>,
    /// Armed receives by slot.
    receiving: BTreeMap<u32, ConnKey>,
    /// Sends that wait for room, by slot, with the bytes sent so far.
    sending: BTreeMap<u32, (ConnKey, Bytes, usize)>,
    completed: Vec<Completion>,
    /// Filled buffers that a completion names.
    filled: BTreeMap<u16, Vec<u8>>,
    free_buffers: Vec<u16>,
    buffers: u16,
    buffer_size: usize,
    /// Connections that were hung up and still hold their slot.
    hung_up: Vec<ConnKey>,
    /// Connections whose slot was released: where stale completions come from.
    gone: Vec<ConnKey>,
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
            table: vec![None; slots as usize],
            queue: VecDeque::new(),
            queue_len: 8,
            staged: Vec::new(),
            receiving: BTreeMap::new(),
            sending: BTreeMap::new(),
            completed: Vec::new(),
            filled: BTreeMap::new(),
            free_buffers: (0..buffers).collect(),
            buffers,
            buffer_size,
            hung_up: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Nothing goes wrong from here on: what is left can settle.
    pub const fn heal(&mut self) {
        self.faults = Faults {
            short_send: 0,
            silent_end: 0,
            stray_again: 0,
            no_buffers: 0,
            reset: 0,
            stale: 0,
            busy: 0,
        };
    }

    /// What is still out, in words; `None`: every slot, buffer and operation came back.
    #[must_use]
    pub fn leaks(&self) -> Option<String> {
        let slots = self.table.iter().flatten().count();
        let buffers = usize::from(self.buffers) - self.free_buffers.len();
        let operations = self.receiving.len() + self.sending.len() + self.queue.len();
        (slots + buffers + operations > 0)
            .then(|| format!("{slots} slots, {buffers} buffers, {operations} operations"))
    }

    /// Whether a receive is armed for this slot.
    #[must_use]
    pub fn receiving(&self, slot: u32) -> bool {
        self.receiving.contains_key(&slot)
    }

    fn push(&mut self, entry: Entry) -> Result<(), QueueFull> {
        if self.queue.len() == self.queue_len {
            return Err(QueueFull);
        }
        self.queue.push_back(entry);
        Ok(())
    }

    fn complete(&mut self, op: Op, key: ConnKey, result: i32, more: bool, buffer: Option<u16>) {
        self.completed.push(Completion { op, key, result, more, buffer });
    }

    fn execute(&mut self, entry: Entry) {
        match entry {
            Entry::Receive(key) => {
                assert!(self.socket(key).is_some(), "a receive on an empty slot");
                let earlier = self.receiving.insert(key.slot, key);
                assert!(earlier.is_none(), "two receives on slot {}", key.slot);
            }
            Entry::SendNow(key, staged) => {
                assert!(!self.sending.contains_key(&key.slot), "two sends on slot {}", key.slot);
                let bytes = self.staged[staged.0 as usize].clone();
                match self.put(key, &bytes) {
                    Ok(sent) if sent == bytes.len() => {}
                    Ok(0) => self.complete(Op::SendNow, key, -libc::EAGAIN, false, None),
                    Ok(sent) => self.complete(Op::SendNow, key, length(sent), false, None),
                    Err(errno) => self.complete(Op::SendNow, key, -errno, false, None),
                }
            }
            Entry::Send(key, bytes) => {
                let earlier = self.sending.insert(key.slot, (key, bytes, 0));
                assert!(earlier.is_none(), "two sends on slot {}", key.slot);
            }
            Entry::HangUp(key) => {
                if let Some(key) = self.receiving.remove(&key.slot) {
                    self.complete(Op::Receive, key, -libc::ECANCELED, false, None);
                }
                if let Some((key, _, sent)) = self.sending.remove(&key.slot) {
                    let result = if sent > 0 { length(sent) } else { -libc::ECANCELED };
                    self.complete(Op::Send, key, result, false, None);
                }
            }
        }
    }

    fn socket(&self, key: ConnKey) -> Option<RawFd> {
        self.table.get(key.slot as usize).copied().flatten()
    }

    /// Moves bytes into the socket's buffer; the number moved, or an errno.
    fn put(&mut self, key: ConnKey, bytes: &[u8]) -> Result<usize, i32> {
        let fd = self.socket(key).ok_or(libc::EBADF)?;
        let mut sockets = self.net.0.borrow_mut();
        let socket = sockets.get_mut(&fd).ok_or(libc::EBADF)?;
        if self.dice.chance(self.faults.reset) {
            socket.reset = true;
        }
        if socket.reset {
            return Err(libc::ECONNRESET);
        }
        if socket.client_closed {
            return Err(libc::EPIPE);
        }
        let room = SOCKET_BUFFER.saturating_sub(socket.to_client.len());
        let mut len = bytes.len().min(room);
        if len > 0 && self.dice.chance(self.faults.short_send) {
            len = self.dice.below(len + 1);
        }
        socket.to_client.extend(&bytes[..len]);
        Ok(len)
    }

    fn progress_receive(&mut self, key: ConnKey) {
        let Some(fd) = self.socket(key) else { return };
        let net = self.net.clone();
        let mut sockets = net.0.borrow_mut();
        let Some(socket) = sockets.get_mut(&fd) else { return };
        if self.dice.chance(self.faults.reset) {
            socket.reset = true;
        }
        let end = |ring: &mut Self, result| {
            ring.receiving.remove(&key.slot);
            ring.complete(Op::Receive, key, result, false, None);
        };
        if socket.reset {
            return end(self, -libc::ECONNRESET);
        }
        if self.dice.chance(self.faults.stray_again) {
            return end(self, -libc::EAGAIN);
        }
        if socket.to_server.is_empty() {
            if socket.client_closed {
                end(self, 0);
            }
            return;
        }
        if self.dice.chance(self.faults.no_buffers) {
            return end(self, -libc::ENOBUFS);
        }
        let Some(buffer) = self.free_buffers.pop() else { return end(self, -libc::ENOBUFS) };
        let most = socket.to_server.len().min(self.buffer_size);
        let len = 1 + self.dice.below(most);
        self.filled.insert(buffer, socket.to_server.drain(..len).collect());
        let more = !self.dice.chance(self.faults.silent_end);
        if !more {
            self.receiving.remove(&key.slot);
        }
        self.complete(Op::Receive, key, length(len), more, Some(buffer));
    }

    fn progress_send(&mut self, slot: u32) {
        let Some((key, bytes, sent)) = self.sending.remove(&slot) else { return };
        if self.dice.chance(self.faults.stray_again) {
            let result = if sent > 0 { length(sent) } else { -libc::EAGAIN };
            return self.complete(Op::Send, key, result, false, None);
        }
        match self.put(key, &bytes[sent..]) {
            Ok(more) if sent + more == bytes.len() => {
                self.complete(Op::Send, key, length(bytes.len()), false, None);
            }
            Ok(more) => {
                self.sending.insert(slot, (key, bytes, sent + more));
            }
            Err(errno) => self.complete(Op::Send, key, -errno, false, None),
        }
    }
}

impl Ring for SimRing {
    type Buffer = SimBuffer;

    fn slots(&self) -> u32 {
        u32::try_from(self.table.len()).unwrap_or(u32::MAX)
    }

    fn install(&mut self, slot: u32, socket: RawFd) -> io::Result<()> {
        let entry = self.table.get_mut(slot as usize).ok_or(io::ErrorKind::InvalidInput)?;
        assert!(entry.is_none(), "slot {slot} is taken");
        *entry = Some(socket);
        Ok(())
    }

    fn release(&mut self, slot: u32) {
        assert!(!self.receiving.contains_key(&slot), "released with a pending receive");
        assert!(!self.sending.contains_key(&slot), "released with a pending send");
        let of_slot = |entry: &Entry| match entry {
            Entry::Receive(key) | Entry::SendNow(key, _) | Entry::Send(key, _) => key.slot == slot,
            Entry::HangUp(_) => false,
        };
        assert!(!self.queue.iter().any(of_slot), "released with a queued operation");
        let released = self.hung_up.extract_if(.., |key| key.slot == slot);
        self.gone.extend(released);
        let fd = self.table[slot as usize].take();
        assert!(fd.is_some(), "slot {slot} is released twice");
        if let Some(socket) = fd.and_then(|fd| self.net.0.borrow_mut().remove(&fd)) {
            let ended = Socket { server_closed: true, ..socket };
            self.net.0.borrow_mut().insert(fd.unwrap_or(-1), ended);
        }
    }

    fn receive(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Entry::Receive(key))
    }

    fn stage(&mut self, bytes: Bytes) -> Staged {
        self.staged.push(bytes);
        Staged(u32::try_from(self.staged.len() - 1).unwrap_or(u32::MAX))
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
        self.push(Entry::SendNow(key, staged))
    }

    fn send(&mut self, key: ConnKey, bytes: Bytes) -> Result<(), QueueFull> {
        self.push(Entry::Send(key, bytes))
    }

    fn hang_up(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        self.push(Entry::HangUp(key))?;
        self.hung_up.push(key);
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

    fn reap(&mut self, into: &mut Vec<Completion>) {
        for key in self.receiving.values().copied().collect::<Vec<_>>() {
            self.progress_receive(key);
        }
        for slot in self.sending.keys().copied().collect::<Vec<_>>() {
            self.progress_send(slot);
        }
        if !self.gone.is_empty() && self.dice.chance(self.faults.stale) {
            let key = self.gone[self.dice.below(self.gone.len())];
            self.complete(Op::Receive, key, -libc::ECANCELED, false, None);
        }
        into.append(&mut self.completed);
    }

    fn take_buffer(&mut self, completion: &Completion) -> Option<SimBuffer> {
        let id = completion.buffer?;
        self.filled.remove(&id).map(|bytes| SimBuffer { id, bytes })
    }

    fn give_back(&mut self, buffer: SimBuffer) {
        assert!(!self.free_buffers.contains(&buffer.id), "buffer {} came back twice", buffer.id);
        self.free_buffers.push(buffer.id);
    }
}

fn length(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}
