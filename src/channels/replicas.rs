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

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::apps::webhook::EventKind;
use crate::id::{AppIndex, ShardId};
use crate::invariant::broken;
use crate::memory::{KeyedSlab, Trim, number};
use crate::protocol::outbound;
use crate::time::Millis;

use super::cache::Cache;
use super::cluster::{Enter, PartitionId, ToCluster};
use super::listing::Listing;
use super::member_lists::MemberLists;
use super::message::{
    Answer, FromHome, Join, Joined, Leave, Outcome, Question, Repeat, Repeated, ReplyTo, ToHome,
    Whisper,
};
use super::wanted::WantedByApp;
use super::{
    AppPath, CacheBounds, ChannelEvent, ChannelKey, ChannelState, CountThrottle, Notice, Outbox,
    Wanted,
};
use registration::Walk;
use replica::Replica;
use standing::Standing;

/// The channels of a node of a cluster whose home is this shard: a state machine like
/// [`Homes`](super::Homes), driven in the same way, and by [`learn`](Self::learn) for each message
/// of the cluster besides.
#[derive(Debug)]
pub(crate) struct Replicas {
    channels: KeyedSlab<Replica>,
    /// The last events of cache channels that have subscribers on this node.
    cache: Cache,
    /// The lists of members of the presence channels that were joined last.
    lists: MemberLists,
    /// The channels whose subscriber count is sent to their subscribers, while they pause.
    counts: CountThrottle<ChannelKey>,
    /// The beginnings of the paths of apps, for the partitions of their channels.
    paths: HashMap<AppIndex, AppPath>,
    /// The joins that wait for an answer of the cluster, by shard and ticket.
    pending: HashMap<(ShardId, u32), Pending>,
    /// The bytes of the client events that wait behind them.
    pending_bytes: usize,
    /// Refused joins, as [`Homes`](super::Homes) remembers them.
    refused: HashSet<(ShardId, u32)>,
    /// The number of occupied channels by index of the app, as far as the highest index that ever
    /// had one.
    occupied: Vec<u32>,
    /// The notices and counts that each app wants.
    wanted: WantedByApp,
    /// Requested lists that are not finished, the next one to continue first.
    listings: VecDeque<Listing>,
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
            channels: KeyedSlab::new(),
            cache: Cache::new(bounds),
            lists: MemberLists::default(),
            counts: CountThrottle::default(),
            paths: HashMap::new(),
            pending: HashMap::new(),
            pending_bytes: 0,
            refused: HashSet::new(),
            occupied: Vec::new(),
            wanted: WantedByApp::default(),
            listings: VecDeque::new(),
            walks: VecDeque::new(),
            alone: None,
        }
    }

    /// Takes over the beginnings of the paths of all apps.
    pub(crate) fn adopt_paths(&mut self, paths: impl Iterator<Item = (AppIndex, AppPath)>) {
        // Channels of apps that were removed still have their partitions.
        self.paths.extend(paths);
    }

    /// Takes over the notices and counts that apps want, by their index.
    pub(crate) fn adopt(&mut self, wanted: Vec<Wanted>) {
        self.wanted = WantedByApp::new(wanted);
    }

    /// Handles a message of a shard of this node.
    pub(crate) fn handle(&mut self, from: ShardId, message: ToHome, now: Millis, out: &mut Outbox) {
        self.dispatch(from, message, now, out);
        self.answer_alone(now, out);
    }

    /// Sends subscriber counts whose pause is over, and drops cached events that have expired.
    pub(crate) fn tick(&mut self, now: Millis, out: &mut Outbox) {
        self.cache.expire(now);
        while let Some((key, count)) = self.counts.due(now) {
            if let Some(number) = self.find(&key) {
                self.deliver_count(number, count, out);
            }
        }
    }

    /// Whether [`work`](Self::work) has something to do.
    #[must_use]
    pub(crate) fn has_work(&self) -> bool {
        !self.listings.is_empty() || !self.walks.is_empty()
    }

    /// Does a turn's part of a list and of a walk.
    pub(crate) fn work(&mut self, now: Millis, out: &mut Outbox) {
        if let Some(listing) = self.listings.pop_front() {
            self.list(listing, now, out);
        }
        self.walk_on(now, out);
        self.answer_alone(now, out);
    }

    /// The number of channels and of cached events.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.channels.len() + self.cache.len()
    }

    /// The number of subscribers on this node.
    #[must_use]
    pub(crate) fn subscribers(&self, key: &ChannelKey) -> u32 {
        self.find(key).map_or(0, |number| self.channels[number].interest.total())
    }

    /// Whether a client event of a shard is refused, because its sender's join was.
    #[must_use]
    pub(crate) fn refuses(&self, from: ShardId, whisper: &Whisper) -> bool {
        whisper.joining.is_some_and(|joining| self.refused.contains(&(from, joining.ticket)))
    }

    /// The number of channels with subscribers on this node by index of their app.
    #[must_use]
    pub(crate) fn occupied_counts(&self) -> &[u32] {
        &self.occupied
    }

    /// The last events of cache channels, for their bounds.
    pub(crate) const fn cache_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// Gives memory back that a burst has left.
    pub(crate) fn trim(&mut self) {
        self.channels.trim();
        self.cache.trim();
        self.counts.trim();
        self.lists.trim();
        self.listings.trim();
        if self.pending.is_empty() {
            self.pending = HashMap::new();
        }
        if self.refused.is_empty() {
            self.refused = HashSet::new();
        }
    }

    /// Bytes that its lists and tables hold, in use or not, cached events not counted.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        let pending = self.pending.capacity() * size_of::<((ShardId, u32), Pending)>();
        let refused = self.refused.capacity() * size_of::<(ShardId, u32)>();
        self.channels.room() + self.counts.room() + self.listings.room() + pending + refused
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
            ToHome::Ask(reply_to, question) => self.answer(reply_to, question, now, out),
        }
    }

    /// Admits a subscriber, or has it wait for the cluster.
    fn join(&mut self, from: ShardId, join: Box<Join>, now: Millis, out: &mut Outbox) {
        debug_assert_eq!(join.key.name(), join.authorised.channel(), "a proof of another channel");
        let number = self.find_or_insert(&join.key);
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
            *self.occupied_of(key.app()) += 1;
        }
        let outcome = self.subscribed(number, now);
        // A new member was told of when the cluster answered, and costs this subscriber nothing.
        let joined = Joined { key, conn, ticket, outcome, told: 0 };
        out.send(from, FromHome::Joined(Box::new(joined)));
        if before > 0 {
            // The cluster has been told of the first one by the node's own join.
            self.report_count(number, before + 1, out);
        }
        let key = &self.channels[number].key;
        if key.name().kind().is_cache() && self.cache.get(key, now).is_none() {
            self.wanted.notify(key, ChannelEvent::CacheMiss, out);
        }
    }

    /// Refuses a join of a channel that is full.
    fn refuse(&mut self, from: ShardId, join: Join, out: &mut Outbox) {
        let Join { key, conn, ticket, .. } = join;
        self.refused.insert((from, ticket));
        let joined = Joined { key, conn, ticket, outcome: Outcome::Full, told: 0 };
        out.send(from, FromHome::Joined(Box::new(joined)));
    }

    /// Repeats the answer to a join, as it would be answered now.
    fn repeat(&mut self, from: ShardId, repeat: Box<Repeat>, now: Millis, out: &mut Outbox) {
        if self.is_pending(from, repeat.ticket) && self.may_wait(from, repeat.ticket, 0) {
            let (key, ticket) = (repeat.key.clone(), repeat.ticket);
            return self.wait(&key, from, ticket, ToHome::Repeat(repeat));
        }
        let Repeat { key, conn, ticket, .. } = *repeat;
        let pending = self.is_pending(from, ticket);
        let refused =
            pending || ticket.is_some_and(|ticket| self.refused.contains(&(from, ticket)));
        let number = self.find(&key);
        let outcome = match number.filter(|_| !refused) {
            Some(number) => self.subscribed(number, now),
            // A subscription that is counted keeps the replica, so this one is not counted.
            None => Outcome::Full,
        };
        out.send(from, FromHome::Repeated(Box::new(Repeated { key, conn, outcome })));
    }

    /// Ends a subscription.
    fn leave(&mut self, from: ShardId, leave: Leave, out: &mut Outbox) {
        if leave.ticket.is_some_and(|ticket| self.refused.remove(&(from, ticket))) {
            return;
        }
        if self.is_pending(from, leave.ticket) {
            let (key, ticket) = (leave.key.clone(), leave.ticket);
            return self.wait(&key, from, ticket, ToHome::Leave(leave));
        }
        let Some(number) = self.find(&leave.key) else { return };
        if !self.channels[number].interest.remove(from) {
            return;
        }
        let left = self.channels[number].interest.total();
        if left == 0 {
            *self.occupied_of(leave.key.app()) -= 1;
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
        let refused = pending || self.refuses(from, &whisper);
        let Whisper { event, joining, notice } = *whisper;
        if let Some(joining) = joining.filter(|_| refused) {
            let name = event.key.name().clone();
            return out.send(from, FromHome::NotMember(joining.conn, name));
        }
        if let Some(notice) = notice {
            let (app, channel) = (event.key.app(), event.key.name().clone());
            out.notify(Notice { app, channel, event: ChannelEvent::ClientEvent(notice) });
        }
        self.tell(ToCluster::Publish(event), out);
    }

    /// Answers a question about the subscribers of this node. The cluster knows the rest.
    fn answer(&mut self, reply_to: ReplyTo, question: Question, now: Millis, out: &mut Outbox) {
        let answer = match question {
            Question::Barrier => Answer::Barrier,
            Question::State(key) => Answer::State(self.state(&key, now)),
            Question::Users(key) => Answer::Users(self.users(&key)),
            Question::Connections(_) => {
                broken("a home is asked for the connections of an app");
                Answer::Unavailable
            }
            Question::Occupied(app, prefix) => {
                return self.list(Listing { reply_to, app, prefix, from: 0 }, now, out);
            }
        };
        out.send(reply_to.shard, FromHome::Answer(reply_to, Box::new(answer)));
    }

    /// Sends the next part of a list, and keeps the rest for later.
    fn list(&mut self, listing: Listing, now: Millis, out: &mut Outbox) {
        let occupied = |number| {
            let of = self.channels.get(number).filter(|of| !of.interest.is_empty());
            of.map(|of| &of.key)
        };
        let state = |key: &ChannelKey| self.state(key, now);
        let rest = listing.send_part(self.channels.end(), occupied, state, out);
        self.listings.extend(rest);
    }
}

