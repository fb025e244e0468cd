//! The channels whose home this shard is: the authoritative state of each, and the order of its
//! messages.

mod channel;
mod members;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::id::{AppIndex, ShardId};
use crate::invariant::broken;
use crate::memory::{Holder, INDEX_ENTRY_BYTES, KeyedSlab, Per, Trim};
use crate::protocol::auth::Member;
use crate::protocol::outbound;
use crate::time::Millis;

use super::cache::Cache;
use super::listing::Listing;
use super::member_lists::MemberLists;
use super::message::{
    Answer, FromHome, Join, Joined, Leave, Outcome, Question, Repeat, Repeated, ReplyTo, ToHome,
    Whisper,
};
use super::wanted::WantedByApp;
use super::{
    CacheBounds, ChannelEvent, ChannelKey, ChannelState, CountThrottle, Event, Notice, Outbox,
    Wanted,
};
use channel::Channel;
use members::{Entered, Presence};

/// The memory that a channel and its members cost at home.
pub(super) const BUDGET: [Holder; 3] = [
    Holder {
        name: "home, with its interest set of one shard",
        bytes: size_of::<Option<Channel>>(),
        per: Per::Channel,
    },
    Holder { name: "place in the table of homes", bytes: INDEX_ENTRY_BYTES, per: Per::Channel },
    Holder {
        name: "place in the table of members",
        bytes: 2 * (size_of::<Presence>() + 1),
        per: Per::Member,
    },
];

/// The channels whose home is this shard: a state machine without clock and sockets.
///
/// Every message for a home goes to [`handle`](Self::handle), in the order in which it arrived and
/// with the shard that has sent it. Time goes to [`tick`](Self::tick). While
/// [`has_work`](Self::has_work) returns `true`, [`work`](Self::work) has to be called once per
/// turn. All three put their effects into the [`Outbox`], which the caller empties before the next
/// call: messages to one shard take effect in that order, and so do the notices. Which notices an
/// app wants is set by [`adopt`](Self::adopt), before anything else and whenever it changes.
#[derive(Debug)]
pub struct Homes {
    /// Channels that are occupied.
    channels: KeyedSlab<Channel>,
    /// The last events of cache channels, occupied or not.
    cache: Cache,
    /// The lists of members of the presence channels that were joined last.
    lists: MemberLists,
    /// The channels whose subscriber count is sent to their subscribers, while they pause.
    counts: CountThrottle<ChannelKey>,
    /// Refused joins, by shard and ticket. Each stays until its shard acknowledges the refusal with
    /// a [`Leave`], because the shard sent everything before that without knowing of the refusal.
    /// So there are no more of them than refusals on their way.
    refused: HashSet<(ShardId, u32)>,
    /// The number of occupied channels by index of the app, as far as the highest index that ever
    /// had one.
    occupied: Vec<u32>,
    /// The notices and counts that each app wants. Written by [`adopt`](Self::adopt).
    wanted: WantedByApp,
    /// Requested lists that are not finished, the next one to continue first.
    listings: VecDeque<Listing>,
}

impl Homes {
    /// Homes without channels.
    #[must_use]
    pub fn new(bounds: CacheBounds) -> Self {
        Self {
            channels: KeyedSlab::new(),
            cache: Cache::new(bounds),
            lists: MemberLists::default(),
            counts: CountThrottle::default(),
            refused: HashSet::new(),
            occupied: Vec::new(),
            wanted: WantedByApp::default(),
            listings: VecDeque::new(),
        }
    }

    /// Takes over the notices and counts that apps want, by their index. Apps past the end want
    /// none.
    pub(crate) fn adopt(&mut self, wanted: Vec<Wanted>) {
        self.wanted = WantedByApp::new(wanted);
    }

