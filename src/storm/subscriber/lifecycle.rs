//! The life of connections after their handshake: pings, leaving, and their end.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Subscribers;
use super::conn::{HEARD_NS, Phase, ticks};
use crate::clock::{NS_PER_S, now_ns};
use crate::counters::Counter;
use crate::error_text::errno_text;
use crate::scenario::Scenario;
use crate::shared::StormStage;

/// The interval at which the silence of some connections is checked.
const WALK_NS: u64 = NS_PER_S / 10;
/// The checks of each connection within the silence after which it pings, so that pings are late by
/// a quarter of it at most.
const WALKS_PER_PING: u64 = 4;
/// The time for which a connection that has sent a Close waits for the end of the stream.
const LEAVING_NS: u64 = 3 * NS_PER_S;
const CANCELED: i32 = -Errno::CANCELED.raw_os_error();
/// Errors with which the kernel ends a receive for now, without the peer: it had no buffer, or was
/// under memory pressure.
const TRANSIENT: [i32; 2] = [-Errno::NOBUFS.raw_os_error(), -Errno::AGAIN.raw_os_error()];

impl Subscribers<'_> {
    /// Handles the last completion of a receive.
    pub(super) fn receive_ended(&mut self, slot: u32, result: i32) {
        let conn = &mut self.conns[slot as usize];
        conn.receiving = false;
        let stopped_reading = conn.slow && self.stage < StormStage::Drain && result == CANCELED;
        if result > 0 || TRANSIENT.contains(&result) {
            self.receive(slot);
        } else if !stopped_reading {
            self.ended(slot, result);
        }
    }

    /// Handles the end of a send.
    pub(super) fn sent(&mut self, slot: u32, result: i32) {
        let conn = &mut self.conns[slot as usize];
        conn.sending = false;
        let next = conn.unsent.pop_front();
        if result < 0 && result != CANCELED && conn.phase == Phase::Upgrading {
            // A socket tells its error once, and it has told the send.
            self.fail(slot, &format!("connect: {}", errno_text(result)));
            return;
        }
        match next {
            Some(bytes) if result >= 0 => self.send(slot, bytes),
            // The receive tells how the connection ended.
            _ => self.release_if_over(slot),
        }
    }

    /// Handles the end of a connection, whoever ended it.
    fn ended(&mut self, slot: u32, result: i32) {
        let conn = &mut self.conns[slot as usize];
        let why =
            if result == 0 { "the server ended the stream".to_owned() } else { errno_text(result) };
        match conn.phase {
            phase if phase.is_opening() => {
                self.fail(slot, &format!("{why} in the handshake ({phase:?})"));
                return;
            }
            Phase::Subscribed => self.cut(slot, &why),
            _ => {}
        }
        self.end_operations(slot);
        self.release_if_over(slot);
    }

    /// Notes that a subscribed connection was ended. It returns if the plan says so.
    fn cut(&mut self, slot: u32, why: &str) {
        self.let_go(slot);
        let conn = &mut self.conns[slot as usize];
        conn.phase = Phase::Cut;
        if conn.slow {
            self.tally.add(Counter::SlowClosed, 1);
            return;
        }
        self.tally.add(Counter::Cut, 1);
        self.shared.problem(format!("cut: {why}"));
        self.exempt_recent_whispers(slot);
        let conn = &mut self.conns[slot as usize];
        if self.plan.failover {
            conn.phase = Phase::MovingOn;
            conn.away = true;
            conn.cuts += 1;
            conn.since_ns = self.now_ns;
            conn.turn = conn.turn.wrapping_add(1);
            self.tally.add(Counter::Away, 1);
        }
    }

    /// Ends a connection whose handshake failed.
    pub(super) fn fail(&mut self, slot: u32, why: &str) {
        let conn = &mut self.conns[slot as usize];
        if conn.phase.is_opening() {
            self.in_flight -= 1;
            self.shared.problem(why.to_owned());
            self.moves_on(slot);
        }
        self.end_operations(slot);
        self.release_if_over(slot);
    }

    fn end_operations(&mut self, slot: u32) {
        let conn = &self.conns[slot as usize];
        if conn.receiving || conn.sending {
            self.ring.hang_up(conn.key(slot));
        }
    }

    /// Frees the slot of an ended connection when nothing is pending any more. A connection that
    /// left or moves on is opened again.
    fn release_if_over(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if !conn.phase.is_over() || conn.receiving || conn.sending || conn.released {
            return;
        }
        conn.released = true;
        conn.partial = Vec::new();
        conn.unsent.clear();
        self.ring.release(slot);
        match conn.phase {
            Phase::Leaving => {
                // Connections that were dropped at once are late from that moment on.
                let dropped = self.plan.scenario == Scenario::Reconnect;
                conn.since_ns = if dropped { conn.since_ns } else { now_ns() };
                self.return_later(slot);
            }
            Phase::MovingOn => self.return_later(slot),
            _ => {}
        }
    }

    /// Sends a Close. The server then ends the stream.
    pub(super) fn leave(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        conn.phase = Phase::Leaving;
        conn.turn = conn.turn.wrapping_add(1);
        conn.since_ns = self.now_ns;
        self.let_go(slot);
        let close = self.frames.close.clone();
        self.send(slot, close);
    }

    /// Has connections leave that are due, or drops all if the conductor has said so.
    pub(super) fn leave_due(&mut self) {
        let round = self.shared.round.load(Ordering::Acquire);
        if round != self.round {
            self.round = round;
            self.drop_all(self.shared.round_at_ns.load(Ordering::Acquire));
        }
        if !self.running() || self.plan.scenario != Scenario::Churn {
            return;
        }
        if self.plan.turnover <= 0.0 {
            // From now on each leaves when it is subscribed, and these are subscribed already.
            while self.leaver < self.conns.len() as u32 {
                self.leave_if_subscribed(self.leaver);
                self.leaver += 1;
            }
            return;
        }
        while self.turnover.due_ns() <= self.now_ns {
            self.turnover.advance();
            self.leaver = (self.leaver + 1) % self.conns.len().max(1) as u32;
            self.leave_if_subscribed(self.leaver);
        }
    }

    fn leave_if_subscribed(&mut self, slot: u32) {
        if self.conns[slot as usize].phase == Phase::Subscribed {
            self.leave(slot);
        }
    }

    /// The time at which the next connection leaves.
    pub(super) fn next_leave(&self) -> u64 {
        let paced = self.plan.scenario == Scenario::Churn && self.plan.turnover > 0.0;
        if paced && self.stage == StormStage::Run { self.turnover.due_ns() } else { u64::MAX }
    }

    /// Ends all connections at once, without a Close.
    fn drop_all(&mut self, at_ns: u64) {
        for slot in 0..self.conns.len() as u32 {
            let conn = &mut self.conns[slot as usize];
            if conn.phase == Phase::Subscribed {
                conn.phase = Phase::Leaving;
                conn.turn = conn.turn.wrapping_add(1);
                conn.since_ns = at_ns;
                self.let_go(slot);
                self.end_operations(slot);
            }
        }
    }

    /// Has the slow share of the subscribers stop reading.
    pub(super) fn stop_reading(&mut self) {
        for slot in 0..self.conns.len() as u32 {
            let slow = self.plan.is_slow(self.index_of(slot));
            if slow && self.conns[slot as usize].phase == Phase::Subscribed {
                self.conns[slot as usize].slow = true;
                self.tally.add(Counter::Slow, 1);
                self.end_operations(slot);
            }
        }
    }

    /// Has the slow subscribers read again, to see whether the server has closed them.
    pub(super) fn read_again(&mut self) {
        for slot in 0..self.conns.len() as u32 {
            let conn = &self.conns[slot as usize];
            if conn.slow && conn.phase == Phase::Subscribed {
                self.receive(slot);
            }
        }
    }

    /// Checks some of the connections: pings silent ones, and ends those that wait in vain for the
    /// server to end the stream.
    pub(super) fn walk_due(&mut self) {
        let (next, at_ns) = self.walk;
        let size = self.conns.len() as u32;
        if self.now_ns < at_ns || size == 0 {
            return;
        }
        let around_ns = (self.ping_after_ns / WALKS_PER_PING).clamp(WALK_NS, 10 * NS_PER_S);
        let steps = (u64::from(size) * WALK_NS).div_ceil(around_ns) as u32;
        for step in 0..steps.min(size) {
            self.check_silence((next + step) % size);
        }
        self.walk = ((next + steps) % size, self.now_ns + WALK_NS);
    }

    fn check_silence(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        let silence_ns = u64::from(ticks(self.now_ns).wrapping_sub(conn.heard)) * HEARD_NS;
        match conn.phase {
            Phase::Subscribed if silence_ns >= self.ping_after_ns && !conn.slow => {
                conn.heard = ticks(self.now_ns);
                self.tally.add(Counter::Pings, 1);
                let ping = self.frames.ping.clone();
                self.send(slot, ping);
            }
            Phase::Leaving if self.now_ns.saturating_sub(conn.since_ns) > LEAVING_NS => {
                self.end_operations(slot);
            }
            _ => {}
        }
    }
}
