//! The sending side: from frames in the owed to the sockets of the connections that are owed
//! them. Bytes that do not fit into a socket go to the connection's backlog.

use std::time::Duration;

use bytes::BytesMut;

use crate::id::ConnKey;
use crate::ring::{Completion, Op, QueueFull, Ring, SendRefused};

use super::backlog::Backlog;
use super::conn::{Conn, NOTHING, Phase, Receiving};
use super::{Ended, Plane};

/// Several frames for one connection are joined by a copy up to this size. Beyond it they go
/// through the backlog, slice by slice.
const JOIN_BYTES: usize = 256 * 1024;

/// The number of times that a flush lets the kernel work off completions before it leaves the rest
/// to the next turn.
const SUBMIT_ATTEMPTS: usize = 8;

/// The most sends of a flush that sleeps in the system call that submits them. The system call that
/// this saves is nothing beside more sends, and other shards take one that is about to sleep for
/// asleep: they would write its eventfd for what they send it during the submission.
const SENDS_BEFORE_SLEEP: usize = 64;

impl<R: Ring> Plane<R> {
    /// Sends what was owed, waits for more to receive, and releases the slots of dead connections.
    ///
    /// If the kernel takes nothing, the lists stay as they are and the next flush goes on. Until
    /// then [`poll`](Plane::poll) does nothing and nothing may be owed.
    pub(crate) fn flush(&mut self) {
        self.flush_and_sleep(None);
    }

    /// Flushes. If nothing is left to do behind the sends, the system call that submits them also
    /// sleeps ([`Ring::submit_and_wait`]), for at most `longest`. Returns whether it did.
    pub(crate) fn flush_and_sleep(&mut self, longest: Option<Duration>) -> bool {
        if self.send_owed().is_err() || !self.start_operations() || !self.start_ends() {
            self.owed.stall();
            return false;
        }
        let longest = longest.filter(|_| self.is_done_once_sent());
        let slept = longest.is_some_and(|longest| self.ring.submit_and_wait(longest));
        if !slept && !self.submit() {
            self.owed.stall();
            return false;
        }
        let reaped = self.reap_short_sends();
        self.finish_flush();
        debug_assert!(!slept || reaped > 0 || !self.has_work(), "slept with work left to do");
        slept
    }

    /// Whether nothing is left to do once everything that is queued is sent, and sent as a whole.
    /// The completions of the other sends end a sleep.
    fn is_done_once_sent(&self) -> bool {
        let sends = self.owed.slots();
        let is_open = |slot: &u32| {
            let conn = self.conns.get(*slot as usize);
            conn.is_some_and(|conn| matches!(conn.phase, Phase::Open | Phase::Stream))
        };
        sends.len() <= SENDS_BEFORE_SLEEP
            && !self.has_work()
            && self.closed.is_empty()
            && self.backlog_bytes <= self.limits.shard
            && sends.iter().all(is_open)
    }

    /// Sleeps until the ring has a completion or is woken, for at most `longest`.
    pub(crate) fn sleep(&mut self, longest: Duration) {
        // Nothing is queued that the kernel could fail to take.
        self.ring.submit_and_wait(longest);
    }

    /// Handles the end of the sends of a flush.
    fn finish_flush(&mut self) {
        self.shed();
        let slots = self.owed.finish();
        for &slot in &slots {
            let conn = &mut self.conns[slot as usize];
            (conn.owed_first, conn.owed_last) = (NOTHING, NOTHING);
            let key = ConnKey { slot, generation: conn.generation };
            self.end_when_sent(key);
        }
        self.owed.reuse(slots);
        self.ring.clear_staged();
        self.release_dead();
    }

    /// Whether the last flush could not be finished.
    #[must_use]
    pub const fn stalled(&self) -> bool {
        self.owed.stalled()
    }

    fn send_owed(&mut self) -> Result<(), QueueFull> {
        while let Some(slot) = self.owed.next() {
            if self.send_to(slot).is_err() {
                if !self.submit() {
                    return Err(QueueFull);
                }
                self.send_to(slot)?;
            }
            self.owed.advance();
        }
        Ok(())
    }

    /// Queues the one send of a connection in this flush.
    fn send_to(&mut self, slot: u32) -> Result<(), QueueFull> {
        let conn = &self.conns[slot as usize];
        if !conn.is_alive() {
            return Ok(());
        }
        let key = ConnKey { slot, generation: conn.generation };
        let mut owed = self.owed.owed(conn);
        let (Some(first), second) = (owed.next(), owed.next()) else { return Ok(()) };
        drop(owed);
        if conn.backlog.is_some() {
            self.owed_to_backlog(key);
            return Ok(());
        }
        if second.is_none() {
            self.ring.send_now(key, first)?;
            self.counters.sends += 1;
            self.counters.sent_bytes += self.ring.staged(first).len() as u64;
            return Ok(());
        }
        let frames = || self.owed.owed(&self.conns[slot as usize]);
        let total: usize = frames().map(|frame| self.ring.staged(frame).len()).sum();
        if total > JOIN_BYTES {
            self.owed_to_backlog(key);
            return Ok(());
        }
        let mut joined = BytesMut::with_capacity(total);
        frames().for_each(|frame| joined.extend_from_slice(self.ring.staged(frame)));
        let joined = self.ring.stage(joined.freeze());
        self.owed.join(&mut self.conns[slot as usize], joined);
        self.ring.send_now(key, joined)?;
        self.counters.sends += 1;
        self.counters.sent_bytes += total as u64;
        Ok(())
    }

