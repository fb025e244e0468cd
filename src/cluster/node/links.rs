//! The side of the node to the connections: entrances, calls, and inboxes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::report::Report;
use super::{Member, Node};
use crate::channels::{Answer, FromCluster};
use crate::cluster::partition::{Admission, Call, Outcome, Returned};
use crate::cluster::store::CallHead;
use crate::cluster::wire::{Entered, Entrance, NodeId};
use crate::time::Millis;
use crate::version;

impl Node {
    /// The introduction of the node to a partition, at a server with this `run_id`.
    pub(crate) fn introduction(&mut self, partition: u16, run: &str) -> Option<(NodeId, Entrance)> {
        // Every introduction offers another epoch: one that came back would hide that Redis was
        // emptied meanwhile.
        self.introductions += 1;
        let partitions = self.partitions();
        let member = self.partitions.get_mut(usize::from(partition))?;
        if !run.is_empty() {
            member.replaced |= !member.run.is_empty() && *member.run != *run;
            member.run = run.into();
        }
        let id = member.partition.node();
        member.introduced = Some(id);
        let entrance = Entrance {
            partitions,
            epoch: format!("{}-{}", self.epoch, self.introductions).into(),
            run: run.into(),
            version: version::NUMBER.into(),
            address: self.address.clone(),
            base: member.partition.base(),
            lease_ms: millis(self.settings.lease),
            known: member.partition.known().collect(),
        };
        Some((id, entrance))
    }

    /// Takes the answer to an introduction. Returns whether the node is in; otherwise it has to
    /// introduce itself once more, under another name.
    pub(crate) fn entered(&mut self, partition: u16, entered: Entered, now: Millis) -> bool {
        let Entered { buried, .. } = entered;
        let renamed = |member: &mut Member| member.introduced != Some(member.partition.node());
        if self.member(partition).is_some_and(renamed) {
            return false;
        }
        self.return_from_alone();
        let founded = entered.epoch.starts_with(&*self.epoch);
        let Some(member) = self.member(partition) else { return true };
        match member.partition.entered(entered, founded, now) {
            Admission::Buried => {
                self.rename(partition, true, true, now);
                false
            }
            Admission::In { register, emptied, cut_off, confirmed } => {
                // A replica that has taken over may know less than homes have been told. Everything
                // is registered anew, so that its answers bring both to the same state.
                let replaced = std::mem::take(&mut member.replaced);
                member.settled = false;
                // What was not registered yet is no news either when the connection is lost again.
                member.emptied = emptied || ((member.emptied || replaced) && !buried);
                self.effects.answer_all(confirmed, || Answer::Barrier);
                // Questions are not repeated, and an answer may be lost.
                let lost = self.questions.lost(partition);
                self.effects.answer_all(lost, || Answer::Away);
                if emptied {
                    self.effects.report(Report::Emptied { partition });
                } else if buried && register {
                    self.effects.report(Report::LeaseLost { partition });
                }
                if cut_off {
                    self.cut_off(partition);
                }
                if register || replaced {
                    self.ask_shards_to_register(partition);
                }
                self.claim_permits(partition, now);
                true
            }
        }
    }

    /// Notes that the connections of a partition have ended, or that the node has to enter again.
    pub(crate) fn lost(&mut self, partition: u16, now: Millis) {
        if let Some(member) = self.member(partition) {
            member.partition.lost(now);
        }
    }

    /// The next call, unless an answer is due or there is nothing to do.
    pub(crate) fn next_call(
        &mut self,
        partition: u16,
        now: Millis,
    ) -> Option<(CallHead, Arc<[Bytes]>)> {
        let (lease_ms, retention_ms) =
            (millis(self.settings.lease), millis(self.settings.retention));
        let inbox_bytes = self.settings.inbox;
        let member = self.member(partition)?;
        let Call { kind, number, args } = member.partition.next_call(now)?;
        let (node, epoch) = (member.partition.node(), member.partition.epoch().into());
        let head = CallHead { node, epoch, kind, number, lease_ms, retention_ms, inbox_bytes };
        Some((head, args))
    }

    /// The time at which there is a call by the clock alone.
    pub(crate) fn due(&self, partition: u16) -> Option<Millis> {
        self.partition(partition)?.due()
    }

    /// Notes that the call was executed.
    pub(crate) fn executed(&mut self, partition: u16, now: Millis) {
        let Some(member) = self.member(partition) else { return };
        let Outcome { confirmed, returned } = member.partition.executed(now);
        if member.partition.away_since().is_none() {
            member.emptied = false;
        }
        self.effects.answer_all(confirmed, || Answer::Barrier);
        if let Some(Returned { away, repeated }) = returned {
            self.effects.report(Report::Back { partition, away, repeated });
        }
    }

    /// The name of the inbox, and the id of the entry to read behind.
    pub(crate) fn position(&self, partition: u16) -> Option<(NodeId, Box<str>)> {
        let partition = self.partition(partition)?;
        Some((partition.node(), partition.position().into()))
    }

    /// Takes entries of the inbox with their ids.
    pub(crate) fn read(&mut self, partition: u16, entries: Vec<(Box<str>, Bytes)>, now: Millis) {
        let Some(member) = self.member(partition) else { return };
        let records = member.partition.read(entries, now);
        self.records(partition, records, now);
    }

    /// Gives the node another name in a partition. What was never sent stays if `keep`. `cut_off`:
    /// messages may be lost.
    pub(super) fn rename(&mut self, partition: u16, keep: bool, cut_off: bool, now: Millis) {
        let name = self.names.next();
        let Some(member) = self.member(partition) else { return };
        let dropped = member.partition.rename(name, keep, cut_off, now);
        self.effects.answer_all(dropped, || Answer::Away);
    }

    /// Messages of a partition are lost: its subscribers have to return.
    pub(super) fn cut_off(&mut self, partition: u16) {
        let id = self.partition_id(partition);
        let shards = self.directory.topology().shards();
        self.effects.tell_all(shards, || FromCluster::CutOff(id));
        self.effects.report(Report::CutOff { partition });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
