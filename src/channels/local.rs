//! The subscribers of this shard. Joining and leaving are O(1): a subscriber knows its place in its
//! connection's list, and the connection its place among the channel's subscribers.

mod subscriptions;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::counters::{ByKind, PerApp};
use crate::frame::Frame;
use crate::id::AppIndex;
use crate::memory::{Chunked, Holder, INDEX_ENTRY_BYTES, Keyed, KeyedSlab, Per, Trim, number};
use crate::protocol::auth::{Authorised, Member};

use super::ChannelKey;
use subscriptions::{JOINING, Subscription, Subscriptions};

/// The memory that a channel, its subscribers and their connections cost on a shard.
pub(super) const BUDGET: [Holder; 4] = [
    Holder {
        name: "list of subscriptions, the first in it",
        bytes: size_of::<Subscriptions>(),
        per: Per::Connection,
    },
    Holder {
        name: "place among the subscribers",
        bytes: size_of::<Subscriber>(),
        per: Per::Subscription,
    },
    Holder {
        name: "subscribers of a shard, the first two in it",
        bytes: size_of::<Option<Topic>>(),
        per: Per::Channel,
    },
    Holder { name: "place in the shard's table", bytes: INDEX_ENTRY_BYTES, per: Per::Channel },
];

/// Channels with subscribers on this shard, and the subscriptions of its connections.
///
/// A subscription begins with [`find`](Self::find) and [`Vacant::insert`], and is pending until the
/// home's answer goes to [`joined`](Self::joined) or [`refused`](Self::refused). It ends with
/// [`unsubscribe`](Self::unsubscribe) or [`disconnect`](Self::disconnect), which report what the
/// caller has to tell the home. A further answer to a subscriber goes to
/// [`repeated`](Self::repeated). Events go to [`deliver`](Self::deliver), in the order in which
/// they come from the home; at the end of the turn [`flush`](Self::flush) hands them out.
#[derive(Debug, Default)]
pub struct Local {
    /// Channels with a subscriber or a pending join.
    topics: KeyedSlab<Topic>,
    /// Subscriptions by the slot of their connection.
    connections: Chunked<Subscriptions>,
    /// Messages of this turn by topic, in the order in which each topic got its first.
    dirty: Vec<Dirty>,
    /// The ticket of the last join.
    next_ticket: u32,
    /// The subscriptions that are not pending, by app and kind of channel.
    subscribed: PerApp<ByKind>,
}

/// A channel on this shard.
#[derive(Debug)]
struct Topic {
    key: ChannelKey,
    subscribers: SmallVec<[Subscriber; 2]>,
    /// The number of pending joins.
    joining: u32,
    /// The index in [`Local::dirty`] of the messages of this turn, or [`CLEAN`].
    dirty: u32,
}

impl Keyed for Topic {
    fn key_hash(&self) -> u64 {
        self.key.hash()
    }
}

/// Marks a topic that has no messages.
const CLEAN: u32 = u32::MAX;

/// The messages of a topic in this turn.
#[derive(Debug)]
struct Dirty {
    /// The number of the topic.
    topic: u32,
    /// The messages in the home's order. Empty if the topic is gone.
    outgoing: Vec<Outgoing>,
    /// Slots that are owed only the messages from an index on, because they joined behind the
    /// earlier ones or have been handed them already. The last entry of a slot counts.
    late: Vec<(u32, usize)>,
}

impl Dirty {
    /// The index of the first message that a subscriber is owed.
    fn first_for(&self, slot: u32) -> usize {
        let found = self.late.iter().rev().find(|&&(of, _)| of == slot);
        found.map_or(0, |&(_, from)| from)
    }
}

/// One subscriber of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    /// The slot of the connection.
    pub(crate) slot: u32,
    /// The index of the subscription in the connection's list.
    back: u32,
}

#[derive(Debug)]
struct Outgoing {
    frame: Frame,
    /// The slot of the connection that must not get the message, if any.
    except: Option<u32>,
}