    fn owed_to_backlog(&mut self, key: ConnKey) {
        let owed: Vec<_> = self.owed.owed(&self.conns[key.slot as usize]).collect();
        for frame in owed {
            let bytes = self.ring.staged(frame).clone();
            self.keep_back(key, bytes);
        }
    }

    fn keep_back(&mut self, key: ConnKey, bytes: bytes::Bytes) {
        let limits = self.limits;
        let Some(conn) = self.conn_mut(key) else { return };
        if !conn.is_alive() {
            return;
        }
        let len = bytes.len();
        let idle = conn.backlog.is_none();
        let is_open = conn.phase == Phase::Open;
        let backlog = conn.backlog.get_or_insert_with(Box::<Backlog>::default);
        if !backlog.push(bytes, limits.connection) {
            return;
        }
        // The owner of a stream waits until it is unblocked.
        let over = backlog.is_over(limits.connection) && is_open;
        self.backlog_bytes += len;
        if idle {
            self.to_send.push_back(key);
            self.stream_blocked(key);
        }
        if over {
            self.too_slow(key);
        }
    }

    /// Closes a connection whose backlog is over a bound. All frames that can be dropped are
    /// dropped; the error and the Close frame follow the one that is partly on the wire.
    pub(super) fn too_slow(&mut self, key: ConnKey) {
        let last = self.too_slow_frame.bytes().clone();
        let Some(conn) = self.conn_mut(key) else { return };
        let Some(backlog) = &mut conn.backlog else { return };
        let before = backlog.bytes();
        backlog.seal(last);
        let after = backlog.bytes();
        self.backlog_bytes = self.backlog_bytes - before + after;
        self.counters.too_slow += 1;
        self.start_closing(key, Ended::TooSlow);
    }

    /// Closes the slowest connections until the backlogs of the others fit into the shard's bound.
    /// Backlogs of closed connections are not counted, because no more of them can be dropped, and
    /// they have a deadline.
    fn shed(&mut self) {
        if self.backlog_bytes <= self.limits.shard {
            return;
        }
        let open = self.conns.iter().zip(0..).filter(|(conn, _)| conn.phase == Phase::Open);
        let mut slow: Vec<(usize, ConnKey)> = open
            .filter_map(|(conn, slot)| {
                let key = ConnKey { slot, generation: conn.generation };
                Some((conn.backlog.as_ref()?.bytes(), key))
            })
            .collect();
        slow.sort_unstable_by_key(|&(held, _)| held);
        let mut held: usize = slow.iter().map(|&(held, _)| held).sum();
        while held > self.limits.shard
            && let Some((most, key)) = slow.pop()
        {
            held -= most;
            self.too_slow(key);
        }
    }

    /// Queues everything that is not a send of this turn. Returns `false` if the kernel took
    /// nothing.
    fn start_operations(&mut self) -> bool {
        if !self.start_accepts() {
            return false;
        }
        while let Some(&key) = self.to_hang_up.front() {
            if self.hang_up(key).is_ok() {
                self.to_hang_up.pop_front();
            } else if !self.submit() {
                return false;
            }
        }
        if !self.start_half_closes() {
            return false;
        }
        while let Some(&key) = self.to_wait.front() {
            let idle = |conn: &Conn| conn.is_alive() && conn.receiving == Receiving::Not;
            let waits = self.conn(key).is_some_and(idle) && !self.throttle.holds(key);
            if !waits || self.start_wait(key).is_ok() {
                self.to_wait.pop_front();
            } else if !self.submit() {
                return false;
            }
        }
        while let Some(key) = self.to_send.pop_front() {
            let Some(conn) = self.conn_mut(key).filter(|conn| !conn.sending) else { continue };
            let Some(bytes) = conn.backlog.as_mut().and_then(|backlog| backlog.start()) else {
                continue;
            };
            let queued = self.ring.send(key, bytes);
            if queued.is_ok() {
                self.conns[key.slot as usize].sending = true;
                continue;
            }
            // Nothing was sent, so the slice goes back to the backlog.
            if let Some(backlog) = &mut self.conns[key.slot as usize].backlog {
                backlog.sent(0);
            }
            if queued == Err(SendRefused::Pending) {
                // `sending` says that no send is pending. The connection's bytes could get out of
                // order.
                debug_assert!(false, "the ring has a send that the plane does not know of");
                self.kill(key, Ended::Failed(libc::EALREADY));
                continue;
            }
            self.to_send.push_front(key);
            if !self.submit() {
                return false;
            }
        }
        true
    }