    /// Handles a message of a shard, this one included.
    pub fn handle(&mut self, from: ShardId, message: ToHome, now: Millis, out: &mut Outbox) {
        match message {
            ToHome::Join(join) => self.join(from, *join, now, out),
            ToHome::Repeat(repeat) => self.repeat(from, *repeat, now, out),
            ToHome::Leave(leave) => self.leave(from, &leave, now, out),
            ToHome::Publish(event) => self.publish(event, now, out),
            ToHome::PublishAndReport(event, reply_to) => {
                let key = event.key.clone();
                self.publish(*event, now, out);
                self.answer(reply_to, Question::State(key), now, out);
            }
            ToHome::Whisper(whisper) => self.whisper(from, *whisper, now, out),
            ToHome::Ask(reply_to, question) => self.answer(reply_to, question, now, out),
        }
    }

    /// Drops cached events that have expired, and sends subscriber counts whose pause is over. It
    /// costs nothing for all others.
    pub(crate) fn tick(&mut self, now: Millis, out: &mut Outbox) {
        self.cache.expire(now);
        while let Some((key, count)) = self.counts.due(now) {
            if let Some(number) = self.find(&key) {
                self.deliver_count(number, count, out);
            }
        }
    }

    /// Whether a list is unfinished, of which [`work`](Self::work) sends the next part.
    #[must_use]
    pub(crate) fn has_work(&self) -> bool {
        !self.listings.is_empty()
    }

    /// Sends a turn's part of the list that has waited longest.
    pub(crate) fn work(&mut self, now: Millis, out: &mut Outbox) {
        if let Some(listing) = self.listings.pop_front() {
            self.list(listing, now, out);
        }
    }

    /// The number of occupied channels and of cached events.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.channels.len() + self.cache.len()
    }

    /// Whether there are no channels.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state of a channel; all zeros if no shard has a subscriber and no event is cached.
    #[must_use]
    pub(crate) fn state(&self, key: &ChannelKey, now: Millis) -> ChannelState {
        let channel = self.find(key).map(|number| &self.channels[number]);
        ChannelState {
            subscription_count: channel.map_or(0, Channel::subscribers),
            user_count: channel.map_or(0, Channel::users),
            cached: self.cache.get(key, now).map(|last| last.reported(now)),
        }
    }

    /// Whether a client event of a shard is refused, because its sender's join was.
    #[must_use]
    pub(crate) fn refuses(&self, from: ShardId, whisper: &Whisper) -> bool {
        whisper.joining.is_some_and(|joining| self.refused.contains(&(from, joining.ticket)))
    }

    /// The number of subscribers of a channel, on all shards.
    #[must_use]
    pub(crate) fn subscribers(&self, key: &ChannelKey) -> u32 {
        self.find(key).map_or(0, |number| self.channels[number].subscribers())
    }

    /// The number of occupied channels by index of their app. Apps past the end have none.
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
        if self.refused.is_empty() {
            self.refused = HashSet::new();
        }
    }

    /// Bytes that its lists and tables hold, in use or not, cached events not counted.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        let refused = self.refused.capacity() * size_of::<(ShardId, u32)>();
        self.channels.room() + self.counts.room() + self.listings.room() + refused
    }
}

/// The handling of each message.
impl Homes {
    /// Counts a subscriber and answers its shard. The other subscribers are told of a new member
    /// first.
    fn join(&mut self, from: ShardId, join: Join, now: Millis, out: &mut Outbox) {
        let Join { key, authorised, conn, ticket, max_members } = join;
        debug_assert_eq!(key.name(), authorised.channel(), "the proof is for another channel");
        let member = authorised.member();
        let number = self.find_or_insert(&key);
        let before = self.channels[number].subscribers();
        let entered = self.channels[number].admit(from, member, max_members, out);
        if entered == Entered::Full {
            self.refused.insert((from, ticket));
            self.drop_if_vacant(number);
            let joined = Joined { key, conn, ticket, outcome: Outcome::Full, told: 0 };
            return out.send(from, FromHome::Joined(Box::new(joined)));
        }
        let added = member.filter(|_| entered == Entered::New);
        if let Some(member) = added {
            self.lists.added(number, member);
        }
        if before == 0 {
            *self.occupied_of(key.app()) += 1;
        }
        let told = if added.is_some() { before } else { 0 };
        let joined = Joined { key, conn, ticket, outcome: self.subscribed(number, now), told };
        out.send(from, FromHome::Joined(Box::new(joined)));
        self.announce_join(number, before == 0, added, now, out);
    }

