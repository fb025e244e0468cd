//! How connections stay, and how they end.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::{HEARD_NS, Phase, Subscribers, ticks};
use crate::clock::{NS_PER_S, now_ns};
use crate::plan::Scenario;
use crate::shared::{Count, Stage};
use crate::wire::words;

/// How often connections are looked after.
const WALK_NS: u64 = NS_PER_S / 10;
/// Each one so often in the time after which it pings: pings are late by a quarter at most.
const WALKS_PER_PING: u64 = 4;
/// How long a connection that said goodbye waits for the server to close.
const LEAVING_NS: u64 = 3 * NS_PER_S;
const CANCELED: i32 = -Errno::CANCELED.raw_os_error();
/// The kernel gave up for now: without a buffer, or under pressure. Not the peer's doing.
const FOR_NOW: [i32; 2] = [-Errno::NOBUFS.raw_os_error(), -Errno::AGAIN.raw_os_error()];

impl Subscribers<'_> {
    /// A receive has had its last completion.
    pub(super) fn receive_ended(&mut self, slot: u32, result: i32) {
        let conn = &mut self.conns[slot as usize];
        conn.receiving = false;
        let stopped_reading = conn.slow && self.stage < Stage::Drain && result == CANCELED;
        if result > 0 || FOR_NOW.contains(&result) {
            self.receive(slot);
        } else if !stopped_reading {
            self.ended(slot, result);
        }
    }

    /// A send is over.
    pub(super) fn sent(&mut self, slot: u32, result: i32) {
        let conn = &mut self.conns[slot as usize];
        conn.sending = false;
        let next = conn.unsent.pop_front();
        if result < 0 && result != CANCELED && conn.phase == Phase::Upgrading {
            // The socket tells its error once, and it has told the send.
            self.fail(slot, &format!("connect: {}", words(result)));
            return;
        }
        match next {
            Some(bytes) if result >= 0 => self.send(slot, bytes),
            // The receive tells what became of the connection.
            _ => self.release_if_over(slot),
        }
    }

    /// The connection is over: by our doing or not.
    fn ended(&mut self, slot: u32, result: i32) {
        let conn = &mut self.conns[slot as usize];
        let why =
            if result == 0 { "the server ended the stream".to_owned() } else { words(result) };
        match conn.phase {
            phase if phase.is_opening() => {
                self.fail(slot, &format!("{why} in the handshake ({phase:?})"));
                return;
            }
            Phase::Subscribed => {
                conn.phase = Phase::Cut;
                self.tally.take(Count::Held, 1);
                if self.conns[slot as usize].slow {
                    self.tally.add(Count::SlowClosed, 1);
                } else {
                    self.tally.add(Count::Cut, 1);
                    self.shared.problem(format!("cut: {why}"));
                }
            }
            _ => {}
        }
        self.end_operations(slot);
        self.release_if_over(slot);
    }

    /// A handshake comes to nothing.
    pub(super) fn fail(&mut self, slot: u32, why: &str) {
        let conn = &mut self.conns[slot as usize];
        if conn.phase.is_opening() {
            conn.phase = Phase::Failed;
            self.in_flight -= 1;
            self.tally.add(Count::Failed, 1);
            self.shared.problem(why.to_owned());
        }
        self.end_operations(slot);
        self.release_if_over(slot);
    }

    fn end_operations(&mut self, slot: u32) {
        let conn = &self.conns[slot as usize];
        if conn.receiving || conn.sending {
            self.wire.hang_up(conn.key(slot));
        }
    }

    /// Frees the slot when nothing is pending any more; those that left may come back.
    fn release_if_over(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        let over = matches!(conn.phase, Phase::Leaving | Phase::Cut | Phase::Failed);
        if !over || conn.receiving || conn.sending || conn.released {
            return;
        }
        conn.released = true;
        conn.partial = Vec::new();
        conn.unsent.clear();
        self.wire.release(slot);
        if conn.phase == Phase::Leaving {
            conn.phase = Phase::Free;
            // Those that were all dropped at once want to be back from that moment on.
            let dropped = self.plan.scenario == Scenario::Reconnect;
            let since_ns = if dropped { conn.since_ns } else { now_ns() };
            self.again.push_back((slot, since_ns));
        }
    }

    /// Says goodbye; the server closes.
    pub(super) fn leave(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        conn.phase = Phase::Leaving;
        conn.since_ns = self.now_ns;
        self.tally.take(Count::Held, 1);
        let close = self.words.close.clone();
        self.send(slot, close);
    }

    /// Lets those leave whose turn it is, or drops all when the conductor says so.
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
            // From now on each leaves when it is subscribed; the first ones are already.
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
        if paced && self.stage == Stage::Run { self.turnover.due_ns() } else { u64::MAX }
    }

    /// Ends all connections at once, without goodbye.
    fn drop_all(&mut self, at_ns: u64) {
        for slot in 0..self.conns.len() as u32 {
            let conn = &mut self.conns[slot as usize];
            if conn.phase == Phase::Subscribed {
                conn.phase = Phase::Leaving;
                conn.since_ns = at_ns;
                self.tally.take(Count::Held, 1);
                self.end_operations(slot);
            }
        }
    }

    /// Some of the subscribers stop reading.
    pub(super) fn stop_reading(&mut self) {
        for slot in 0..self.conns.len() as u32 {
            let slow = self.plan.is_slow(self.index_of(slot));
            if slow && self.conns[slot as usize].phase == Phase::Subscribed {
                self.conns[slot as usize].slow = true;
                self.tally.add(Count::Slow, 1);
                self.end_operations(slot);
            }
        }
    }

    /// They read again, to see whether the server has closed them.
    pub(super) fn read_again(&mut self) {
        for slot in 0..self.conns.len() as u32 {
            let conn = &self.conns[slot as usize];
            if conn.slow && conn.phase == Phase::Subscribed {
                self.receive(slot);
            }
        }
    }

    /// Looks after some of the connections: pings the silent, ends those whose server does not.
    pub(super) fn walk_due(&mut self) {
        let (next, at_ns) = self.walk;
        let size = self.conns.len() as u32;
        if self.now_ns < at_ns || size == 0 {
            return;
        }
        let around_ns = (self.ping_after_ns / WALKS_PER_PING).clamp(WALK_NS, 10 * NS_PER_S);
        let steps = (u64::from(size) * WALK_NS).div_ceil(around_ns) as u32;
        for step in 0..steps.min(size) {
            self.look_after((next + step) % size);
        }
        self.walk = ((next + steps) % size, self.now_ns + WALK_NS);
    }

    fn look_after(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        let silence_ns = u64::from(ticks(self.now_ns).wrapping_sub(conn.heard)) * HEARD_NS;
        match conn.phase {
            Phase::Subscribed if silence_ns >= self.ping_after_ns && !conn.slow => {
                conn.heard = ticks(self.now_ns);
                self.tally.add(Count::Pings, 1);
                let ping = self.words.ping.clone();
                self.send(slot, ping);
            }
            Phase::Leaving if self.now_ns.saturating_sub(conn.since_ns) > LEAVING_NS => {
                self.end_operations(slot);
            }
            _ => {}
        }
    }
}
