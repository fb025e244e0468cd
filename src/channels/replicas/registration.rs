//! The registration anew of everything that the cluster had of this node, after it has forgotten
//! it.

use std::sync::Arc;

use super::super::Outbox;
use super::super::cluster::{Registered, ToCluster};
use super::super::message::Steps;
use super::Replicas;
use super::replica::{Replica, Standing};

/// The channels that a part of a registration has at most: some hundreds of microseconds of work.
const CHANNELS_PER_TURN: u32 = 1024;

/// A registration on its way to the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registering {
    /// The partition that asked.
    partition: u16,
    /// The number of the channel at which the next part begins.
    from: u32,
}

impl Replicas {
    /// Begins a registration, of which each turn sends a part.
    pub(super) fn register(&mut self, partition: u16) {
        self.registering.retain(|other| other.partition != partition);
        self.registering.push_back(Registering { partition, from: 0 });
    }

    /// Sends the next part of the registration that has waited longest. What waits for an answer is
    /// asked once more instead, because the answer may be lost. Twice asked is no harm: the cluster
    /// answers the second time that nothing has changed.
    pub(super) fn register_on(&mut self, out: &mut Outbox) {
        let Some(Registering { partition, from }) = self.registering.pop_front() else { return };
        let to = from.saturating_add(CHANNELS_PER_TURN).min(self.channels.end());
        let all = (from..to).filter_map(|number| self.channels.get(number));
        let registered = all.filter(|replica| replica.standing == Standing::In);
        let members = |replica: &Replica| -> Vec<_> {
            let attendance = replica.attendance.iter();
            let here = attendance.flat_map(|of| of.standing(Standing::In));
            here.map(|attendee| Arc::clone(&attendee.member)).collect()
        };
        let channels = registered.map(|of| (of.key.clone(), of.interest.total(), members(of)));
        let (channels, users) = (channels.collect(), Steps::new());
        let all = (from..to).filter_map(|number| self.channels.get(number));
        let unanswered: Vec<_> = all.flat_map(Replica::unanswered).collect();
        let last = to == self.channels.end();
        if !last {
            self.registering.push_back(Registering { partition, from: to });
        }
        // It goes to the cluster even while the node is alone: this is how that ends.
        let registered = Registered { partition, channels, users, last };
        out.tell_cluster(ToCluster::Registered(Box::new(registered)));
        // While the node is alone, it answers these itself.
        if self.alone.is_none() {
            unanswered.into_iter().for_each(|question| out.tell_cluster(question));
        }
    }

    /// Asks for the members of the channels that may have too many.
    pub(super) fn resynchronise(&mut self, out: &mut Outbox) {
        let all = (0..self.channels.end()).filter_map(|number| self.channels.get(number));
        let inexact = all.filter(|of| of.inexact && of.standing == Standing::In);
        let joins: Vec<_> =
            inexact.map(|of| ToCluster::Join(of.key.clone(), of.interest.total())).collect();
        joins.into_iter().for_each(|join| self.tell(join, out));
    }
}
