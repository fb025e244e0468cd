//! The opening of connections: by a ramp, all at once, or again.

use bytes::Bytes;

use super::Subscribers;
use super::conn::{Phase, ticks};
use crate::channel::ChannelAccess;
use crate::clock::{NS_PER_S, now_ns};
use crate::counters::Counter;
use crate::error_text::without_number;
use crate::shared::StormStage;
use crate::target::PresenceMember;

/// The most sockets that are opened per turn, so that the responses to others are read in time.
const OPENED_PER_TURN: u32 = 64;
/// The wait before the next handshake of a connection that failed at every address, as pusher-js
/// waits after a refusal.
const RETURN_NS: u64 = NS_PER_S;

impl Subscribers<'_> {
    /// Opens the connections that are due.
    pub(super) fn open_due(&mut self) {
        while self.waiting.front().is_some_and(|(due_ns, ..)| *due_ns <= self.now_ns) {
            self.returning.extend(self.waiting.pop_front().map(|(_, slot, since)| (slot, since)));
        }
        for _ in 0..OPENED_PER_TURN {
            if self.next_opening() > self.now_ns {
                return;
            }
            if let Some((slot, since_ns)) = self.returning.pop_front() {
                self.open(slot, since_ns);
            } else if let Some(slot) = self.unopened.next() {
                // Without a ramp a connection is due as soon as it may be opened.
                let ramped = self.plan.ramp > 0.0;
                let due = if ramped { self.ramp.due_ns() } else { now_ns() };
                self.ramp.advance();
                self.open(slot, due);
            }
        }
    }

    /// The time at which the next connection is to be opened.
    pub(super) fn next_opening(&self) -> u64 {
        // Connections that are away are awaited in a drain, too.
        let last = if self.plan.failover { StormStage::Drain } else { StormStage::Run };
        if self.in_flight >= self.in_flight_max || self.stage > last {
            return u64::MAX;
        }
        if !self.returning.is_empty() {
            return 0;
        }
        let unopened = !self.unopened.is_empty() && self.stage == StormStage::Open;
        let ramp_ns = if unopened { self.ramp.due_ns() } else { u64::MAX };
        self.waiting.front().map_or(ramp_ns, |(due_ns, ..)| ramp_ns.min(*due_ns))
    }

    fn open(&mut self, slot: u32, since_ns: u64) {
        let index = self.index_of(slot);
        let (target, sources) = (&self.plan.target, self.plan.sources);
        let source = |tried| sources.address(index.wrapping_add(tried));
        let conn = &mut self.conns[slot as usize];
        conn.since_ns = since_ns;
        let turn = self.plan.subscriber_turn(index).wrapping_add(conn.turn);
        if let Err(error) = self.ring.open(slot, target.address(turn), source) {
            self.shared.problem(format!("connect: {}", without_number(&error)));
            if self.moves_on(slot) {
                self.return_later(slot);
            }
            return;
        }
        let conn = &mut self.conns[slot as usize];
        conn.generation += 1;
        conn.phase = Phase::Upgrading;
        conn.released = false;
        conn.heard = ticks(self.now_ns);
        self.in_flight += 1;
        let handshake = self.handshake.clone();
        self.receive(slot);
        self.send(slot, handshake);
    }

    /// Decides what becomes of a connection whose handshake failed. Returns whether it connects to
    /// the next address.
    pub(super) fn moves_on(&mut self, slot: u32) -> bool {
        let conn = &mut self.conns[slot as usize];
        conn.turn = conn.turn.wrapping_add(1);
        conn.failures += 1;
        let untried = !conn.failures.is_multiple_of(self.plan.target.nodes());
        let moves_on = untried || self.plan.failover;
        let (phase, counter) = if moves_on {
            (Phase::MovingOn, Counter::Retried)
        } else {
            (Phase::Failed, Counter::Failed)
        };
        conn.phase = phase;
        self.tally.add(counter, 1);
        moves_on
    }

    /// Has a slot opened again: at once, or after a wait if its connection failed at every address.
    pub(super) fn return_later(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        conn.phase = Phase::Free;
        let all_failed =
            conn.failures > 0 && conn.failures.is_multiple_of(self.plan.target.nodes());
        if all_failed {
            self.waiting.push_back((self.now_ns + RETURN_NS, slot, conn.since_ns));
        } else {
            self.returning.push_back((slot, conn.since_ns));
        }
    }

    /// Sends bytes, behind those that are being sent.
    pub(super) fn send(&mut self, slot: u32, bytes: Bytes) {
        let conn = &mut self.conns[slot as usize];
        if conn.sending {
            conn.unsent.push_back(bytes);
        } else {
            conn.sending = true;
            self.ring.send(conn.key(slot), &bytes);
        }
    }

    pub(super) fn receive(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if !conn.receiving {
            conn.receiving = true;
            self.ring.receive(conn.key(slot));
        }
    }

    /// Subscribes to the channel.
    pub(super) fn subscribe(&mut self, slot: u32, socket_id: &[u8]) {
        let (channel, index) = (self.channel_of(slot), self.index_of(slot));
        let cuts = self.cuts_of(slot);
        let request = match self.plan.access {
            ChannelAccess::Public => self.subscribes[channel as usize].clone(),
            access => {
                let name = self.plan.channel(channel);
                let member = PresenceMember { index, cuts, info: self.plan.user_info };
                self.plan.target.subscribe(access, &name, socket_id, member)
            }
        };
        self.conns[slot as usize].phase = Phase::Subscribing;
        self.send(slot, request);
    }
}
