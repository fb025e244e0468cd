//! The channels whose home on this node is this shard, if the node is one of a cluster. There the
//! cluster is the home of homes: it knows which nodes are interested, orders the messages and keeps
//! the members. A home keeps a replica of what concerns the subscribers of its node.
//!
//! The first subscribe of a channel on the node waits for the cluster's answer, and so does the
//! first one of each user of a presence channel. Messages that depend on a waiting one wait behind
//! it, in the order in which they came. All others are answered at once from the replica, which is
//! right because it takes the cluster's messages in their order: an event that the cluster ordered
//! behind an answer reaches the new subscriber.
//!
//! The last leave of a channel on the node is told at once, although many pages reload and come
//! back within a second. A leave that lingered would be seen: `channel_vacated` and the counts that
//! others are told would come later than on one machine, and members have to leave at once anyway.
//! It would save some 24 us of Redis per reload. A page that comes back while the leave is on its
//! way waits for one answer ([`Standing::Leaving`]).
//!
//! While the node is [alone](super::FromCluster::Alone), because the cluster is away, the homes
//! answer themselves in its place (`alone`).

mod alone;
mod attendance;
mod from_cluster;
mod registration;
mod replica;
mod standing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::apps::webhook::EventKind;
use crate::id::{AppIndex, ShardId};
use crate::time::Millis;

use super::cluster::{Enter, PartitionId, ToCluster};
use super::message::{FromHome, Join, Joined, Leave, Outcome, Repeat, Repeated, ToHome, Whisper};
use super::table::{ChannelTable, Channels, refuse_whisper};
use super::{AppPath, CacheBounds, ChannelEvent, ChannelKey, Outbox};
use registration::Walk;
use replica::Replica;
use standing::Standing;

/// The channels of a node of a cluster whose home is this shard: a state machine that is driven as
/// [`Homes`](super::Homes) are. Each message of the cluster goes to [`learn`](Self::learn) besides,
/// and while the replicas [have work](Self::has_work), [`work`](Self::work) has to be called once
/// per turn.
#[derive(Debug)]
pub(crate) struct Replicas {
    /// Channels with subscribers on this node, or that are about to have some, and the last events
    /// of cache channels among them.
    channels: ChannelTable<Replica>,
    /// The beginnings of the paths of apps, for the partitions of their channels.
    paths: HashMap<AppIndex, AppPath>,
    /// The joins that wait for an answer of the cluster, by shard and ticket.
    pending: HashMap<(ShardId, u32), Pending>,
    /// The bytes of the client events that wait behind them.
    pending_bytes: usize,
    /// Walks over the channels of partitions that are not finished.
    walks: VecDeque<Walk>,
    /// The questions to the cluster that these homes answer themselves; `None` unless the node is
    /// alone.
    alone: Option<VecDeque<ToCluster>>,
}

/// A join that waits for an answer of the cluster.
#[derive(Debug)]
struct Pending {
    /// The user of a presence channel.
    user: Option<Arc<str>>,
    /// The number of messages that wait behind it.
    behind: u8,
}

/// The most messages that wait behind one join: client libraries send a few client events before
/// they hear of their subscription.
const BEHIND_MAX: u8 = 16;

/// The most bytes of client events that wait behind joins.
const PENDING_BYTES_MAX: usize = 8 << 20;

impl Replicas {
    /// Replicas without channels.
    #[must_use]
    pub(crate) fn new(bounds: CacheBounds) -> Self {
        Self {
            channels: ChannelTable::new(bounds),
            paths: HashMap::new(),
            pending: HashMap::new(),
            pending_bytes: 0,
            walks: VecDeque::new(),
            alone: None,
        }
    }

    /// The channels, for everything but messages.
    pub(crate) const fn channels(&self) -> &impl Channels {
        &self.channels
    }

    /// The channels, for everything but messages.
    pub(crate) const fn channels_mut(&mut self) -> &mut impl Channels {
        &mut self.channels
    }