/// A connection's subscription to a channel, if it has one.
#[derive(Debug)]
pub enum Found<'a> {
    /// The connection has no subscription to the channel.
    Vacant(Vacant<'a>),
    /// The home has been asked with this ticket; its answer is on the way.
    Joining(u32),
    /// The connection is subscribed.
    Subscribed,
}

/// The vacant place of a connection's subscription to a channel, as found, so that nothing is
/// searched twice.
#[derive(Debug)]
pub struct Vacant<'a> {
    local: &'a mut Local,
    slot: u32,
    key: &'a ChannelKey,
    topic: Option<u32>,
}

impl Vacant<'_> {
    /// The number of subscriptions of the connection, including pending ones.
    #[must_use]
    pub(crate) fn subscriptions(&self) -> usize {
        self.local.count(self.slot)
    }

    /// Begins the subscription that the proof allows. Returns the ticket with which the home has to
    /// be asked; [`Local::joined`] or [`Local::refused`] follows.
    pub fn insert(self, authorised: &Authorised) -> u32 {
        debug_assert_eq!(self.key.name(), authorised.channel(), "the proof is for another channel");
        let Self { local, slot, key, topic } = self;
        let topic = topic.unwrap_or_else(|| local.topics.insert(Topic::new(key.clone())));
        local.topics[topic].joining += 1;
        // Tickets are never 0, so that 0 means no ticket.
        local.next_ticket = local.next_ticket % (JOINING - 1) + 1;
        let ticket = local.next_ticket;
        let member = authorised.member().cloned();
        let subscription = Subscription { topic, position: JOINING | ticket, member };
        let Local { topics, connections, .. } = local;
        connections.extend_to(slot as usize + 1);
        connections[slot as usize].push(subscription, |of| weight_of(topics, of));
        ticket
    }
}

/// A connection's subscription to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership<'a> {
    /// The member, on presence channels.
    pub(crate) member: Option<&'a Arc<Member>>,
    /// The ticket of the join while its answer is on the way. Messages that are sent to the home
    /// now arrive there after the join.
    pub(crate) ticket: Option<u32>,
}

/// The effect of a home's answer to a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The connection is subscribed from now on, or has no subscription any more.
    Done,
    /// The answer has no effect, because the connection left meanwhile, or subscribed anew. The
    /// home was told of that at the time.
    Void,
}

/// Messages that all of a channel's subscribers are owed, and the exceptions.
#[derive(Debug)]
pub struct Batch<'a> {
    outgoing: &'a [Outgoing],
    late: &'a [(u32, usize)],
}

impl Batch<'_> {
    /// All messages, oldest first.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = &Frame> {
        self.outgoing.iter().map(|outgoing| &outgoing.frame)
    }

    /// Slots that must not get a message, each with that message's index.
    pub(crate) fn exceptions(&self) -> impl Iterator<Item = (u32, usize)> {
        let indexed = self.outgoing.iter().enumerate();
        indexed.filter_map(|(index, outgoing)| Some((outgoing.except?, index)))
    }

    /// Slots that are owed only the messages from an index on. If a slot has several entries, the
    /// largest index counts.
    pub(crate) fn late(&self) -> &[(u32, usize)] {
        self.late
    }
}

/// A channel's messages of a turn, with the subscribers that are owed them.
#[derive(Debug)]
pub struct TopicBatch<'a> {
    /// The messages.
    pub batch: Batch<'a>,
    /// The subscribers of the channel on this shard.
    pub(crate) subscribers: &'a [Subscriber],
    /// The app that the channel belongs to.
    pub(crate) app: AppIndex,
}

impl Local {
    /// Looks for a connection's subscription to a channel, to begin one if there is none.
    pub fn find<'a>(&'a mut self, slot: u32, key: &'a ChannelKey) -> Found<'a> {
        let topic = self.topic(key);
        match topic.and_then(|topic| self.position(slot, topic)) {
            None => Found::Vacant(Vacant { local: self, slot, key, topic }),
            Some(at) => {
                self.subscription(slot, at).ticket().map_or(Found::Subscribed, Found::Joining)
            }
        }
    }

