//! The floor: a server on a bare ring that does for a load what the kernel demands, and nothing
//! else. It is the cheapest server that we know how to write for this work; a gateway that comes
//! close to it has nothing left to save.
//!
//! # What it does
//! Any server must do this: accept, receive, parse the head of a request (by `httparse`), hash the
//! key of a handshake, answer, find the subscribers, send, and keep the bytes that a full socket
//! does not take.
//!
//! # What it leaves out
//! It checks no signature, no digest and no limit, parses no JSON, answers each client with the
//! same socket id, knows no deadlines, and trusts that its clients are `ringwave storm`.
//!
//! # How
//! - One `io_uring_enter(2)` per turn: it submits the operations that the turn queued, sleeps until
//!   something happens, and a turn handles all that happened.
//! - One multishot accept brings sockets right into the ring's file table, so that none ever has a
//!   descriptor, and one multishot receive serves each of them to its end. With single receives,
//!   and with receives that try before they wait, the work of this bench costs the same. A poll
//!   keeps 600 bytes of kernel memory less for a client that is idle, which the gateway pays for
//!   and this floor does not.
//! - A message costs no allocation: its frame is written into memory of its channel, which is used
//!   again, and all subscribers are sent that memory. Sends that succeed post no completion.
//!
//! The kernel could hold each connection back until its first bytes have come (`TCP_DEFER_ACCEPT`
//! of tcp(7)), which saves at least a tenth of a handshake. Neither this floor nor the gateway asks
//! for that, because clients that say nothing would then fill a queue of the kernel that knows no
//! limits per address.
//!
//! There are two kinds of floor. One joins all messages for a channel in a turn. The other sends
//! each message by itself as soon as it comes, and so enters the kernel once more for each.

mod channels;
mod conn;
mod messages;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringwave::testing::id::ConnKey;
use ringwave::testing::server::limits;
use ringwave_ring::{Completion, Op, Ring, SendRefused, Uring, UringSizes};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use channels::Channels;
use conn::{Behind, Conn};
use messages::Message;

/// The size of a send buffer, as the gateway's by default.
const BACKLOG_MAX: usize = 1 << 20;
const SUBMISSIONS: u32 = 4096;
const BUFFERS: u16 = 1024;
const BUFFER_SIZE: u16 = 4096;
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// The memory of the answers of a turn: 200 or so to handshakes, and little enough to stay in the
/// cache of a core.
const ANSWERS_LEN: usize = 64 * 1024;

/// Serves until it is killed. Prints its address first.
pub(crate) fn serve(coalesced: bool) -> ! {
    limits::raise_nofile();
    let listener = listener().expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let mut floor = Floor::new(listener, coalesced);
    writeln!(std::io::stdout(), "{address}").expect("whoever started it reads");
    loop {
        floor.turn();
    }
}

fn listener() -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Accepted sockets inherit the option (tcp(7)).
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

struct Floor {
    ring: Uring,
    listener: TcpListener,
    coalesced: bool,
    /// The connections, by slot.
    conns: Vec<Conn>,
    channels: Channels,
    /// Channels with something pending.
    owing: Vec<u32>,
    /// Completions that were reaped and not handled yet.
    completions: Vec<Completion>,
    /// Memory for answers that differ, which is used again when they were sent.
    answers: BytesMut,
    /// The answer to a subscription.
    subscribed: Bytes,
}

impl Floor {
    fn new(listener: TcpListener, coalesced: bool) -> Self {
        let slots = limits::slots_max(limits::ResourceLimit::nofile().soft).min(1 << 16);
        let ring = Uring::new(&UringSizes {
            slots,
            submissions: SUBMISSIONS,
            buffers: BUFFERS,
            buffer_size: BUFFER_SIZE,
            direct_descriptors: true,
        });
        let mut floor = Self {
            ring: ring.expect("a ring"),
            listener,
            coalesced,
            conns: Vec::with_capacity(slots as usize),
            channels: Channels::default(),
            owing: Vec::new(),
            completions: Vec::new(),
            answers: BytesMut::with_capacity(ANSWERS_LEN),
            subscribed: messages::subscribed(),
        };
        floor.accept();
        floor
    }