    /// Takes over the beginnings of the paths of all apps.
    pub(crate) fn adopt_paths(&mut self, paths: impl Iterator<Item = (AppIndex, AppPath)>) {
        // Channels of apps that were removed still have their partitions.
        self.paths.extend(paths);
    }

    /// Handles a message of a shard of this node.
    pub(crate) fn handle(&mut self, from: ShardId, message: ToHome, now: Millis, out: &mut Outbox) {
        self.dispatch(from, message, now, out);
        self.answer_alone(now, out);
    }

    /// Whether [`work`](Self::work) has something to do.
    #[must_use]
    pub(crate) fn has_work(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Does a turn's part of a walk.
    pub(crate) fn work(&mut self, now: Millis, out: &mut Outbox) {
        self.walk_on(now, out);
        self.answer_alone(now, out);
    }

    /// Gives memory back that a burst of joins has left.
    pub(crate) fn trim(&mut self) {
        if self.pending.is_empty() {
            self.pending = HashMap::new();
        }
    }

    /// Bytes that the table of pending joins holds, in use or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        self.pending.capacity() * size_of::<((ShardId, u32), Pending)>()
    }
}

/// The handling of each message of a shard.
impl Replicas {
    fn dispatch(&mut self, from: ShardId, message: ToHome, now: Millis, out: &mut Outbox) {
        match message {
            ToHome::Join(join) => self.join(from, join, now, out),
            ToHome::Repeat(repeat) => self.repeat(from, repeat, now, out),
            ToHome::Leave(leave) => self.leave(from, leave, out),
            ToHome::Whisper(whisper) => self.whisper(from, whisper, out),
            ToHome::Publish(event) => self.tell(ToCluster::Publish(event), out),
            ToHome::PublishAndReport(event, reply_to) => {
                self.tell(ToCluster::PublishAndConfirm(event, reply_to), out);
            }
            ToHome::Ask(reply_to, question) => self.channels.answer(reply_to, question, now, out),
        }
    }

    /// Admits a subscriber, or has it wait for the cluster.
    fn join(&mut self, from: ShardId, join: Box<Join>, now: Millis, out: &mut Outbox) {
        debug_assert_eq!(join.key.name(), join.authorised.channel(), "a proof of another channel");
        let number = self.channels.find_or_insert(&join.key);
        let replica = &mut self.channels[number];
        let user = join.authorised.member().map(|member| Arc::clone(&member.user_id));
        if replica.standing != Standing::In {
            self.pending.insert((from, join.ticket), Pending { user, behind: 0 });
            replica.waiting.push((from, ToHome::Join(join)));
            self.enter_channel(number, out);
            return;
        }
        let Some(member) = join.authorised.member().cloned() else {
            return self.admit(number, from, &join, now, out);
        };
        let attendance = replica.attendance.get_or_insert_default();
        let attendee = attendance.get_or_insert(&member);
        if attendee.standing == Standing::In {
            attendee.subscriptions.add(from);
            return self.admit(number, from, &join, now, out);
        }
        let max_members = join.max_members;
        self.pending.insert((from, join.ticket), Pending { user, behind: 0 });
        attendee.waiting.push((from, ToHome::Join(join)));
        if attendee.standing == Standing::Out {
            attendee.standing = Standing::Entering;
            let enter = Enter { key: replica.key.clone(), member, max_members };
            self.tell(ToCluster::Enter(Box::new(enter)), out);
        }
    }

    /// Asks the cluster to let the node into a channel, unless it has been asked, or is told that
    /// the node leaves and has not answered that.
    fn enter_channel(&mut self, number: u32, out: &mut Outbox) {
        let replica = &mut self.channels[number];
        if replica.standing == Standing::Out {
            replica.standing = Standing::Entering;
            let join = ToCluster::Join(replica.key.clone(), 1);
            self.tell(join, out);
        }
    }

