//! The bytes that arrive: responses to upgrades, messages of the protocol, stamped messages.

use std::ops::Range;
use std::sync::atomic::Ordering;

use ringwave_ring::{Completion, Op};

use super::Subscribers;
use super::conn::{Phase, ticks};
use crate::clock::{NS_PER_S, now_ns};
use crate::counters::Counter;
use crate::frames;
use crate::gaps::SettledGaps;
use crate::scenario::Scenario;
use crate::sequence::{Arrival, Sequence};
use crate::stamp::Stamp;

impl Subscribers<'_> {
    /// Handles a completion of the ring.
    pub(super) fn complete(&mut self, completion: &Completion) {
        let slot = completion.key.slot;
        let current = self
            .conns
            .get(slot as usize)
            .is_some_and(|conn| conn.generation == completion.key.generation);
        match completion.op {
            Op::Receive => self.received(completion, current),
            Op::Send if current => self.sent(slot, completion.result),
            _ => {}
        }
    }

    fn received(&mut self, completion: &Completion, current: bool) {
        let slot = completion.key.slot;
        if completion.result > 0
            && let Some(mut buffer) = self.ring.buffer(completion)
        {
            self.now_ns = now_ns();
            if current {
                self.bytes(slot, buffer.as_mut());
            }
            self.ring.give_back(buffer);
        }
        if current && !completion.more {
            self.receive_ended(slot, completion.result);
        }
    }

    fn bytes(&mut self, slot: u32, bytes: &[u8]) {
        self.tally.add(Counter::Bytes, bytes.len() as u64);
        let conn = &mut self.conns[slot as usize];
        conn.heard = ticks(self.now_ns);
        if conn.slow || conn.phase.is_over() {
            return;
        }
        if conn.partial.is_empty() {
            let used = self.consume(slot, bytes);
            if used < bytes.len() {
                self.conns[slot as usize].partial = bytes[used..].to_vec();
            }
        } else {
            conn.partial.extend_from_slice(bytes);
            let mut partial = std::mem::take(&mut conn.partial);
            let used = self.consume(slot, &partial);
            if used < partial.len() {
                partial.drain(..used);
                self.conns[slot as usize].partial = partial;
            }
        }
    }

    /// Handles the complete messages at the start of `bytes`. Returns their length.
    fn consume(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.conns[slot as usize].phase == Phase::Upgrading {
            // Frames follow the head of the 101.
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return 0;
            };
            used = end + 4;
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
                self.fail(slot, &format!("upgrade: {}", String::from_utf8_lossy(line)));
                return bytes.len();
            }
            self.conns[slot as usize].phase = Phase::Greeting;
        }
        while let Some((op, payload, len)) = frames::first(&bytes[used..]) {
            used += len;
            match op {
                frames::FrameKind::Message => self.message(slot, payload),
                frames::FrameKind::Ping => self.send(slot, frames::pong(payload)),
                frames::FrameKind::Close => self.close_frame(slot, payload),
                frames::FrameKind::Other => {}
            }
        }
        used
    }

    fn message(&mut self, slot: u32, payload: &[u8]) {
        match Stamp::find(payload, &mut self.hint) {
            Some(stamp) => self.delivered(slot, &stamp),
            None => self.protocol_message(slot, payload),
        }
    }

    fn delivered(&mut self, slot: u32, stamp: &Stamp) {
        let sender = usize::from(stamp.sender);
        let ours = stamp.run == self.plan.run
            && stamp.channel == self.channel_of(slot)
            && sender < self.senders
            && self.conns[slot as usize].phase == Phase::Subscribed;
        if !ours {
            self.tally.add(Counter::Foreign, 1);
            return;
        }
        let number = stamp.sequence;
        let at = slot as usize * self.senders + sender;
        match self.sequences[at].arrive(number) {
            Arrival::InOrder | Arrival::BeforeStart => {}
            Arrival::AfterGap(gap) => {
                let sender_index = self.plan.sender_index(stamp.channel, stamp.sender);
                self.missed(at, sender_index, number - gap..number);
            }
            Arrival::Late => {
                // Nobody knows when a message without a response was accepted, so it has no place
                // in the order.
                let sender_index = self.plan.sender_index(stamp.channel, stamp.sender);
                let open = self.gaps.fill(at, number);
                if !open && !self.shared.exempt.contains(sender_index, number) {
                    self.tally.subtract(Counter::Missing, 1);
                    self.tally.add(Counter::Reordered, 1);
                }
            }
            Arrival::Duplicate => {
                self.tally.add(Counter::Duplicated, 1);
                return;
            }
        }
        self.tally.add(Counter::Delivered, 1);
        self.deliveries.record(self.now_ns.saturating_sub(stamp.intended_ns));
    }

    /// Counts messages that were skipped. Those of a request under way are counted when it ends.
    fn missed(&mut self, sequence: usize, sender_index: usize, numbers: Range<u32>) {
        // Read before the exemptions: a request that has ended by now has all of them.
        let open_from = self.shared.open_from[sender_index].load(Ordering::SeqCst);
        let split = open_from.clamp(numbers.start, numbers.end);
        let missing = self.owed_among(sender_index, numbers.start..split);
        self.tally.add(Counter::Missing, missing);
        if split < numbers.end {
            self.gaps.add(sequence, sender_index, split..numbers.end);
            if self.gaps.is_crowded() {
                self.settle_gaps();
            }
        }
    }

    /// Counts the messages of gaps whose requests have ended.
    pub(super) fn settle_gaps(&mut self) {
        let shared = self.shared;
        let open_from = |sender: usize| shared.open_from[sender].load(Ordering::SeqCst);
        let SettledGaps { missing, reordered } = self.gaps.settle(open_from, &shared.exempt);
        self.tally.add(Counter::Missing, missing);
        self.tally.add(Counter::Reordered, reordered);
    }

    /// Handles a message of the Pusher protocol itself.
    fn protocol_message(&mut self, slot: u32, payload: &[u8]) {
        match frames::event(payload).unwrap_or_default() {
            b"pusher:connection_established" => {
                if self.ping_after_ns == u64::MAX
                    && let Some(silence_s) = frames::activity_timeout_s(payload)
                {
                    self.ping_after_ns = silence_s.max(1) * NS_PER_S;
                }
                let socket_id = frames::socket_id(payload).unwrap_or_default();
                self.subscribe(slot, socket_id);
            }
            b"pusher_internal:subscription_succeeded" => self.subscribed(slot),
            b"pusher:ping" => self.send(slot, self.frames.pong.clone()),
            b"pusher:error" | b"pusher:subscription_error" => {
                let text: String = String::from_utf8_lossy(payload).chars().take(200).collect();
                if self.conns[slot as usize].phase.is_opening() {
                    self.fail(slot, &text);
                } else {
                    self.shared.problem(text);
                }
            }
            _ => {}
        }
    }

    fn subscribed(&mut self, slot: u32) {
        let channel = self.channel_of(slot);
        let conn = &mut self.conns[slot as usize];
        if conn.phase != Phase::Subscribing {
            return;
        }
        conn.phase = Phase::Subscribed;
        conn.failures = 0;
        let was_away = std::mem::take(&mut conn.away);
        let since_ns = conn.since_ns;
        self.in_flight -= 1;
        self.hold(slot);
        self.tally.add(Counter::Subscribed, 1);
        self.handshakes.record(self.now_ns.saturating_sub(since_ns));
        if was_away {
            self.tally.subtract(Counter::Away, 1);
        }
        for sender in 0..self.senders {
            // Messages that are sent from now on follow the subscription, so they have to arrive.
            let sender_index = self.plan.sender_index(channel, sender as u16);
            let start = self.shared.sent[sender_index].load(Ordering::SeqCst);
            let at = slot as usize * self.senders + sender;
            if was_away && !self.is_sender(slot, sender) {
                let missed = self.owed_among(sender_index, self.sequences[at].behind(start));
                self.tally.add(Counter::MissedAway, missed);
            }
            self.sequences[at] = Sequence::starting(start);
        }
        if self.plan.scenario == Scenario::Churn && self.plan.turnover <= 0.0 && self.running() {
            self.leave(slot);
        }
    }

    fn close_frame(&mut self, slot: u32, payload: &[u8]) {
        let phase = self.conns[slot as usize].phase;
        if phase == Phase::Leaving {
            return;
        }
        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
        self.shared.problem(format!("closed by the server: {code} {reason}"));
        let close = self.frames.close.clone();
        self.send(slot, close);
    }
}
