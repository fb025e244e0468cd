//! Client events from subscribers to the others of their channel.

use std::sync::atomic::Ordering;

use super::Subscribers;
use super::conn::Phase;
use crate::clock::NS_PER_S;
use crate::counters::Counter;
use crate::shared::StormStage;
use crate::stamp::Stamp;
use crate::target;

/// The time after which a server has taken a client event from its socket, since none is answered.
/// If the connection is cut sooner, nobody knows whether it has.
const TAKEN_NS: u64 = NS_PER_S;

/// A client event that the server may not have taken yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecentWhisper {
    sent_ns: u64,
    slot: u32,
    number: u32,
}

impl Subscribers<'_> {
    /// Sends the client events that are due, however late.
    pub(super) fn whisper_due(&mut self) {
        if !matches!(self.stage, StormStage::Run | StormStage::Drain) {
            return;
        }
        let until_ns = self.shared.run_until_ns.load(Ordering::Acquire);
        while let Some((due_ns, index)) = self.whispers.pop_due(self.now_ns, until_ns) {
            match self.conns[(index - self.first) as usize].phase {
                Phase::Subscribed => self.whisper(index, due_ns),
                Phase::Cut | Phase::Failed => self.tally.add(Counter::Unsent, 1),
                _ => self.whispers.postpone(self.now_ns, due_ns, index),
            }
        }
    }

    /// The number of client events that are still to be sent, at least.
    pub(super) fn whispers_left(&self) -> u64 {
        self.whispers.left_before(self.shared.run_until_ns.load(Ordering::Acquire))
    }

    fn whisper(&mut self, index: u32, intended_ns: u64) {
        let slot = index - self.first;
        let (channel, sender) = self.plan.sender(index);
        let sent = &self.shared.sent[self.plan.sender_index(channel, sender)];
        let number = sent.fetch_add(1, Ordering::SeqCst);
        let stamp = Stamp { run: self.plan.run, channel, sender, sequence: number, intended_ns };
        let name = self.plan.channel(channel);
        self.tally.add(Counter::Whispered, 1);
        self.send(slot, target::whisper(&name, &stamp, self.plan.size as usize));
        let taken = |whisper: &RecentWhisper| whisper.sent_ns + TAKEN_NS < self.now_ns;
        while self.recent_whispers.front().is_some_and(taken) {
            self.recent_whispers.pop_front();
        }
        self.recent_whispers.push_back(RecentWhisper { sent_ns: self.now_ns, slot, number });
    }

    /// Exempts the client events that a connection sent shortly before it was cut.
    pub(super) fn exempt_recent_whispers(&mut self, slot: u32) {
        let (channel, sender) = self.plan.sender(self.index_of(slot));
        let sender_index = self.plan.sender_index(channel, sender);
        let Self { recent_whispers, shared, tally, now_ns, .. } = self;
        recent_whispers.retain(|whisper| {
            let exempt = whisper.slot == slot && whisper.sent_ns + TAKEN_NS >= *now_ns;
            if exempt {
                shared.exempt.add(sender_index, whisper.number);
                tally.subtract(Counter::Whispered, 1);
                tally.add(Counter::Unknown, 1);
            }
            !exempt
        });
    }
}