    /// Has a connection wait for bytes. A stream, of which there are few and whose peer is about to
    /// send, receives by the same operation; a WebSocket, which idles, holds less of the kernel's
    /// memory by a poll.
    fn start_wait(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        let conn = &mut self.conns[key.slot as usize];
        if conn.phase == Phase::Stream {
            self.ring.wait_and_receive(key)?;
            conn.receiving = Receiving::Receives;
        } else {
            self.ring.await_readable(key)?;
            conn.receiving = Receiving::Waits;
        }
        Ok(())
    }

    /// Ends the pending operations of a connection. To end what has ended does no harm.
    fn hang_up(&mut self, key: ConnKey) -> Result<(), QueueFull> {
        let Some(conn) = self.conn(key) else { return Ok(()) };
        let receives = conn.receiving == Receiving::Receives;
        let others = conn.sending || conn.receiving == Receiving::Waits;
        if receives {
            self.ring.stop_receiving(key)?;
        }
        if others { self.ring.hang_up(key) } else { Ok(()) }
    }

    pub(super) fn submit(&mut self) -> bool {
        for _ in 0..SUBMIT_ATTEMPTS {
            if self.ring.submit() {
                return true;
            }
            // The kernel wants its completions taken first.
            self.reap();
        }
        false
    }

    /// Handles the completions of this flush's sends while their bytes are still staged. Returns
    /// the number of all completions that there were.
    fn reap_short_sends(&mut self) -> usize {
        let reaped = self.reap();
        let mut rest = std::mem::take(&mut self.completed);
        rest.retain(|completion| {
            match completion.op {
                Op::SendNow => self.sent_short(*completion),
                // Most dead connections leave in the flush that asks the kernel.
                Op::AskUnsent => self.handle_unsent(*completion),
                _ => return true,
            }
            false
        });
        self.completed = rest;
        reaped
    }

    /// Handles a send of this flush that did not send everything. The rest becomes backlog.
    pub(super) fn sent_short(&mut self, completion: Completion) {
        let key = completion.key;
        let Some(conn) = self.conn(key) else {
            self.counters.stale += 1;
            return;
        };
        let sent = match completion.result {
            sent @ 0.. => usize::try_from(sent).unwrap_or(0),
            result => match -result {
                // No room in the socket, or no memory for it now.
                libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM => 0,
                errno => return self.kill(key, Ended::Failed(errno)),
            },
        };
        let owed = self.owed.owed(conn).next();
        self.counters.short_sends += 1;
        let Some(frame) = owed else { return };
        let bytes = self.ring.staged(frame);
        if sent < bytes.len() {
            let rest = bytes.slice(sent..);
            self.keep_back(key, rest);
        }
    }

    /// Handles the end of a send of the backlog.
    pub(super) fn sent(&mut self, completion: Completion) {
        let key = completion.key;
        let Some(conn) = self.conn_mut(key) else {
            self.counters.stale += 1;
            return;
        };
        conn.sending = false;
        if self.operation_ended(key.slot) {
            return;
        }
        let sent = match completion.result {
            sent @ 0.. => usize::try_from(sent).unwrap_or(0),
            result => match -result {
                // Transient without MSG_DONTWAIT too (axboe/liburing#1601); ECANCELED comes with
                // our own hang-up.
                libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM | libc::ECANCELED => 0,
                errno => return self.kill(key, Ended::Failed(errno)),
            },
        };
        let Some(conn) = self.conn_mut(key) else { return };
        if let Some(backlog) = &mut conn.backlog {
            let before = backlog.bytes();
            backlog.sent(sent);
            let after = backlog.bytes();
            let empty = backlog.is_empty();
            if empty {
                conn.backlog = None;
            }
            self.backlog_bytes = self.backlog_bytes - before + after;
            if empty {
                self.stream_unblocked(key);
                self.end_when_sent(key);
            } else {
                self.to_send.push_back(key);
            }
        }
    }

    fn release_dead(&mut self) {
        // The host has to hear of the end of a connection before its slot is used again.
        if !self.closed.is_empty() || !self.stream_events.is_empty() {
            return;
        }
        let Self { to_release, retained_slots, ring, conns, free, .. } = self;
        to_release.retain(|&slot| {
            // With a full queue the rest leaves in the next turn.
            if retained_slots.contains(&slot) || ring.close(slot).is_err() {
                return true;
            }
            let conn = &mut conns[slot as usize];
            conn.end();
            free.push(slot, conn);
            false
        });
    }
}
