//! A node that serves its clients alone, because the cluster is away: the homes give the answers
//! that the cluster would give if there were no other node.
//!
//! Members of other nodes stay in the replicas meanwhile. When the cluster is back, everything is
//! registered anew, and its answers bring the replicas up to date.

use std::collections::VecDeque;

use crate::time::Millis;

use super::super::cluster::{ClusterJoined, Enter, EnterOutcome, FromCluster, ToCluster};
use super::super::table::ChannelRecord;
use super::super::{ChannelKey, Outbox};
use super::Replicas;
use super::registration::questions_of;

impl Replicas {
    /// Begins to answer in the place of the cluster, or ends it.
    pub(super) fn set_alone(&mut self, alone: bool, now: Millis, out: &mut Outbox) {
        if !alone {
            self.answer_alone(now, out);
            self.alone = None;
        } else if self.alone.is_none() {
            self.alone = Some(self.unanswered());
        }
    }

    /// Answers what has been asked while the node is alone.
    pub(super) fn answer_alone(&mut self, now: Millis, out: &mut Outbox) {
        while let Some(question) = self.alone.as_mut().and_then(VecDeque::pop_front) {
            for answer in self.own_answers(question) {
                self.take(answer, now, out);
            }
        }
    }

    /// The questions that the cluster has not answered, and will not answer any more.
    fn unanswered(&self) -> VecDeque<ToCluster> {
        let all = (0..self.channels.end()).filter_map(|number| self.channels.get(number));
        all.flat_map(questions_of).collect()
    }

    fn own_answers(&self, question: ToCluster) -> Vec<FromCluster> {
        match question {
            ToCluster::Join(key, _) => {
                let (occupied, exact, last) = (false, false, None);
                let joined = ClusterJoined { key, occupied, exact, last, members: Vec::new() };
                vec![FromCluster::Joined(Box::new(joined))]
            }
            ToCluster::Leave(key) => vec![FromCluster::Left(key)],
            ToCluster::Count(key, count) => vec![FromCluster::Count(key, count, true)],
            ToCluster::Enter(enter) => self.own_entry(*enter),
            ToCluster::Part(key, user_id) => vec![
                FromCluster::Removed(key.clone(), user_id.clone()),
                FromCluster::Parted(key, user_id),
            ],
            ToCluster::Publish(event) => vec![FromCluster::Event(event)],
            ToCluster::PublishAndConfirm(event, _) => vec![FromCluster::Event(*event)],
            // The others do not come from homes of channels.
            _ => Vec::new(),
        }
    }

    fn own_entry(&self, enter: Enter) -> Vec<FromCluster> {
        let Enter { key, member, max_members } = enter;
        let user_id = member.user_id.clone();
        if max_members.is_some_and(|most| self.is_full(&key, &user_id, most)) {
            return vec![FromCluster::Entered(key, user_id, EnterOutcome::Full)];
        }
        let entered = EnterOutcome::Entered { told: false };
        vec![FromCluster::Added(key.clone(), member), FromCluster::Entered(key, user_id, entered)]
    }

    fn is_full(&self, key: &ChannelKey, user_id: &str, most: usize) -> bool {
        self.channels.find(key).is_some_and(|number| {
            let replica = &self.channels[number];
            let known = replica.members().any(|member| *member.user_id == *user_id);
            !known && replica.users() as usize >= most
        })
    }
}
