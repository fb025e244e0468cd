//! Floor 3. The plane: established WebSockets of one shard. Safe code over a [`Ring`].
//!
//! It reads messages, answers pings, keeps the close handshake, sends what connections are owed,
//! and holds the bytes that slow ones cannot take yet. It knows nothing of the Pusher protocol or
//! of channels, which are the business of its [`Host`]. [`Plane`] carries the contract.
//!
//! Most connections are idle. An idle one waits until its socket is readable, which takes 250 bytes
//! of kernel memory; a receive that waits takes 860 (Linux 6.18). Then it receives once, without
//! waiting, and waits again. So it uses a buffer of the ring only while its bytes are read, and
//! sockets hold what the plane does not read yet.

mod backlog;
mod closing;
mod conn;
mod end;
mod owed_frames;
mod receive;
mod send;
mod streams;
mod throttle;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
#[cfg(any(test, feature = "testing"))]
use std::io;
use std::time::Duration;

use crate::frame::Frame;
use crate::id::ConnKey;
use crate::memory::{Chunked, Holder, Per, Trim, number};
use crate::ring::{Completion, ListenerId, Op, Ring, Staged};
use crate::time::Millis;
use crate::websocket::{Message, ReadLimits};

use conn::{Conn, End, FreeSlots, Phase};
use owed_frames::OwedFrames;
pub(crate) use streams::StreamEvent;
pub(crate) use throttle::HELD_MAX;
use throttle::Throttle;

/// The time that a closing connection has to answer our Close frame and to read what it is still
/// owed: long enough for a mobile client's round trip, short enough not to hold up a drain.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The most completions that a turn handles, so that timers and the bus keep their share.
const COMPLETIONS_PER_TURN: usize = 4096;

/// Units of work, of about a microsecond each, that messages may cause in a turn before the
/// remaining messages wait for the next one.
const UNITS_PER_TURN: u32 = 10_000;

/// Connections that may end in a turn before the remaining completions wait for the next one. An
/// end takes 20 us in all: subscriptions end, homes are told and the slot is freed. Without the
/// bound, 5,000 connections that left at once made everybody else wait for 100 ms.
const ENDS_PER_TURN: usize = 128;

/// The memory that an idle connection costs the plane.
pub(crate) const BUDGET: [Holder; 1] =
    [Holder { name: "record of the socket", bytes: size_of::<Conn>(), per: Per::Connection }];

/// The receiver of the messages that connections send.
pub(crate) trait Host<R: Ring> {
    /// Handles a text or binary message of an open connection.
    fn message(&mut self, plane: &mut Plane<R>, key: ConnKey, message: Message<'_>);
    /// Returns the limits on the messages of this connection.
    fn read_limits(&self, key: ConnKey) -> ReadLimits;
    /// Closes this connection, because its unfinished message has grown while all unfinished
    /// messages together exceed their bound. The plane has dropped the message, and reads nothing
    /// more from the connection.
    fn unfinished(&mut self, plane: &mut Plane<R>, key: ConnKey);
}

/// The connections that a turn reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// All connections.
    All,
    /// The connections that do not cause more work than their share.
    Moderate,
    /// No connections.
    Nothing,
}

/// Bounds on the backlogs of slow readers, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct BacklogLimits {
    /// Per connection.
    pub connection: usize,
    /// Over all connections of the shard.
    pub shard: usize,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The host closed it.
    Ours,
    /// The peer sent a Close frame.
    PeerClosed,
    /// The peer ended the stream without a Close frame.
    PeerLeft,
    /// The peer broke RFC 6455. Holds the close code that it was sent.
    Violation(u16),
    /// The socket failed. Holds the errno.
    Failed(i32),
    /// The peer read too slowly, or not at all, and its backlog grew past the bound.
    TooSlow,
}

/// The events so far, counted for logs and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections opened.
    pub opened: u64,
    /// Sends that were queued.
    pub sends: u64,
    /// Bytes of these, with what did not fit into the socket at once.
    pub sent_bytes: u64,
    /// Sends that did not fit into the socket at once.
    pub short_sends: u64,
    /// Connections that were closed as too slow.
    pub too_slow: u64,
    /// Receives that found nothing, or no free buffer.
    pub fruitless: u64,
    /// Completions that belonged to an earlier user of their slot.
    pub stale: u64,
}

