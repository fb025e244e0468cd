//! Client events from subscribers to the others of their channel.

use std::sync::atomic::Ordering;

use super::Subscribers;
use super::conn::Phase;
use crate::counters::Counter;
use crate::shared::StormStage;
use crate::stamp::Stamp;
use crate::target;

impl Subscribers<'_> {
    /// Sends the client events that are due.
    pub(super) fn whisper_due(&mut self) {
        if self.stage != StormStage::Run {
            return;
        }
        let until_ns = self.shared.run_until_ns.load(Ordering::Acquire);
        while let Some((due_ns, index)) = self.whispers.pop_due(self.now_ns, until_ns) {
            self.whisper(index, due_ns);
        }
    }

    fn whisper(&mut self, index: u32, intended_ns: u64) {
        let slot = index - self.first;
        if self.conns[slot as usize].phase != Phase::Subscribed {
            return;
        }
        let (channel, sender) = self.plan.sender(index);
        let sent = &self.shared.sent[self.plan.sender_index(channel, sender)];
        let sequence = sent.fetch_add(1, Ordering::SeqCst);
        let stamp = Stamp { run: self.plan.run, channel, sender, sequence, intended_ns };
        let name = self.plan.channel(channel);
        self.tally.add(Counter::Whispered, 1);
        self.send(slot, target::whisper(&name, &stamp, self.plan.size as usize));
    }
}