    /// Repeats the answer to a join, as it would be answered now.
    fn repeat(&mut self, from: ShardId, repeat: Repeat, now: Millis, out: &mut Outbox) {
        let Repeat { key, authorised, conn, ticket } = repeat;
        debug_assert_eq!(key.name(), authorised.channel(), "the proof is for another channel");
        let outcome = if ticket.is_some_and(|ticket| self.refused.contains(&(from, ticket))) {
            Outcome::Full
        } else {
            let number = self.find_or_insert(&key);
            let outcome = self.subscribed(number, now);
            self.drop_if_vacant(number);
            outcome
        };
        out.send(from, FromHome::Repeated(Box::new(Repeated { key, conn, outcome })));
    }

    /// Ends a subscription. The subscribers that stay are told if a member is gone.
    fn leave(&mut self, from: ShardId, leave: &Leave, now: Millis, out: &mut Outbox) {
        let refused = |ticket| self.refused.remove(&(from, ticket));
        if leave.ticket.is_some_and(refused) {
            return;
        }
        let Some(number) = self.find(&leave.key) else { return };
        let channel = &mut self.channels[number];
        let (counted, removed) = channel.dismiss(from, leave.member.as_deref(), out);
        if !counted {
            return;
        }
        let vacated = !channel.is_occupied();
        if vacated {
            *self.occupied_of(leave.key.app()) -= 1;
        }
        if removed {
            self.lists.forget(number);
        }
        let removed = leave.member.as_ref().filter(|_| removed);
        self.announce_leave(number, vacated, removed, now, out);
        self.drop_if_vacant(number);
    }

    /// Orders an event after all earlier ones, and hands it to the shards with subscribers.
    fn publish(&mut self, event: Event, now: Millis, out: &mut Outbox) {
        let Event { key, frame, except, retain } = event;
        if let Some(retain) = retain {
            self.cache.put(&key, frame.clone(), *retain, now);
        }
        if let Some(number) = self.find(&key) {
            self.channels[number].deliver(&frame, except, out);
        }
    }

    /// Relays a client event, unless its sender's join was refused.
    fn whisper(&mut self, from: ShardId, whisper: Whisper, now: Millis, out: &mut Outbox) {
        let refused = self.refuses(from, &whisper);
        let Whisper { event, joining, notice } = whisper;
        if let Some(joining) = joining.filter(|_| refused) {
            let name = event.key.name().clone();
            return out.send(from, FromHome::NotMember(joining.conn, name));
        }
        if let Some(notice) = notice {
            let (app, channel) = (event.key.app(), event.key.name().clone());
            out.notify(Notice { app, channel, event: ChannelEvent::ClientEvent(notice) });
        }
        self.publish(event, now, out);
    }

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

    /// The ids of the users who are members, once each.
    fn users(&self, key: &ChannelKey) -> Vec<Box<str>> {
        let members = self.find(key).and_then(|number| self.channels[number].members.as_ref());
        members.map_or_else(Vec::new, |members| members.ids().map(Box::from).collect())
    }

    /// Sends the next part of a list, and keeps the rest for later.
    fn list(&mut self, listing: Listing, now: Millis, out: &mut Outbox) {
        let occupied = |number| {
            let of = self.channels.get(number).filter(|of| of.is_occupied());
            of.map(|of| &of.key)
        };
        let state = |key: &ChannelKey| self.state(key, now);
        let rest = listing.send_part(self.channels.end(), occupied, state, out);
        self.listings.extend(rest);
    }
}

