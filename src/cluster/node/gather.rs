//! Questions about all nodes: those of this node's shards go out, those of other nodes are answered
//! by this node's shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Node;
use super::inquiries::Asker;
use super::payload::{NodeAnswer, NodeQuestion, decode, encode};
use super::questions::{Done, Gathering, Outcome};
use crate::channels::{Answer, ChannelKey, ChannelPath, ChannelState, Question, ReplyTo, UserPath};
use crate::cluster::settings::WhenAway;
use crate::cluster::wire::{Command, NodeId};
use crate::id::{AppIndex, ShardId};
use crate::protocol::names::ChannelName;
use crate::shard::ShardMessage;
use crate::time::Millis;

/// The channels in a part of an answer: some tens of kilobytes.
const CHANNELS_PER_PART: usize = 1000;

/// This node, if it asks itself because it is alone. No node has this id and no partition this
/// number, so nothing that happens to a partition ends such a question.
const HERE: Asker = Asker { partition: u16::MAX, node: NodeId(0), request: 0 };

/// A question to all nodes.
#[derive(Clone, Debug)]
pub(super) enum Asking {
    /// For the occupied channels of an app, by the beginning of their names.
    Occupied(AppIndex, Arc<str>),
    /// For the number of connections of an app.
    Connections(AppIndex),
    /// To close the connections of a user.
    Terminate(AppIndex, Arc<str>),
}

/// The questions of this node.
impl Node {
    pub(super) fn ask(&mut self, reply_to: ReplyTo, question: Question, now: Millis) {
        match question {
            Question::Barrier => self.effects.answer(reply_to, Answer::Barrier),
            // The home answers the shard itself.
            Question::State(ref key) | Question::Users(ref key) if self.serves_alone() => {
                let home = self.directory.topology().home_of(key);
                self.effects.ask(home, reply_to, question);
            }
            Question::State(key) => self.ask_redis(reply_to, &key, false, now),
            Question::Users(key) => self.ask_redis(reply_to, &key, true, now),
            Question::Occupied(app, prefix) => {
                self.ask_nodes(reply_to, Asking::Occupied(app, prefix), now);
            }
            Question::Connections(app) => self.ask_nodes(reply_to, Asking::Connections(app), now),
        }
    }

    /// Asks about one channel: Redis knows the members and the nodes with subscribers.
    fn ask_redis(&mut self, reply_to: ReplyTo, key: &ChannelKey, users: bool, now: Millis) {
        let found = self.directory.channel_path(key);
        let Some((channel, partition)) = found else {
            // The app was removed.
            return self.effects.answer(reply_to, Answer::Unavailable);
        };
        if self.is_hopeless(partition, now) {
            return self.silent(partition, reply_to);
        }
        let gathering = match users {
            true => Gathering::Users,
            false => Gathering::State(ChannelState::default()),
        };
        let Some(request) = self.questions.open(partition, reply_to, gathering, now) else {
            return self.effects.answer(reply_to, Answer::Unavailable);
        };
        let command = if users {
            Command::Users(channel, request)
        } else {
            let payload = encode(&NodeQuestion::State { channel: channel.as_str().into() });
            Command::State { channel, request, payload }
        };
        self.ask_by(partition, request, command, now);
    }

    /// Asks all nodes, or this one if it is alone.
    pub(super) fn ask_nodes(&mut self, reply_to: ReplyTo, asking: Asking, now: Millis) {
        let question = self.node_question(&asking);
        let app = self.directory.app_text(asking.app());
        let Some(((_, partition), question)) = app.zip(question) else {
            // The app was removed.
            return self.effects.answer(reply_to, Answer::Unavailable);
        };
        let alone = self.serves_alone();
        if !alone && self.is_hopeless(partition, now) {
            return self.silent(partition, reply_to);
        }
        let partition = if alone { HERE.partition } else { partition };
        match self.questions.open(partition, reply_to, asking.gathering(), now) {
            None => self.effects.answer(reply_to, Answer::Unavailable),
            Some(request) if alone => {
                let _waits = self.questions.asked(request, 0, None, vec![HERE.node]);
                self.answer_here(Asker { request, ..HERE }, question, now);
            }
            Some(request) => {
                let command = Command::Ask(request, encode(&question));
                self.ask_by(partition, request, command, now);
            }
        }
    }

