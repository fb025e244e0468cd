//! Handles the data that arrives: answers, greetings, messages.

use std::sync::atomic::Ordering;

use ringwave_ring::{Completion, Op};

use super::{Phase, Subscribers, ticks};
use crate::clock::{NS_PER_S, now_ns};
use crate::frames;
use crate::plan::Scenario;
use crate::sequence::{Arrival, Sequence};
use crate::shared::Count;
use crate::stamp::Stamp;

impl Subscribers<'_> {
    /// Takes note of what the ring did.
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
            && let Some(mut buffer) = self.wire.buffer(completion)
        {
            self.now_ns = now_ns();
            if current {
                self.bytes(slot, buffer.as_mut());
            }
            self.wire.give_back(buffer);
        }
        if current && !completion.more {
            self.receive_ended(slot, completion.result);
        }
    }

    fn bytes(&mut self, slot: u32, bytes: &[u8]) {
        self.tally.add(Count::Bytes, bytes.len() as u64);
        let conn = &mut self.conns[slot as usize];
        conn.heard = ticks(self.now_ns);
        if conn.slow || matches!(conn.phase, Phase::Leaving | Phase::Cut | Phase::Failed) {
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

    /// Takes what is whole. Answers how many bytes that were.
    fn consume(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.conns[slot as usize].phase == Phase::Upgrading {
            // Frames follow the head of a 101.
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
                frames::Op::Message => self.message(slot, payload),
                frames::Op::Ping => self.send(slot, frames::pong(payload)),
                frames::Op::Close => self.close_frame(slot, payload),
                frames::Op::Other => {}
            }
        }
        used
    }

    fn message(&mut self, slot: u32, payload: &[u8]) {
        match Stamp::find(payload, &mut self.hint) {
            Some(stamp) => self.delivered(slot, &stamp),
            None => self.said(slot, payload),
        }
    }

    fn delivered(&mut self, slot: u32, stamp: &Stamp) {
        let lane = usize::from(stamp.lane);
        let ours = stamp.run == self.plan.run
            && stamp.channel == self.channel_of(slot)
            && lane < self.lanes
            && self.conns[slot as usize].phase == Phase::Subscribed;
        if !ours {
            self.tally.add(Count::Foreign, 1);
            return;
        }
        let sequence = &mut self.sequences[slot as usize * self.lanes + lane];
        match sequence.arrive(stamp.sequence) {
            Arrival::InOrder | Arrival::BeforeStart => {}
            Arrival::AfterGap(gap) => self.tally.add(Count::Missing, u64::from(gap)),
            Arrival::Late => {
                self.tally.take(Count::Missing, 1);
                self.tally.add(Count::Reordered, 1);
            }
            Arrival::Duplicate => {
                self.tally.add(Count::Duplicated, 1);
                return;
            }
        }
        self.tally.add(Count::Delivered, 1);
        self.deliveries.record(self.now_ns.saturating_sub(stamp.intended_ns));
    }

    /// A message of the protocol itself.
    fn said(&mut self, slot: u32, payload: &[u8]) {
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
            b"pusher:ping" => self.send(slot, self.words.pong.clone()),
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
        let since_ns = conn.since_ns;
        self.in_flight -= 1;
        self.tally.add(Count::Held, 1);
        self.tally.add(Count::Subscribed, 1);
        self.handshakes.record(self.now_ns.saturating_sub(since_ns));
        for lane in 0..self.lanes {
            // Messages sent from now on come after the subscription, and so have to arrive.
            let sent = &self.shared.sent[self.plan.lane_index(channel, lane as u16)];
            let start = sent.load(Ordering::SeqCst);
            self.sequences[slot as usize * self.lanes + lane] = Sequence::starting(start);
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
        let close = self.words.close.clone();
        self.send(slot, close);
    }
}
