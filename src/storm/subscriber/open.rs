//! The opening of connections: by a ramp, all at once, or again.

use bytes::Bytes;

use super::Subscribers;
use super::conn::{Phase, ticks};
use crate::channel::ChannelAccess;
use crate::clock::now_ns;
use crate::counters::Counter;
use crate::error_text::without_number;
use crate::shared::StormStage;
use crate::target::PresenceMember;

/// The most sockets that are opened per turn, so that the responses to others are read in time.
const OPENED_PER_TURN: u32 = 64;

impl Subscribers<'_> {
    /// Opens the connections that are due.
    pub(super) fn open_due(&mut self) {
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
        if self.in_flight >= self.in_flight_max || self.stage >= StormStage::Drain {
            u64::MAX
        } else if !self.returning.is_empty() {
            0
        } else if !self.unopened.is_empty() && self.stage == StormStage::Open {
            self.ramp.due_ns()
        } else {
            u64::MAX
        }
    }

    fn open(&mut self, slot: u32, since_ns: u64) {
        let index = self.index_of(slot);
        let (target, sources) = (&self.plan.target, self.plan.sources);
        let source = |tried| sources.address(index.wrapping_add(tried));
        if let Err(error) = self.ring.open(slot, target.address(index), source) {
            self.conns[slot as usize].phase = Phase::Failed;
            self.tally.add(Counter::Failed, 1);
            self.shared.problem(format!("connect: {}", without_number(&error)));
            return;
        }
        let conn = &mut self.conns[slot as usize];
        conn.generation += 1;
        conn.phase = Phase::Upgrading;
        conn.released = false;
        conn.since_ns = since_ns;
        conn.heard = ticks(self.now_ns);
        self.in_flight += 1;
        let handshake = self.handshake.clone();
        self.receive(slot);
        self.send(slot, handshake);
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
        let request = match self.plan.access {
            ChannelAccess::Public => self.subscribes[channel as usize].clone(),
            access => {
                let name = self.plan.channel(channel);
                let member = PresenceMember { id: index, info: self.plan.user_info };
                self.plan.target.subscribe(access, &name, socket_id, member)
            }
        };
        self.conns[slot as usize].phase = Phase::Subscribing;
        self.send(slot, request);
    }
}