    /// Counts a subscriber and answers its shard.
    fn admit(&mut self, number: u32, from: ShardId, join: &Join, now: Millis, out: &mut Outbox) {
        let (key, conn, ticket) = (join.key.clone(), join.conn, join.ticket);
        let before = self.channels[number].interest.total();
        self.channels[number].interest.add(from);
        if before == 0 {
            self.channels.occupy(&key);
        }
        let outcome = self.channels.subscribed(number, now);
        // A new member was told of when the cluster answered, and costs this subscriber nothing.
        let joined = Joined { key, conn, ticket, outcome, told: 0 };
        out.send(from, FromHome::Joined(Box::new(joined)));
        if before > 0 {
            // The cluster has been told of the first one by the node's own join.
            self.report_count(number, before + 1, out);
        }
        if self.channels.misses(number, now) {
            let key = &self.channels[number].key;
            self.channels.wanted.notify(key, ChannelEvent::CacheMiss, out);
        }
    }

    /// Repeats the answer to a join, as it would be answered now.
    fn repeat(&mut self, from: ShardId, repeat: Box<Repeat>, now: Millis, out: &mut Outbox) {
        if self.is_pending(from, repeat.ticket) && self.may_wait(from, repeat.ticket, 0) {
            let (key, ticket) = (repeat.key.clone(), repeat.ticket);
            return self.wait(&key, from, ticket, ToHome::Repeat(repeat));
        }
        let Repeat { key, conn, ticket, .. } = *repeat;
        let refused = self.is_pending(from, ticket) || self.channels.is_refused(from, ticket);
        let number = self.channels.find(&key);
        let outcome = match number.filter(|_| !refused) {
            Some(number) => self.channels.subscribed(number, now),
            // A subscription that is counted keeps the replica, so this one is not counted.
            None => Outcome::Full,
        };
        out.send(from, FromHome::Repeated(Box::new(Repeated { key, conn, outcome })));
    }

    /// Ends a subscription.
    fn leave(&mut self, from: ShardId, leave: Leave, out: &mut Outbox) {
        if self.channels.acknowledge(from, leave.ticket) {
            return;
        }
        if self.is_pending(from, leave.ticket) {
            let (key, ticket) = (leave.key.clone(), leave.ticket);
            return self.wait(&key, from, ticket, ToHome::Leave(leave));
        }
        let Some(number) = self.channels.find(&leave.key) else { return };
        if !self.channels[number].interest.remove(from) {
            return;
        }
        let left = self.channels[number].interest.total();
        if left == 0 {
            self.channels.vacate(&leave.key);
        }
        if let Some(member) = &leave.member {
            self.part(number, from, &member.user_id, out);
        }
        self.report_count(number, left, out);
        self.leave_if_unused(number, out);
    }

    /// Ends a subscription of a user. The last one on this node is reported to the cluster.
    fn part(&mut self, number: u32, from: ShardId, user_id: &Arc<str>, out: &mut Outbox) {
        let replica = &mut self.channels[number];
        let attendance = replica.attendance.as_mut();
        let Some(attendee) = attendance.and_then(|of| of.get_mut(user_id)) else { return };
        attendee.subscriptions.remove(from);
        if attendee.subscriptions.is_empty() && attendee.standing == Standing::In {
            attendee.standing = Standing::Leaving;
            let part = ToCluster::Part(replica.key.clone(), Arc::clone(user_id));
            self.tell(part, out);
        }
    }

    /// Tells the cluster that the node leaves a channel that nothing on it needs any more.
    fn leave_if_unused(&mut self, number: u32, out: &mut Outbox) {
        let replica = &mut self.channels[number];
        if replica.standing == Standing::In && replica.is_unused() {
            replica.standing = Standing::Leaving;
            let leave = ToCluster::Leave(replica.key.clone());
            self.tell(leave, out);
        }
    }