    /// Makes a connection a subscriber, after the home has counted its join. The new subscriber
    /// gets none of the messages that are here already.
    pub fn joined(&mut self, slot: u32, key: &ChannelKey, ticket: u32) -> Settled {
        let Some((topic, at)) = self.find_joining(slot, key, ticket) else { return Settled::Void };
        if let Some(dirty) = self.dirty_of(topic) {
            dirty.late.push((slot, dirty.outgoing.len()));
        }
        let entry = &mut self.topics[topic];
        entry.joining -= 1;
        let position = entry.add(Subscriber { slot, back: at });
        self.connections[slot as usize].list_mut()[at as usize].position = position;
        self.subscribed.of(key.app())[key.name().kind() as usize] += 1;
        Settled::Done
    }

    /// Handles the home's repeated answer to a subscriber. Hands the messages that the home ordered
    /// before it to `settle` first. Returns `false` if the connection has unsubscribed meanwhile.
    pub(crate) fn repeated(
        &mut self,
        slot: u32,
        key: &ChannelKey,
        settle: &mut impl FnMut(&Frame),
    ) -> bool {
        if self.membership(slot, key).is_none_or(|of| of.ticket.is_some()) {
            return false;
        }
        if let Some(topic) = self.topic(key) {
            self.settle(slot, topic, settle);
        }
        true
    }

    /// Ends a subscription whose join the home has refused. On [`Settled::Done`] the caller has to
    /// acknowledge the refusal, by a leave with the ticket.
    pub(crate) fn refused(&mut self, slot: u32, key: &ChannelKey, ticket: u32) -> Settled {
        let Some((_, at)) = self.find_joining(slot, key, ticket) else { return Settled::Void };
        self.remove(slot, at);
        Settled::Done
    }

    fn find_joining(&self, slot: u32, key: &ChannelKey, ticket: u32) -> Option<(u32, u32)> {
        let topic = self.topic(key)?;
        let at = self.position(slot, topic)?;
        (self.subscription(slot, at).position == JOINING | ticket).then_some((topic, at))
    }

    /// Ends a subscription of a connection, pending or not. Hands the messages of this turn that it
    /// is owed to `settle` first. Returns what the home has to be told, or `None` if there is no
    /// subscription.
    pub fn unsubscribe(
        &mut self,
        slot: u32,
        key: &ChannelKey,
        settle: &mut impl FnMut(&Frame),
    ) -> Option<Left> {
        let topic = self.topic(key)?;
        let at = self.position(slot, topic)?;
        if self.subscription(slot, at).ticket().is_none() {
            self.settle(slot, topic, settle);
        }
        Some(self.remove(slot, at)?.1)
    }

    /// Ends at most `most` subscriptions of a connection that has ended, pending or not, and calls
    /// `left` for each, which tells the home. Returns how many it ended; if they are fewer than
    /// `most`, none is left. Until then the slot must not have another connection.
    pub(crate) fn disconnect(
        &mut self,
        slot: u32,
        most: usize,
        mut left: impl FnMut(ChannelKey, Left),
    ) -> usize {
        for removed in 0..most {
            let last = self.count(slot).checked_sub(1);
            let Some((key, of)) = last.and_then(|last| self.remove(slot, number(last))) else {
                return removed;
            };
            left(key, of);
        }
        most
    }

    /// Adds an event to the messages of this turn for the subscribers on this shard. `except` is
    /// the slot that must not get it.
    pub fn deliver(&mut self, key: &ChannelKey, frame: Frame, except: Option<u32>) {
        let Some(topic) = self.topic(key) else { return };
        let entry = &mut self.topics[topic];
        if entry.subscribers.is_empty() {
            return;
        }
        if entry.dirty == CLEAN {
            entry.dirty = number(self.dirty.len());
            self.dirty.push(Dirty { topic, outgoing: Vec::new(), late: Vec::new() });
        }
        self.dirty[entry.dirty as usize].outgoing.push(Outgoing { frame, except });
    }