    /// Asks Redis by a command, as soon as it knows all nodes, and what they have: before that, an
    /// answer would be partial. Most often a moment is missing, because nodes enter or return.
    fn ask_by(&mut self, partition: u16, request: u32, command: Command, now: Millis) {
        if self.knows_all(partition) {
            self.push(partition, command, None, now);
        } else {
            self.questions.hold(request, command);
        }
    }

    /// Asks by the commands that have waited until Redis knows all nodes.
    pub(super) fn ask_held(&mut self, partition: u16, now: Millis) {
        for command in self.questions.release(partition) {
            self.push(partition, command, None, now);
        }
    }

    /// Whether this node answers for itself, because the cluster is away.
    pub(super) fn serves_alone(&self) -> bool {
        self.alone && self.settings.when_away == WhenAway::Local
    }

    /// Tells a shard that a question has no answer: because Redis is away, or because not all nodes
    /// answer.
    pub(super) fn silent(&mut self, partition: u16, reply_to: ReplyTo) {
        let outside = self.partition(partition).is_some_and(|of| of.outside_since().is_some());
        let answer = if outside { Answer::Away } else { Answer::Unavailable };
        self.effects.answer(reply_to, answer);
    }

    /// Whether Redis knows all nodes, and what they have, as far as the node has heard since it
    /// last entered.
    fn knows_all(&self, partition: u16) -> bool {
        let member = self.partitions.get(usize::from(partition));
        member.is_some_and(|member| member.settled && member.partition.has_entered())
    }

    fn node_question(&self, asking: &Asking) -> Option<NodeQuestion> {
        let app = self.directory.id(asking.app())?.to_owned();
        Some(match asking {
            Asking::Occupied(_, prefix) => {
                NodeQuestion::Occupied { app, prefix: prefix.to_string() }
            }
            Asking::Connections(_) => NodeQuestion::Connections { app },
            Asking::Terminate(_, user) => NodeQuestion::Terminate { app, user: user.to_string() },
        })
    }

    /// Answers a question that is done.
    pub(super) fn done(&mut self, done: Option<Done>) {
        let Some((reply_to, outcome)) = done else { return };
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Occupied(app, channels) => {
                let named = channels.into_iter().filter_map(|(name, state)| {
                    Some((self.directory.channel_name(app, &name)?, state))
                });
                Answer::Occupied { channels: named.collect(), last: true }
            }
        };
        self.effects.answer(reply_to, answer);
    }
}

/// The questions of other nodes.
impl Node {
    /// Has the shards answer a question of a node, which may be this one.
    pub(super) fn inquire(
        &mut self,
        partition: u16,
        node: NodeId,
        request: u32,
        payload: &Bytes,
        now: Millis,
    ) {
        // From a version that this node does not know, the asker is told that an answer is missing.
        if let Some(question) = decode(payload) {
            self.answer_here(Asker { partition, node, request }, question, now);
        }
    }