/// The established WebSockets of one shard.
///
/// Its owner calls it in this order in each turn:
/// 1. [`begin_turn`](Self::begin_turn) sets the time, by which everything in the turn is timed.
/// 2. [`poll`](Self::poll) takes completions, and calls the host for each message.
///    [`next_stream_event`](Self::next_stream_event) returns what has happened to streams.
/// 3. [`upgrade`](Self::upgrade) makes a stream a WebSocket, and [`feed`](Self::feed) takes the
///    bytes that came with it.
/// 4. [`owe`](Self::owe) and [`owe_staged`](Self::owe_staged) add frames for connections, at any
///    time between `begin_turn` and `flush`. Nothing is sent yet.
/// 5. [`flush`](Self::flush) makes **one** send for each connection that is owed anything. If the
///    kernel takes nothing, the plane is [`stalled`](Self::stalled), and the owner skips steps 2 to
///    4 until it is not.
///
/// After each of these, [`next_closed`](Self::next_closed) returns the connections that have ended.
/// Each is returned exactly once, whoever ended it, before its slot is used again. While
/// [`has_work`](Self::has_work) returns `true`, the next turn has to follow at once.
/// [`end_all`](Self::end_all) takes the place of all further turns.
///
/// A turn costs one system call for every few receives, and one per submission queue of sends and
/// waits. The last one of a turn that leaves nothing to do also sleeps until the next one
/// ([`flush_and_sleep`](Self::flush_and_sleep)).
#[derive(Debug)]
pub struct Plane<R: Ring> {
    /// The ring that holds the sockets.
    ring: R,
    /// Connections by slot. Grows with the highest slot in use, never past the ring's table.
    conns: Chunked<Conn>,
    /// Slots that were used before and are free.
    free: FreeSlots,
    /// The frames that connections are owed in this turn.
    owed: OwedFrames,
    /// Completions that were reaped and not handled yet, oldest first, without those of receives.
    completed: VecDeque<Completion>,
    /// Receives that were reaped and whose bytes have not been read yet, oldest first.
    received: VecDeque<Completion>,
    /// The list that completions are reaped into, reused to keep its allocation.
    scratch: Vec<Completion>,
    /// The listeners of pending accepts, by slot.
    accepting: BTreeMap<u32, ListenerId>,
    /// Accepts that must be queued.
    to_accept: VecDeque<ConnKey>,
    /// Accepts that must end.
    to_stop_accepting: VecDeque<ConnKey>,
    /// Events of streams that [`next_stream_event`](Self::next_stream_event) has not returned yet.
    stream_events: VecDeque<(ConnKey, StreamEvent<R::Buffer>)>,
    /// Streams whose sockets are readable and that must be received from.
    to_read: VecDeque<ConnKey>,
    /// Slots of streams that close.
    finishing: HashSet<u32>,
    /// The number of streams.
    streams: usize,
    /// The bound on WebSockets.
    websockets_max: usize,
    /// Connections that must wait until their sockets are readable.
    to_wait: VecDeque<ConnKey>,
    /// WebSockets whose sockets are readable and that must be received from.
    to_receive: VecDeque<ConnKey>,
    /// Connections with a backlog and no pending send.
    to_send: VecDeque<ConnKey>,
    /// Dead connections whose operations must be ended.
    to_hang_up: VecDeque<ConnKey>,
    /// Closing connections whose sending direction must be ended.
    to_half_close: VecDeque<ConnKey>,
    /// Dead connections without pending operations, before they are reset or the kernel is asked
    /// what it holds for them.
    to_end: VecDeque<ConnKey>,
    /// Slots of dead connections that have been dealt with. They are released at the end of the
    /// flush.
    to_release: Vec<u32>,
    /// The KiB that were discarded of a connection, by slot. A KiB that has begun counts as a whole
    /// one, so that the bound on them bounds the reads too.
    discarded_kib: HashMap<u32, u16>,
    /// Slots of ended connections that the host retains, because it has not finished with them.
    retained_slots: HashSet<u32>,
    /// Closing connections in the order of their deadlines.
    closing: VecDeque<(ConnKey, Millis)>,
    /// Ended connections that [`next_closed`](Self::next_closed) has not returned yet.
    closed: VecDeque<(ConnKey, Ended)>,
    /// Connections that cause more work than their share.
    throttle: Throttle,
    /// The number of the turn, wrapping around.
    turn: u8,
    /// Units of work that messages have caused in this turn.
    worked: u32,
    /// Bytes in all backlogs.
    backlog_bytes: usize,
    /// Bytes of unfinished messages, over all connections.
    unfinished_bytes: usize,
    /// The bound on `unfinished_bytes`.
    unfinished_max: usize,
    /// The last bytes that a slow consumer gets: an error and a Close frame.
    too_slow_frame: Frame,
    /// The bounds on backlogs.
    limits: BacklogLimits,
    /// The time of the turn.
    now: Millis,
    /// The number of open connections, without closing ones.
    open: usize,
    counters: Counters,
}