/// The announcement of changes, to subscribers and to webhooks.
impl Homes {
    /// The answer to a join that was counted.
    fn subscribed(&mut self, number: u32, now: Millis) -> Outcome {
        let channel = &self.channels[number];
        let members = channel.members.iter().flat_map(|members| members.all());
        self.lists.subscribed(number, &channel.key, members, self.cache.get(&channel.key, now))
    }

    fn announce_join(
        &mut self,
        number: u32,
        occupied: bool,
        added: Option<&Arc<Member>>,
        now: Millis,
        out: &mut Outbox,
    ) {
        if self.wants_nothing(number) {
            return;
        }
        self.announce_count(number, now, out);
        if occupied {
            self.notify(number, ChannelEvent::Occupied, out);
        }
        if let Some(member) = added {
            self.notify(number, ChannelEvent::MemberAdded(Arc::clone(&member.user_id)), out);
        }
        self.notify_count(number, out);
        let channel = &self.channels[number];
        if channel.key.name().kind().is_cache() && self.cache.get(&channel.key, now).is_none() {
            self.notify(number, ChannelEvent::CacheMiss, out);
        }
    }

    fn announce_leave(
        &mut self,
        number: u32,
        vacated: bool,
        removed: Option<&Arc<Member>>,
        now: Millis,
        out: &mut Outbox,
    ) {
        if self.wants_nothing(number) {
            return;
        }
        if !vacated {
            self.announce_count(number, now, out);
        }
        if let Some(member) = removed {
            self.notify(number, ChannelEvent::MemberRemoved(Arc::clone(&member.user_id)), out);
        }
        self.notify_count(number, out);
        if vacated {
            self.notify(number, ChannelEvent::Vacated, out);
        }
    }

    /// Sends the subscribers of a channel their number, now or at the end of a pause, if their app
    /// wants that. Presence channels announce members instead.
    fn announce_count(&mut self, number: u32, now: Millis, out: &mut Outbox) {
        let channel = &self.channels[number];
        let (key, count) = (&channel.key, channel.subscribers());
        if self.wanted.of(key.app()).counts
            && !key.name().kind().is_presence()
            && self.counts.take(key, count, now)
        {
            self.deliver_count(number, count, out);
        }
    }

    fn deliver_count(&self, number: u32, count: u32, out: &mut Outbox) {
        let channel = &self.channels[number];
        channel.deliver(&outbound::subscription_count(channel.key.name(), count), None, out);
    }

    /// Notifies webhooks of the number of subscribers. For presence channels they are notified of
    /// members instead, as at Pusher.
    fn notify_count(&self, number: u32, out: &mut Outbox) {
        let channel = &self.channels[number];
        if !channel.key.name().kind().is_presence() {
            self.notify(number, ChannelEvent::SubscriptionCount(channel.subscribers()), out);
        }
    }

    fn notify(&self, number: u32, event: ChannelEvent, out: &mut Outbox) {
        self.wanted.notify(&self.channels[number].key, event, out);
    }

    fn wants_nothing(&self, number: u32) -> bool {
        self.wanted.of(self.channels[number].key.app()) == Wanted::default()
    }
}

/// The table of channels.
impl Homes {
    fn find(&self, key: &ChannelKey) -> Option<u32> {
        self.channels.find(key.hash(), |channel| channel.key == *key)
    }

    fn find_or_insert(&mut self, key: &ChannelKey) -> u32 {
        let same = |channel: &Channel| channel.key == *key;
        self.channels.find_or_insert(key.hash(), same, || Channel::new(key.clone()))
    }

    fn drop_if_vacant(&mut self, number: u32) {
        if !self.channels[number].is_occupied() {
            self.channels.remove(number);
            self.lists.forget(number);
        }
    }

    fn occupied_of(&mut self, app: AppIndex) -> &mut u32 {
        let index = usize::from(app.0);
        self.occupied.resize(self.occupied.len().max(index + 1), 0);
        &mut self.occupied[index]
    }
}

#[cfg(test)]
mod tests;