    /// Hands every channel's messages to `emit`, at the end of the turn.
    pub fn flush(&mut self, mut emit: impl FnMut(TopicBatch<'_>)) {
        for Dirty { topic, outgoing, late } in self.dirty.drain(..) {
            if !outgoing.is_empty() {
                let entry = &mut self.topics[topic];
                entry.dirty = CLEAN;
                let batch = Batch { outgoing: &outgoing, late: &late };
                let app = entry.key.app();
                emit(TopicBatch { batch, subscribers: &entry.subscribers, app });
            }
        }
    }

    /// A connection's subscription to a channel, pending or not. `None` if it has none.
    #[must_use]
    pub(crate) fn membership(&self, slot: u32, key: &ChannelKey) -> Option<Membership<'_>> {
        let subscription = self.subscription(slot, self.position(slot, self.topic(key)?)?);
        let (member, ticket) = (subscription.member.as_ref(), subscription.ticket());
        Some(Membership { member, ticket })
    }

    /// The number of subscriptions of a connection, including pending ones.
    #[must_use]
    pub(crate) fn count(&self, slot: u32) -> usize {
        self.connections.get(slot as usize).map_or(0, |of| of.list().len())
    }

    /// The bytes that the subscriptions of a connection hold, with the names of channels as if no
    /// other connection shared them. The result is 0 for a connection with a single subscription.
    #[must_use]
    pub(crate) fn held(&self, slot: u32) -> usize {
        self.connections.get(slot as usize).map_or(0, Subscriptions::bytes)
    }

    /// The subscriptions by app and kind of channel, without pending ones.
    #[must_use]
    pub(crate) const fn subscribed(&self) -> &PerApp<ByKind> {
        &self.subscribed
    }

    /// The number of subscribers that a channel has on this shard.
    #[must_use]
    pub(crate) fn subscribers(&self, key: &ChannelKey) -> usize {
        self.topic(key).map_or(0, |topic| self.topics[topic].subscribers.len())
    }

    /// Whether a connection has a subscription, pending or not, to a channel for which `wanted`
    /// returns `true`.
    #[must_use]
    pub(crate) fn subscribes(&self, slot: u32, wanted: impl Fn(&ChannelKey) -> bool) -> bool {
        let list = self.connections.get(slot as usize).map_or(&[][..], Subscriptions::list);
        list.iter().any(|of| self.topics.get(of.topic).is_some_and(|topic| wanted(&topic.key)))
    }

    /// Whether a connection is present in any channel as this user.
    #[must_use]
    pub(crate) fn is_user(&self, slot: u32, user_id: &str) -> bool {
        let list = self.connections.get(slot as usize).map_or(&[][..], Subscriptions::list);
        let mut members = list.iter().filter_map(|of| of.member.as_ref());
        members.any(|member| &*member.user_id == user_id)
    }

