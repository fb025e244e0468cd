//! The effects of the node: messages to shards, notices for webhooks, lines of the log.

use std::collections::VecDeque;

use super::report::Report;
use crate::channels::{Answer, FromCluster, FromHome, Notice, Question, ReplyTo, ToHome};
use crate::id::ShardId;
use crate::shard::ShardMessage;

/// The effects of calls of the node, until its owner takes them.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Messages with the shards that get them. Those of one partition keep their order.
    pub(crate) messages: VecDeque<(ShardId, ShardMessage)>,
    /// Notices for webhooks.
    pub(crate) notices: Vec<Notice>,
    /// Lines of the log.
    pub(crate) reports: Vec<Report>,
}

impl Effects {
    pub(super) fn tell(&mut self, shard: ShardId, message: FromCluster) {
        self.messages.push_back((shard, ShardMessage::FromCluster(message)));
    }

    pub(super) fn tell_all(
        &mut self,
        shards: impl Iterator<Item = ShardId>,
        message: impl Fn() -> FromCluster,
    ) {
        shards.for_each(|shard| self.tell(shard, message()));
    }

    pub(super) fn answer(&mut self, to: ReplyTo, answer: Answer) {
        let answer = FromHome::Answer(to, Box::new(answer));
        self.messages.push_back((to.shard, ShardMessage::FromHome(answer)));
    }

    pub(super) fn answer_all(&mut self, to: Vec<ReplyTo>, answer: impl Fn() -> Answer) {
        to.into_iter().for_each(|to| self.answer(to, answer()));
    }

    /// Asks a home. The answer comes to the cluster's port, which `reply_to` names.
    pub(super) fn ask(&mut self, shard: ShardId, reply_to: ReplyTo, question: Question) {
        let ask = ToHome::Ask(reply_to, question);
        self.messages.push_back((shard, ShardMessage::ToHome(reply_to.shard, ask)));
    }

    pub(super) fn report(&mut self, report: Report) {
        self.reports.push(report);
    }
}