/// The state of channels, and its announcement.
impl Replicas {
    /// The subscribers of this node, and the users of all nodes.
    fn state(&self, key: &ChannelKey, now: Millis) -> ChannelState {
        let replica = self.find(key).map(|number| &self.channels[number]);
        ChannelState {
            subscription_count: replica.map_or(0, |of| of.interest.total()),
            user_count: number(replica.map_or(0, Replica::members)),
            cached: self.cache.get(key, now).map(|last| last.reported(now)),
        }
    }

    /// The ids of the members, once each.
    fn users(&self, key: &ChannelKey) -> Vec<Box<str>> {
        let attendance =
            self.find(key).and_then(|number| self.channels[number].attendance.as_ref());
        let ids = attendance.iter().flat_map(|of| of.all());
        ids.map(|member| Box::from(&*member.user_id)).collect()
    }

    /// The answer to a join that was counted.
    fn subscribed(&mut self, number: u32, now: Millis) -> Outcome {
        let Replica { key, attendance, .. } = &self.channels[number];
        let members = attendance.iter().flat_map(|of| of.all());
        self.lists.subscribed(number, key, members, self.cache.get(key, now))
    }

    /// Tells the cluster how many subscribers a channel has on this node, if anyone wants to know.
    /// The members of presence channels are told instead.
    fn report_count(&mut self, number: u32, count: u32, out: &mut Outbox) {
        let key = &self.channels[number].key;
        let wanted = self.wanted.of(key.app());
        let counted = wanted.counts || wanted.notices.contains(EventKind::SubscriptionCount);
        if counted && count > 0 && !key.name().kind().is_presence() {
            let count = ToCluster::Count(key.clone(), count);
            self.tell(count, out);
        }
    }

    fn deliver_count(&self, number: u32, count: u32, out: &mut Outbox) {
        let replica = &self.channels[number];
        replica.deliver(&outbound::subscription_count(replica.key.name(), count), None, out);
    }
}

/// The table of replicas, and the messages that wait.
impl Replicas {
    fn find(&self, key: &ChannelKey) -> Option<u32> {
        self.channels.find(key.hash(), |replica| replica.key == *key)
    }

    fn find_or_insert(&mut self, key: &ChannelKey) -> u32 {
        let same = |replica: &Replica| replica.key == *key;
        self.channels.find_or_insert(key.hash(), same, || Replica::new(key.clone()))
    }

    /// Whether a channel belongs to a partition.
    fn is_in(&self, key: &ChannelKey, partition: PartitionId) -> bool {
        let path = self.paths.get(&key.app());
        path.is_some_and(|path| path.partition(key.name(), partition.of) == partition.number)
    }

    fn occupied_of(&mut self, app: AppIndex) -> &mut u32 {
        let index = usize::from(app.0);
        self.occupied.resize(self.occupied.len().max(index + 1), 0);
        &mut self.occupied[index]
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
        let Some(number) = self.find(key) else { return };
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