    /// The number of channels with a subscriber or a pending join on this shard.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn channels(&self) -> usize {
        self.topics.len()
    }

    /// Gives memory back that a burst has left. Called between turns.
    pub(crate) fn trim(&mut self) {
        self.dirty.trim();
        // Messages name their topics by number, which has to stay the same.
        if self.dirty.is_empty() {
            self.topics.trim();
        }
    }

    /// Bytes that its lists and tables hold, in use or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        self.topics.room() + self.connections.room() + self.dirty.room()
    }

    /// Hands a subscriber the messages of a topic that it is owed so far.
    fn settle(&mut self, slot: u32, topic: u32, owe: &mut impl FnMut(&Frame)) {
        let Some(dirty) = self.dirty_of(topic) else { return };
        let owed = dirty.outgoing.iter().skip(dirty.first_for(slot));
        owed.filter(|of| of.except != Some(slot)).for_each(|of| owe(&of.frame));
        dirty.late.push((slot, dirty.outgoing.len()));
    }

    /// A topic's messages of this turn, if it has any.
    fn dirty_of(&mut self, topic: u32) -> Option<&mut Dirty> {
        self.dirty.get_mut(self.topics[topic].dirty as usize)
    }

    fn topic(&self, key: &ChannelKey) -> Option<u32> {
        self.topics.find(key.hash(), |topic| topic.key == *key)
    }

    /// The index of a connection's subscription to a topic in the connection's list.
    fn position(&self, slot: u32, topic: u32) -> Option<u32> {
        self.connections.get(slot as usize)?.find(topic)
    }

    fn subscription(&self, slot: u32, at: u32) -> &Subscription {
        &self.connections[slot as usize].list()[at as usize]
    }

    /// Removes a subscription from both lists. If it is pending, the answer to its join will have
    /// no effect.
    fn remove(&mut self, slot: u32, at: u32) -> Option<(ChannelKey, Left)> {
        let Self { topics, connections, .. } = self;
        let list = &mut connections[slot as usize];
        let removed = list.swap_remove(at, |of| weight_of(topics, of))?;
        // The last subscription has moved to `at`: its subscriber must point there.
        if let Some(moved) = list.list().get(at as usize)
            && moved.ticket().is_none()
        {
            topics[moved.topic].subscribers[moved.position as usize].back = at;
        }
        let topic = &mut topics[removed.topic];
        let key = topic.key.clone();
        let ticket = removed.ticket();
        if ticket.is_none() {
            let position = removed.position;
            topic.take(position);
            if let Some(moved) = topic.subscribers.get(position as usize) {
                let list = connections[moved.slot as usize].list_mut();
                list[moved.back as usize].position = position;
            }
            self.subscribed.of(key.app())[key.name().kind() as usize] -= 1;
        } else {
            topic.joining -= 1;
        }
        self.drop_if_unused(removed.topic);
        Some((key, Left { member: removed.member, ticket }))
    }

    fn drop_if_unused(&mut self, topic: u32) {
        let of = &self.topics[topic];
        if !of.subscribers.is_empty() || of.joining > 0 {
            return;
        }
        if let Some(dirty) = self.dirty.get_mut(of.dirty as usize) {
            // The entry still names the topic, whose number may be another channel's by the end of
            // the turn.
            (dirty.outgoing, dirty.late) = (Vec::new(), Vec::new());
        }
        self.topics.remove(topic);
    }
}

impl Topic {
    const fn new(key: ChannelKey) -> Self {
        Self { key, subscribers: SmallVec::new_const(), joining: 0, dirty: CLEAN }
    }

    /// Adds a subscriber. Returns its position.
    fn add(&mut self, subscriber: Subscriber) -> u32 {
        let len = self.subscribers.len();
        if len >= LONG && len == self.subscribers.capacity() {
            // The list grows by a quarter, because doubling would leave half of a hot channel's
            // list unused.
            self.subscribers.reserve_exact(len / 4);
        }
        self.subscribers.push(subscriber);
        number(len)
    }

    /// Removes the subscriber at this position, and moves the last one there.
    fn take(&mut self, position: u32) {
        self.subscribers.swap_remove(position as usize);
        if self.subscribers.len() >= LONG
            && self.subscribers.len() < self.subscribers.capacity() / SPARSE
        {
            self.subscribers.shrink_to_fit();
        }
    }
}

/// The length from which on a list of subscribers grows by less than its double.
const LONG: usize = 64;

/// A collection that is filled to less than one part of this many gives back its spare memory.
const SPARSE: usize = 4;

/// The bytes that a subscription holds if its channel has no other subscriber, at its shard and at
/// the channel's home.
fn weight_of(topics: &KeyedSlab<Topic>, subscription: &Subscription) -> usize {
    let name = topics.get(subscription.topic).map_or(0, |topic| topic.key.name().len());
    super::subscription_bytes(name, subscription.member.as_deref())
}

/// A subscription that has ended, for the message to its home.
#[derive(Debug)]
pub struct Left {
    /// The member that left a presence channel. `None` on other channels.
    pub(crate) member: Option<Arc<Member>>,
    /// The ticket of the join, if its answer was still on the way.
    pub(crate) ticket: Option<u32>,
}

#[cfg(test)]
mod tests;
