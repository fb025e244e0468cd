//! Walks over all channels of a partition, a part per turn: the registration anew of everything
//! that the cluster had of this node, after it has forgotten it, and the joins once more of
//! channels whose members may not be all.

use std::sync::Arc;

use crate::time::Millis;

use super::super::Outbox;
use super::super::cluster::{Enter, PartitionId, Registered, ToCluster};
use super::super::message::Steps;
use super::Replicas;
use super::replica::Replica;
use super::standing::Standing;

/// The channels that a turn looks at: some hundreds of microseconds of work.
const CHANNELS_PER_TURN: u32 = 1024;

/// A walk that is not finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    task: Task,
    partition: PartitionId,
    /// The number of the channel at which the next part begins.
    from: u32,
}

/// The purpose of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// The partition has forgotten this node.
    Register,
    /// All nodes have registered with the partition.
    Resynchronise,
}

impl Replicas {
    /// Begins a walk, of which each turn does a part.
    pub(super) fn walk(&mut self, task: Task, partition: PartitionId) {
        self.walks.retain(|walk| (walk.task, walk.partition) != (task, partition));
        self.walks.push_back(Walk { task, partition, from: 0 });
    }

    /// Does the next part of the walk that has waited longest.
    pub(super) fn walk_on(&mut self, now: Millis, out: &mut Outbox) {
        let Some(walk) = self.walks.pop_front() else { return };
        let to = walk.from.saturating_add(CHANNELS_PER_TURN).min(self.channels.end());
        let last = to == self.channels.end();
        let looked_at = (walk.from..to).filter_map(|number| self.channels.get(number));
        let channels: Vec<_> = looked_at.filter(|of| self.is_in(&of.key, walk.partition)).collect();
        match walk.task {
            Task::Register => {
                let partition = walk.partition.number;
                let (registered, questions) = registration_of(&channels);
                let kept = channels.iter().filter_map(|of| self.channels.cache.get(&of.key, now));
                let events = kept.map(|event| event.copied(now)).collect();
                let users = Steps::new();
                let part = Registered { partition, channels: registered, events, users, last };
                // It goes to the cluster even while the node is alone: this is how that ends.
                out.tell_cluster(ToCluster::Registered(Box::new(part)));
                questions.into_iter().for_each(|question| self.tell(question, out));
            }
            Task::Resynchronise => {
                let inexact =
                    channels.iter().filter(|of| of.inexact && of.standing == Standing::In);
                let joins: Vec<_> = inexact
                    .map(|of| ToCluster::Join(of.key.clone(), of.interest.total()))
                    .collect();
                joins.into_iter().for_each(|join| self.tell(join, out));
            }
        }
        if !last {
            self.walks.push_back(Walk { from: to, ..walk });
        }
    }
}

/// Channels with their numbers of subscribers, and the members that this node has in them.
type Registration = Vec<(super::ChannelKey, u32, Vec<Arc<crate::protocol::auth::Member>>)>;

/// The part of channels that the cluster had, and its unanswered questions. Those are asked once
/// more, because their answers may be lost with an inbox; a second answer has no effect.
fn registration_of(channels: &[&Replica]) -> (Registration, Vec<ToCluster>) {
    let members = |replica: &Replica| -> Vec<_> {
        let attendance = replica.attendance.iter();
        let here = attendance.flat_map(|of| of.standing(Standing::In));
        here.map(|attendee| Arc::clone(&attendee.member)).collect()
    };
    let inside = channels.iter().filter(|replica| replica.standing == Standing::In);
    let registered = inside.map(|of| (of.key.clone(), of.interest.total(), members(of)));
    let questions = channels.iter().flat_map(|replica| questions_of(replica));
    (registered.collect(), questions.collect())
}

/// The unanswered questions about a channel, in the order of their answers.
pub(super) fn questions_of(replica: &Replica) -> Vec<ToCluster> {
    let key = || replica.key.clone();
    let mut questions = Vec::new();
    if replica.standing == Standing::Entering {
        // The first subscriber waits, and is counted when the answer has come.
        questions.push(ToCluster::Join(key(), replica.interest.total().max(1)));
    }
    if let Some(attendance) = &replica.attendance {
        questions.extend(attendance.standing(Standing::Entering).map(|attendee| {
            let first = attendee.first_waiting();
            let (member, max_members) = first.unwrap_or_else(|| (attendee.member.clone(), None));
            let enter = Enter { key: key(), member, max_members };
            ToCluster::Enter(Box::new(enter))
        }));
        let leaving = attendance.standing(Standing::Leaving);
        questions.extend(leaving.map(|of| ToCluster::Part(key(), of.member.user_id.clone())));
    }
    if replica.standing == Standing::Leaving {
        questions.push(ToCluster::Leave(key()));
    }
    questions
}