impl<R: Ring> Plane<R> {
    /// A plane without connections. `too_slow_frame` holds the last bytes that a connection gets if
    /// its backlog grows too large: an error and a Close frame.
    pub(crate) fn new(ring: R, limits: BacklogLimits, too_slow_frame: Frame) -> Self {
        let websockets_max = ring.slots() as usize;
        Self {
            ring,
            conns: Chunked::new(),
            free: FreeSlots::default(),
            owed: OwedFrames::default(),
            completed: VecDeque::new(),
            received: VecDeque::new(),
            scratch: Vec::new(),
            accepting: BTreeMap::new(),
            to_accept: VecDeque::new(),
            to_stop_accepting: VecDeque::new(),
            stream_events: VecDeque::new(),
            to_read: VecDeque::new(),
            finishing: HashSet::new(),
            streams: 0,
            websockets_max,
            to_wait: VecDeque::new(),
            to_receive: VecDeque::new(),
            to_send: VecDeque::new(),
            to_hang_up: VecDeque::new(),
            to_half_close: VecDeque::new(),
            to_end: VecDeque::new(),
            to_release: Vec::new(),
            discarded_kib: HashMap::new(),
            retained_slots: HashSet::new(),
            closing: VecDeque::new(),
            closed: VecDeque::new(),
            throttle: Throttle::default(),
            turn: 0,
            worked: 0,
            backlog_bytes: 0,
            unfinished_bytes: 0,
            unfinished_max: usize::MAX,
            too_slow_frame,
            limits,
            now: Millis(0),
            open: 0,
            counters: Counters::default(),
        }
    }