    fn answer_here(&mut self, asker: Asker, question: NodeQuestion, now: Millis) {
        match question {
            NodeQuestion::State { channel } => {
                let found = self.directory.channel(&ChannelPath::from_text(&channel));
                let Some((home, key)) = found else {
                    return self.reply(asker, &NodeAnswer::Number(0), now);
                };
                if let Some(number) = self.inquiries.open(asker, 1, now) {
                    let reply_to = self.reply_here(number);
                    self.effects.ask(home, reply_to, Question::State(key));
                }
            }
            NodeQuestion::Occupied { app, prefix } => {
                let Some(app) = self.directory.app_by_id(&app) else {
                    let none = NodeAnswer::Channels { list: Vec::new(), last: true };
                    return self.reply(asker, &none, now);
                };
                let prefix: Arc<str> = prefix.into();
                self.ask_all_shards(asker, now, |node, shard, to| {
                    node.effects.ask(shard, to, Question::Occupied(app, Arc::clone(&prefix)));
                });
            }
            NodeQuestion::Terminate { app, user } => {
                let user = self.directory.user(&UserPath::new(&app, &user));
                let Some((_, user)) = user else {
                    return self.reply(asker, &NodeAnswer::Done, now);
                };
                self.ask_all_shards(asker, now, |node, shard, to| {
                    let terminate = ShardMessage::Terminate(to, user.app(), Arc::clone(user.id()));
                    node.effects.messages.push_back((shard, terminate));
                });
            }
            NodeQuestion::Connections { app } => {
                let app = self.directory.app_by_id(&app).and_then(|app| self.directory.app(app));
                let count = app.map_or(0, |app| app.counters.connections());
                self.reply(asker, &NodeAnswer::Number(count), now);
            }
        }
    }

    fn ask_all_shards(
        &mut self,
        asker: Asker,
        now: Millis,
        mut ask: impl FnMut(&mut Self, ShardId, ReplyTo),
    ) {
        let shards = self.directory.topology().shards();
        if let Some(number) = self.inquiries.open(asker, shards.len(), now) {
            let reply_to = self.reply_here(number);
            shards.for_each(|shard| ask(self, shard, reply_to));
        }
    }

    const fn reply_here(&self, number: u32) -> ReplyTo {
        ReplyTo { shard: self.port, request: number, index: 0 }
    }

    /// Takes the answer of a home of this node, or a part of it.
    pub(crate) fn answered(&mut self, to: ReplyTo, answer: Answer, now: Millis) {
        let complete = !matches!(answer, Answer::Occupied { last: false, .. });
        let Some((asker, last)) = self.inquiries.answered(to.request, complete) else { return };
        match answer {
            Answer::State(state) => {
                self.reply(asker, &NodeAnswer::Number(state.subscription_count), now);
            }
            Answer::Occupied { channels, .. } => self.reply_channels(asker, &channels, last, now),
            _ => {}
        }
    }

    /// Notes that a shard of this node has closed the connections of a user.
    pub(crate) fn terminated(&mut self, to: ReplyTo, now: Millis) {
        if let Some((asker, true)) = self.inquiries.answered(to.request, true) {
            self.reply(asker, &NodeAnswer::Done, now);
        }
    }

    fn reply_channels(
        &mut self,
        asker: Asker,
        channels: &[(ChannelName, ChannelState)],
        last: bool,
        now: Millis,
    ) {
        let mut parts = channels.chunks(CHANNELS_PER_PART).peekable();
        if parts.peek().is_none() && last {
            let none = NodeAnswer::Channels { list: Vec::new(), last: true };
            self.reply(asker, &none, now);
        }
        while let Some(part) = parts.next() {
            let list = part
                .iter()
                .map(|(name, of)| (name.to_string(), of.subscription_count, of.user_count))
                .collect();
            let last = last && parts.peek().is_none();
            self.reply(asker, &NodeAnswer::Channels { list, last }, now);
        }
    }

    fn reply(&mut self, asker: Asker, answer: &NodeAnswer, now: Millis) {
        let Asker { partition, node, request } = asker;
        if asker.node == HERE.node {
            let done = self.questions.answered(node, request, &encode(answer));
            return self.done(done);
        }
        self.push(partition, Command::Answer(node, request, encode(answer)), None, now);
    }
}

impl Asking {
    const fn app(&self) -> AppIndex {
        match self {
            Self::Occupied(app, _) | Self::Connections(app) | Self::Terminate(app, _) => *app,
        }
    }

    const fn gathering(&self) -> Gathering {
        match self {
            Self::Occupied(app, _) => Gathering::Occupied(*app, BTreeMap::new()),
            Self::Connections(_) => Gathering::Connections(0),
            Self::Terminate(..) => Gathering::Terminate,
        }
    }
}