    /// Relays a client event, unless its sender's join was refused.
    fn whisper(&mut self, from: ShardId, whisper: Box<Whisper>, out: &mut Outbox) {
        let ticket = whisper.joining.map(|joining| joining.ticket);
        let pending = self.is_pending(from, ticket);
        if pending && self.may_wait(from, ticket, whisper.event.frame.len()) {
            let key = whisper.event.key.clone();
            return self.wait(&key, from, ticket, ToHome::Whisper(whisper));
        }
        if pending {
            refuse_whisper(from, *whisper, out);
        } else if let Some(event) = self.channels.accept(from, *whisper, out) {
            self.tell(ToCluster::Publish(event), out);
        }
    }

    /// Tells the cluster how many subscribers a channel has on this node, if anyone wants to know.
    /// The members of presence channels are told instead.
    fn report_count(&mut self, number: u32, count: u32, out: &mut Outbox) {
        let key = &self.channels[number].key;
        let wanted = self.channels.wanted.of(key.app());
        let counted = wanted.counts || wanted.notices.contains(EventKind::SubscriptionCount);
        if counted && count > 0 && !key.name().kind().is_presence() {
            let count = ToCluster::Count(key.clone(), count);
            self.tell(count, out);
        }
    }
}

/// The messages that wait.
impl Replicas {
    /// Whether a channel belongs to a partition.
    fn is_in(&self, key: &ChannelKey, partition: PartitionId) -> bool {
        let path = self.paths.get(&key.app());
        path.is_some_and(|path| path.partition(key.name(), partition.of) == partition.number)
    }

    /// Whether a message names a join that waits.
    fn is_pending(&self, from: ShardId, ticket: Option<u32>) -> bool {
        ticket.is_some_and(|ticket| self.pending.contains_key(&(from, ticket)))
    }

    /// Counts a message that is to wait behind a join. Returns `false` if there are too many: what
    /// clients send while the cluster does not answer must not fill the memory.
    fn may_wait(&mut self, from: ShardId, ticket: Option<u32>, bytes: usize) -> bool {
        let pending = ticket.and_then(|ticket| self.pending.get_mut(&(from, ticket)));
        let Some(pending) = pending else { return false };
        let room = pending.behind < BEHIND_MAX && self.pending_bytes + bytes <= PENDING_BYTES_MAX;
        if room {
            pending.behind += 1;
            self.pending_bytes += bytes;
        }
        room
    }

    /// Has a message wait behind the join that it names: with those of its channel while the node
    /// is not in the channel, and with those of its user afterwards.
    fn wait(&mut self, key: &ChannelKey, from: ShardId, ticket: Option<u32>, message: ToHome) {
        let Some(number) = self.channels.find(key) else { return };
        let user = ticket.and_then(|ticket| self.pending.get(&(from, ticket))?.user.as_deref());
        let replica = &mut self.channels[number];
        let attendance = replica.attendance.as_mut().filter(|_| replica.standing == Standing::In);
        let attendee = attendance.and_then(|of| of.get_mut(user?));
        let waiting = attendee.map_or(&mut replica.waiting, |attendee| &mut attendee.waiting);
        waiting.push((from, message));
    }

    /// Handles messages that have waited, in their order.
    fn resume(&mut self, waiting: Vec<(ShardId, ToHome)>, now: Millis, out: &mut Outbox) {
        for (from, message) in waiting {
            self.no_longer_pending(from, &message);
            self.dispatch(from, message, now, out);
        }
    }

    /// Takes note that a message does not wait any more.
    fn no_longer_pending(&mut self, from: ShardId, message: &ToHome) {
        match message {
            ToHome::Join(join) => _ = self.pending.remove(&(from, join.ticket)),
            ToHome::Whisper(whisper) => self.pending_bytes -= whisper.event.frame.len(),
            _ => {}
        }
    }

    /// Sends a message to the cluster, or keeps it while the node is alone.
    fn tell(&mut self, message: ToCluster, out: &mut Outbox) {
        match &mut self.alone {
            None => out.tell_cluster(message),
            Some(own) => own.push_back(message),
        }
    }
}

#[cfg(test)]
mod tests;