    /// Submits what the last turn queued, sleeps, and handles all that happened meanwhile.
    fn turn(&mut self) {
        if self.completions.is_empty() {
            self.ring.submit_and_wait(SLEEP_MAX);
        } else {
            self.ring.submit();
        }
        self.settle();
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.complete(&completion);
        }
        // Queueing may have reaped more.
        completions.append(&mut self.completions);
        self.completions = completions;
        while let Some(channel) = self.owing.pop() {
            self.send_pending(channel);
        }
    }

    /// Handles all sends that fell short, because later bytes have to come behind them, and gives
    /// up the memory of the others.
    fn settle(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        completions.retain(|completion| {
            if completion.op == Op::SendNow {
                self.sent_short(completion);
            }
            completion.op != Op::SendNow
        });
        completions.append(&mut self.completions);
        self.completions = completions;
        self.ring.clear_staged();
    }

    fn complete(&mut self, completion: &Completion) {
        match completion.op {
            Op::AcceptAll => self.accepted(completion),
            Op::Receive => self.received(completion),
            Op::Send => self.sent(completion),
            Op::SendNow => self.sent_short(completion),
            Op::Accept | Op::Readable | Op::HangUp | Op::HalfClose | Op::AskUnsent | Op::Reset => {}
        }
    }

    fn accept(&mut self) {
        let Self { ring, listener, completions, .. } = self;
        queued(ring, completions, |ring| ring.accept_all(listener.as_fd()));
    }

    fn accepted(&mut self, completion: &Completion) {
        let slot = u32::try_from(completion.result).expect("a free slot for a connection");
        if self.conns.len() <= slot as usize {
            self.conns.resize_with(slot as usize + 1, Conn::default);
        }
        self.conns[slot as usize].begin();
        self.receive(slot);
        if !completion.more {
            self.accept();
        }
    }

    fn receive(&mut self, slot: u32) {
        let key = self.key(slot);
        queued(&mut self.ring, &mut self.completions, |ring| ring.keep_receiving(key));
    }

    fn received(&mut self, completion: &Completion) {
        let slot = completion.key.slot;
        if let Some(mut buffer) = self.ring.take_buffer(completion) {
            self.bytes(slot, buffer.as_mut());
            self.ring.give_back(buffer);
        }
        let no_buffer = completion.result == -Errno::NOBUFS.raw_os_error();
        if completion.more {
            return;
        }
        if completion.result > 0 || no_buffer {
            self.receive(slot);
        } else {
            self.ended(slot);
        }
    }

    fn bytes(&mut self, slot: u32, bytes: &[u8]) {
        let mut partial = std::mem::take(&mut self.conns[slot as usize].partial);
        let bytes = if partial.is_empty() {
            bytes
        } else {
            partial.extend_from_slice(bytes);
            &partial
        };
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let upgraded = self.conns[slot as usize].upgraded;
            let message = if upgraded { messages::frame(rest) } else { messages::request(rest) };
            let Some((message, len)) = message else { break };
            used += len;
            self.message(slot, &message);
        }
        if used < bytes.len() {
            self.conns[slot as usize].partial = bytes[used..].to_vec();
        }
    }

    fn message(&mut self, slot: u32, message: &Message<'_>) {
        match *message {
            Message::Upgrade(key) => {
                self.conns[slot as usize].upgraded = true;
                messages::put_greeting(&mut self.answers, key);
                let answer = self.answers.split().freeze();
                self.answer(slot, answer);
            }
            Message::Publish { channel, body } => {
                self.answer(slot, messages::PUBLISHED);
                if let Some(channel) = self.channels.number(channel) {
                    self.fan_out(channel, body, None);
                }
            }
            Message::Subscribe(name) => {
                let number = self.channels.add(name);
                let subscribers = &mut self.channels.of(number).subscribers;
                self.conns[slot as usize].channel = Some((number, subscribers.len()));
                subscribers.push(slot);
                self.answer(slot, self.subscribed.clone());
            }
            Message::ClientEvent(payload) => {
                if let Some((channel, _)) = self.conns[slot as usize].channel {
                    self.fan_out(channel, payload, Some(slot));
                }
            }
            Message::Close => self.stop(slot),
            Message::Other => {}
        }
    }

    /// Sends an answer. It always fits, because it is short and a client that gets one has read all
    /// before it.
    fn answer(&mut self, slot: u32, bytes: Bytes) {
        let key = self.key(slot);
        let staged = self.ring.stage(bytes);
        queued(&mut self.ring, &mut self.completions, |ring| ring.send_now(key, staged));
    }

    fn fan_out(&mut self, number: u32, payload: &[u8], speaker: Option<u32>) {
        let channel = self.channels.of(number);
        if !channel.pending.is_empty() && channel.speaker != speaker {
            self.send_apart(number);
        }
        let channel = self.channels.of(number);
        channel.speaker = speaker;
        let owes = !channel.pending.is_empty();
        messages::put_text(&mut channel.pending, payload);
        if !self.coalesced {
            self.send_apart(number);
        } else if !owes {
            self.owing.push(number);
        }
    }

    /// Sends the pending frames in a submission of their own, so that two sends to one socket are
    /// never under way.
    fn send_apart(&mut self, channel: u32) {
        self.send_pending(channel);
        while !self.ring.submit() {
            self.ring.reap(&mut self.completions);
        }
        self.settle();
    }

    fn send_pending(&mut self, number: u32) {
        let Self { ring, conns, channels, completions, .. } = self;
        let channel = channels.of(number);
        if channel.pending.is_empty() {
            return;
        }
        let bytes = channel.pending.split().freeze();
        let staged = ring.stage(bytes.clone());
        for &slot in &channel.subscribers {
            if channel.speaker == Some(slot) {
                continue;
            }
            let conn = &mut conns[slot as usize];
            let key = conn.key(slot);
            match &mut conn.behind {
                None => queued(ring, completions, |ring| ring.send_now(key, staged)),
                Some(behind) => {
                    if behind.push(&bytes) > BACKLOG_MAX {
                        queued(ring, completions, |ring| ring.stop_receiving(key));
                    }
                }
            }
        }
        channel.sent = Some(staged);
    }

    /// Handles a send that fell short: the socket was full, or is gone, which its receive tells.
    fn sent_short(&mut self, completion: &Completion) {
        let slot = completion.key.slot;
        let full = completion.result >= 0 || completion.result == -Errno::AGAIN.raw_os_error();
        let conn = &mut self.conns[slot as usize];
        if let Some((channel, _)) = conn.channel
            && conn.generation == completion.key.generation
            && full
            && let Some(staged) = self.channels.of(channel).sent
        {
            conn.behind = Some(Box::new(Behind::default()));
            let sent = usize::try_from(completion.result).unwrap_or(0);
            let rest = self.ring.staged(staged).slice(sent..);
            self.send(slot, &rest);
        }
    }

    /// Sends these bytes with an operation that waits for room in the socket.
    fn send(&mut self, slot: u32, bytes: &Bytes) {
        let conn = &mut self.conns[slot as usize];
        conn.sending = true;
        let key = conn.key(slot);
        queued(&mut self.ring, &mut self.completions, |ring| ring.send(key, bytes.clone()));
    }

    fn sent(&mut self, completion: &Completion) {
        let slot = completion.key.slot;
        let conn = &mut self.conns[slot as usize];
        conn.sending = false;
        if conn.over {
            self.close(slot);
        } else if completion.result >= 0 {
            match conn.behind.as_mut().and_then(|behind| behind.pop()) {
                Some(next) => self.send(slot, &next),
                None => conn.behind = None,
            }
        }
    }

    /// Handles the end of the receiving direction.
    fn ended(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        conn.over = true;
        let sending = conn.sending;
        if let Some((number, position)) = conn.channel.take() {
            let subscribers = &mut self.channels.of(number).subscribers;
            subscribers.swap_remove(position);
            if let Some(&moved) = subscribers.get(position) {
                self.conns[moved as usize].channel = Some((number, position));
            }
        }
        if sending {
            // Its completion closes the connection.
            let key = self.key(slot);
            queued(&mut self.ring, &mut self.completions, |ring| ring.hang_up(key));
        } else {
            self.close(slot);
        }
    }

    /// Ends the receive of a connection, which then comes to its end.
    fn stop(&mut self, slot: u32) {
        let key = self.key(slot);
        queued(&mut self.ring, &mut self.completions, |ring| ring.stop_receiving(key));
    }

    fn close(&mut self, slot: u32) {
        queued(&mut self.ring, &mut self.completions, |ring| ring.close(slot));
    }

    fn key(&self, slot: u32) -> ConnKey {
        self.conns[slot as usize].key(slot)
    }
}

/// Queues an operation, and makes room first if there is none.
fn queued<E: Into<SendRefused>>(
    ring: &mut Uring,
    completions: &mut Vec<Completion>,
    mut operation: impl FnMut(&mut Uring) -> Result<(), E>,
) {
    while let Err(SendRefused::QueueFull) = operation(ring).map_err(E::into) {
        if !ring.submit() {
            ring.reap(completions);
        }
    }
}