    /// Takes over a connected socket as a stream. The caller's descriptor may be closed afterwards.
    ///
    /// # Errors
    /// `ErrorKind::QuotaExceeded` when all slots are taken; otherwise the error of the kernel.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn open_stream<'a>(
        &mut self,
        socket: impl Into<R::Socket<'a>>,
    ) -> io::Result<ConnKey> {
        let slot = self.free_slot().ok_or(io::ErrorKind::QuotaExceeded)?;
        if let Err(error) = self.ring.install(slot, socket.into()) {
            self.free.push(slot, &mut self.conns[slot as usize]);
            return Err(error);
        }
        let conn = &mut self.conns[slot as usize];
        conn.start(self.now, Phase::Stream);
        self.streams += 1;
        Ok(ConnKey { slot, generation: conn.generation })
    }

    /// Takes over a connected socket as a WebSocket.
    ///
    /// # Errors
    /// As [`open_stream`](Self::open_stream).
    #[cfg(test)]
    pub(crate) fn open<'a>(&mut self, socket: impl Into<R::Socket<'a>>) -> io::Result<ConnKey> {
        let key = self.open_stream(socket)?;
        self.upgrade(key);
        Ok(key)
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop(&self.conns) {
            return Some(slot);
        }
        let slot = u32::try_from(self.conns.len()).ok()?;
        if slot >= self.ring.slots() {
            return None;
        }
        self.conns.push(Conn::default());
        Some(slot)
    }

    /// Bounds the WebSockets. The slots beyond them are left for streams.
    pub(crate) const fn limit_websockets(&mut self, most: usize) {
        self.websockets_max = most;
    }

    /// The number of streams that could become WebSockets.
    #[must_use]
    pub(crate) fn free_places(&self) -> usize {
        self.websockets_max.saturating_sub(self.websockets())
    }

    /// The number of slots that WebSockets use, open or not.
    fn websockets(&self) -> usize {
        self.conns.len() - self.free.len() - self.streams - self.accepting.len()
    }

    /// Takes the bytes that arrived before a stream became a WebSocket. Called at most once, right
    /// after [`upgrade`](Self::upgrade).
    pub(crate) fn feed(&mut self, key: ConnKey, bytes: &mut [u8], host: &mut impl Host<R>) {
        self.take(key, bytes, host);
    }

    /// Charges a connection with work, in units of about a microsecond, beside the cost of its
    /// messages by number and size. A connection past its share of a turn is read from more slowly.
    pub(crate) fn charge(&mut self, key: ConnKey, units: u32) {
        self.worked = self.worked.saturating_add(units);
        if self.throttle.has(key) {
            self.throttle.charge(key, units);
            return;
        }
        let turn = self.turn;
        let Some(conn) = self.conn_mut(key) else { return };
        let debt = conn.spend(turn, units);
        if debt > 0 && conn.is_alive() {
            self.throttle.add(key, debt.into());
        }
    }

    /// Announces an answer to a connection, which comes in this turn or a later one and may have
    /// many bytes. [`answered`](Self::answered) has to follow. A connection may wait for a few such
    /// answers; at that number, nothing is read from it.
    pub(crate) fn expect_answer(&mut self, key: ConnKey) {
        if self.throttle.expect(key) && !self.throttle.has(key) {
            self.throttle.add(key, 0);
        }
    }

    /// Records that an announced answer has come.
    pub(crate) fn answered(&mut self, key: ConnKey) {
        self.throttle.answered(key);
    }

    /// Whether throttled connections need another turn within a millisecond.
    #[must_use]
    pub const fn throttling(&self) -> bool {
        self.throttle.waits()
    }

    /// Whether the connection is open, and not closing.
    #[must_use]
    pub fn is_open(&self, key: ConnKey) -> bool {
        self.conn(key).is_some_and(|conn| conn.phase == Phase::Open)
    }

    /// The number of open connections, without closing ones.
    #[must_use]
    pub const fn open_connections(&self) -> usize {
        self.open
    }

    /// Whether no slot is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.conns.len()
    }

    /// Whether no slot is in use by a WebSocket.
    #[must_use]
    pub(crate) fn has_no_websockets(&self) -> bool {
        self.websockets() == 0
    }

    /// All open connections.
    pub fn keys(&self) -> impl Iterator<Item = ConnKey> {
        let open = self.conns.iter().zip(0..).filter(|(conn, _)| conn.phase == Phase::Open);
        open.map(|(conn, slot)| ConnKey { slot, generation: conn.generation })
    }

    /// The number of slots that were ever in use: `0..slots_used()`.
    #[must_use]
    pub(crate) fn slots_used(&self) -> u32 {
        number(self.conns.len())
    }

    /// The open connection in this slot. `None` if there is none, or it is closing.
    #[must_use]
    pub(crate) fn key_of(&self, slot: u32) -> Option<ConnKey> {
        let conn = self.conns.get(slot as usize).filter(|conn| conn.phase == Phase::Open)?;
        Some(ConnKey { slot, generation: conn.generation })
    }

    /// The time since anything has come from this connection; zero if it has ended.
    #[must_use]
    pub(crate) fn idle(&self, key: ConnKey) -> Duration {
        self.conn(key).map_or(Duration::ZERO, |conn| self.now.since(conn.last_seen()))
    }

    /// The counts of events so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The bytes that are held for slow readers.
    #[must_use]
    pub const fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Sets other bounds on backlogs. The bound of a connection holds for what it is owed from now
    /// on, that of the shard at the next flush.
    pub(crate) const fn limit_backlogs(&mut self, limits: BacklogLimits) {
        self.limits = limits;
    }

    /// The limits of the backlogs as they are now.
    #[must_use]
    pub(crate) const fn backlog_limits(&self) -> BacklogLimits {
        self.limits
    }

    /// Bounds the bytes of unfinished messages, over all connections.
    pub(crate) const fn limit_unfinished(&mut self, bytes: usize) {
        self.unfinished_max = bytes;
    }

    /// The ring below.
    #[cfg(feature = "testing")]
    #[must_use]
    pub const fn ring(&self) -> &R {
        &self.ring
    }

    /// The ring below, for a test to change its behaviour.
    #[cfg(feature = "testing")]
    pub const fn ring_mut(&mut self) -> &mut R {
        &mut self.ring
    }

    /// Closes a connection: it is sent `last` (with a Close frame), and ends as soon as the peer
    /// agrees, or after a few seconds. The host gets no further message of it.
    pub(crate) fn close(&mut self, key: ConnKey, last: &Frame, why: Ended) {
        if !self.is_open(key) {
            return;
        }
        self.owe(key, last);
        self.start_closing(key, why);
    }

    fn start_closing(&mut self, key: ConnKey, why: Ended) {
        if let Some(conn) = self.conn_mut(key) {
            conn.phase = Phase::Closing;
            self.open -= 1;
            self.closed.push_back((key, why));
            self.closing.push_back((key, self.now + CLOSE_TIMEOUT));
        }
    }

    /// Ends a connection at once, because its socket is of no use any more.
    fn kill(&mut self, key: ConnKey, why: Ended) {
        let finishes = self.finishing.contains(&key.slot);
        let Some(conn) = self.conn_mut(key) else { return };
        let is_stream = conn.phase == Phase::Stream || finishes;
        let was_open = match conn.phase {
            Phase::Open => true,
            Phase::Stream | Phase::Closing => false,
            Phase::Free | Phase::Accepting | Phase::Dead => return,
        };
        conn.phase = Phase::Dead;
        conn.end = if is_stream { End::InOrder } else { End::of(why) };
        let unfinished = std::mem::take(&mut conn.reader).held();
        let backlog = conn.backlog.take();
        let pending = conn.is_pending();
        self.backlog_bytes -= backlog.map_or(0, |backlog| backlog.bytes());
        self.unfinished_bytes -= unfinished;
        self.throttle.remove(key);
        self.discarded_kib.remove(&key.slot);
        if was_open {
            self.open -= 1;
            self.closed.push_back((key, why));
        }
        if is_stream {
            self.finishing.remove(&key.slot);
            self.stream_closed(key);
        }
        if pending {
            self.to_hang_up.push_back(key);
        } else {
            self.to_end.push_back(key);
        }
    }

    /// Records the end of an operation. The last one of a dead connection lets its slot be
    /// released. Returns whether the connection was dead; the operation's result then means
    /// nothing.
    fn operation_ended(&mut self, slot: u32) -> bool {
        let conn = &self.conns[slot as usize];
        let dead = conn.phase == Phase::Dead;
        if dead && !conn.is_pending() {
            self.to_end.push_back(ConnKey { slot, generation: conn.generation });
        }
        dead
    }

    /// The next connection that has ended, with the reason.
    pub(crate) fn next_closed(&mut self) -> Option<(ConnKey, Ended)> {
        self.closed.pop_front()
    }

    /// Keeps the slot of an ended connection from being used again until
    /// [`release_slot`](Self::release_slot), for a host that has not finished with it.
    pub(crate) fn retain_slot(&mut self, slot: u32) {
        self.retained_slots.insert(slot);
    }

    /// Releases a slot that the host has retained.
    pub(crate) fn release_slot(&mut self, slot: u32) {
        self.retained_slots.remove(&slot);
    }

    /// Begins a turn. All events until the next turn happen at this time.
    pub(crate) const fn begin_turn(&mut self, now: Millis) {
        self.now = now;
        self.turn = self.turn.wrapping_add(1);
        self.worked = 0;
    }

    /// Takes completions and handles them, and receives from the connections whose sockets are
    /// readable. Input that is not received waits in sockets, and TCP slows the peers down.
    pub(crate) fn poll(&mut self, intake: Intake, host: &mut impl Host<R>) {
        if self.owed.stalled() {
            return;
        }
        self.end_blocked_floods();
        self.reap();
        self.handle_completions();
        let websockets = intake != Intake::Nothing && !self.throttle.is_full();
        self.receive(websockets, host);
        if intake == Intake::All {
            self.read_throttled(host);
        }
        self.expire_closing();
    }

    /// Takes completions from the ring, and returns their number. Those of receives are kept apart,
    /// because the bytes of WebSockets wait while nothing is read; nobody wants those of the dead.
    fn reap(&mut self) -> usize {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.ring.reap(&mut scratch);
        let reaped = scratch.len();
        for completion in scratch.drain(..) {
            if completion.op != Op::Receive {
                self.completed.push_back(completion);
                continue;
            }
            match self.conn(completion.key).map(|conn| conn.phase) {
                Some(Phase::Stream) => self.stream_received(&completion),
                Some(Phase::Open | Phase::Closing) => self.received.push_back(completion),
                _ => self.receive_unread(&completion),
            }
        }
        self.scratch = scratch;
        reaped
    }

    fn handle_completions(&mut self) {
        for _ in 0..COMPLETIONS_PER_TURN {
            if self.closed.len() >= ENDS_PER_TURN {
                return;
            }
            let Some(completion) = self.completed.pop_front() else { return };
            match completion.op {
                Op::Readable => self.became_readable(&completion),
                Op::SendNow => self.sent_short(completion),
                Op::Send => self.sent(completion),
                Op::HalfClose => self.half_closed(&completion),
                Op::AskUnsent => self.handle_unsent(completion),
                Op::Accept => self.accepted(&completion),
                Op::Receive | Op::HangUp | Op::Reset | Op::AcceptAll => {}
            }
        }
    }

    fn expire_closing(&mut self) {
        while let Some(&(key, deadline)) = self.closing.front() {
            if deadline > self.now {
                break;
            }
            self.closing.pop_front();
            self.close_timed_out(key);
        }
    }

    /// Whether another turn has something to do without waiting for the kernel.
    #[must_use]
    pub(crate) fn has_work(&self) -> bool {
        self.owed.stalled()
            || !self.completed.is_empty()
            || !self.stream_events.is_empty()
            || !self.to_accept.is_empty()
            || !self.to_read.is_empty()
            || !self.to_stop_accepting.is_empty()
            || !self.received.is_empty()
            || !self.to_wait.is_empty()
            || !self.to_receive.is_empty()
            || self.throttle.has_work()
            || !self.to_send.is_empty()
            || !self.to_hang_up.is_empty()
            || !self.to_half_close.is_empty()
            || !self.to_end.is_empty()
            || !self.to_release.is_empty()
    }

    /// Gives back the spare memory that a burst has left in lists that are empty between turns.
    pub(crate) fn trim(&mut self) {
        self.completed.trim();
        self.received.trim();
        self.scratch.trim();
        self.trim_streams();
        self.to_wait.trim();
        self.to_receive.trim();
        self.throttle.trim();
        if self.discarded_kib.is_empty() {
            self.discarded_kib = HashMap::new();
        }
        self.to_send.trim();
        self.to_hang_up.trim();
        self.to_half_close.trim();
        self.to_end.trim();
        self.to_release.trim();
        self.closing.trim();
        self.closed.trim();
        self.owed.trim();
        self.ring.trim();
    }

    /// Bytes that its lists and tables hold, in use or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        self.conns.room()
            + self.completed.room()
            + self.received.room()
            + self.scratch.room()
            + self.to_wait.room()
            + self.to_receive.room()
            + self.throttle.held()
            + self.to_send.room()
            + self.to_hang_up.room()
            + self.to_half_close.room()
            + self.to_end.room()
            + self.to_release.room()
            + self.closing.room()
            + self.closed.room()
            + self.owed.room()
    }

    /// Owes a connection a frame of its own.
    pub(crate) fn owe(&mut self, key: ConnKey, frame: &Frame) {
        if self.is_open(key) {
            let staged = self.stage(frame);
            self.owe_slot(key.slot, staged);
        }
    }

    /// Stages a frame for any number of [`owe_staged`](Self::owe_staged) in this turn.
    pub(crate) fn stage(&mut self, frame: &Frame) -> Staged {
        self.ring.stage(frame.bytes().clone())
    }

    /// Owes the connection in this slot a frame that others are owed too.
    pub(crate) fn owe_staged(&mut self, slot: u32, staged: Staged) {
        if self.conns.get(slot as usize).is_some_and(|conn| conn.phase == Phase::Open) {
            self.owe_slot(slot, staged);
        }
    }

    fn owe_slot(&mut self, slot: u32, staged: Staged) {
        self.owed.owe(&mut self.conns[slot as usize], slot, staged);
    }

    fn conn(&self, key: ConnKey) -> Option<&Conn> {
        self.conns.get(key.slot as usize).filter(|conn| conn.generation == key.generation)
    }

    fn conn_mut(&mut self, key: ConnKey) -> Option<&mut Conn> {
        self.conns.get_mut(key.slot as usize).filter(|conn| conn.generation == key.generation)
    }
}

#[cfg(test)]
mod tests;
