//! The channels whose home this shard is: the authoritative state of each, and the order of its
//! messages.

mod channel;
mod members;

use std::sync::Arc;

use crate::id::ShardId;
use crate::memory::{Holder, INDEX_ENTRY_BYTES, Per};
use crate::protocol::auth::Member;
use crate::time::Millis;

use super::message::{FromHome, Join, Joined, Leave, Outcome, Question, Repeat, Repeated, ToHome};
use super::table::{ChannelRecord, ChannelTable, Channels};
use super::{CacheBounds, ChannelEvent, Event, Outbox, Wanted};
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
/// with the shard that has sent it. Time goes to the [`channels`](Self::channels), by
/// [`tick`](Channels::tick); while they [have work](Channels::has_work), [`work`](Channels::work)
/// has to be called once per turn. All three put their effects into the [`Outbox`], which the
/// caller empties before the next call: messages to one shard take effect in that order, and so do
/// the notices. Which notices an app wants is set by [`adopt`](Channels::adopt), before anything
/// else and whenever it changes.
#[derive(Debug)]
pub struct Homes {
    /// Channels that are occupied, and the last events of cache channels, occupied or not.
    channels: ChannelTable<Channel>,
}

impl Homes {
    /// Homes without channels.
    #[must_use]
    pub fn new(bounds: CacheBounds) -> Self {
        Self { channels: ChannelTable::new(bounds) }
    }

    /// The channels, for everything but messages.
    pub(crate) const fn channels(&self) -> &impl Channels {
        &self.channels
    }

    /// The channels, for everything but messages.
    pub(crate) const fn channels_mut(&mut self) -> &mut impl Channels {
        &mut self.channels
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
                self.channels.answer(reply_to, Question::State(key), now, out);
            }
            ToHome::Whisper(whisper) => {
                if let Some(event) = self.channels.accept(from, *whisper, out) {
                    self.publish(event, now, out);
                }
            }
            ToHome::Ask(reply_to, question) => self.channels.answer(reply_to, question, now, out),
        }
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
        let number = self.channels.find_or_insert(&key);
        let before = self.channels[number].subscribers();
        let entered = self.channels[number].admit(from, member, max_members, out);
        if entered == Entered::Full {
            self.drop_if_vacant(number);
            return self.channels.refuse(from, key, conn, ticket, out);
        }
        let added = member.filter(|_| entered == Entered::New);
        if let Some(member) = added {
            self.channels.lists.added(number, member);
            self.channels.member_added(key.app());
        }
        if before == 0 {
            self.channels.occupy(&key);
        }
        let told = if added.is_some() { before } else { 0 };
        let joined =
            Joined { key, conn, ticket, outcome: self.channels.subscribed(number, now), told };
        out.send(from, FromHome::Joined(Box::new(joined)));
        self.announce_join(number, before == 0, added, now, out);
    }

    /// Repeats the answer to a join, as it would be answered now.
    fn repeat(&mut self, from: ShardId, repeat: Repeat, now: Millis, out: &mut Outbox) {
        let Repeat { key, authorised, conn, ticket } = repeat;
        debug_assert_eq!(key.name(), authorised.channel(), "the proof is for another channel");
        let outcome = if self.channels.is_refused(from, ticket) {
            Outcome::Full
        } else {
            let number = self.channels.find_or_insert(&key);
            let outcome = self.channels.subscribed(number, now);
            self.drop_if_vacant(number);
            outcome
        };
        out.send(from, FromHome::Repeated(Box::new(Repeated { key, conn, outcome })));
    }

    /// Ends a subscription. The subscribers that stay are told if a member is gone.
    fn leave(&mut self, from: ShardId, leave: &Leave, now: Millis, out: &mut Outbox) {
        if self.channels.acknowledge(from, leave.ticket) {
            return;
        }
        let Some(number) = self.channels.find(&leave.key) else { return };
        let channel = &mut self.channels[number];
        let (counted, removed) = channel.dismiss(from, leave.member.as_deref(), out);
        if !counted {
            return;
        }
        let vacated = !channel.is_occupied();
        if vacated {
            self.channels.vacate(&leave.key);
        }
        if removed {
            self.channels.lists.forget(number);
            self.channels.members_removed(leave.key.app(), 1);
        }
        let removed = leave.member.as_ref().filter(|_| removed);
        self.announce_leave(number, vacated, removed, now, out);
        self.drop_if_vacant(number);
    }

    /// Orders an event after all earlier ones, and hands it to the shards with subscribers.
    fn publish(&mut self, event: Event, now: Millis, out: &mut Outbox) {
        let Event { key, frame, except, retain } = event;
        if let Some(retain) = retain {
            self.channels.cache.put(&key, frame.clone(), *retain, now);
        }
        if let Some(number) = self.channels.find(&key) {
            self.channels[number].deliver(&frame, except, out);
        }
    }
}

/// The announcement of changes, to subscribers and to webhooks.
impl Homes {
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
        if self.channels.misses(number, now) {
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

    fn announce_count(&mut self, number: u32, now: Millis, out: &mut Outbox) {
        let count = self.channels[number].subscribers();
        self.channels.announce_count(number, count, now, out);
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
        self.channels.wanted.notify(&self.channels[number].key, event, out);
    }

    fn wants_nothing(&self, number: u32) -> bool {
        self.channels.wanted.of(self.channels[number].key.app()) == Wanted::default()
    }
}

/// The end of a channel.
impl Homes {
    fn drop_if_vacant(&mut self, number: u32) {
        if !self.channels[number].is_occupied() {
            self.channels.remove(number);
        }
    }
}

#[cfg(test)]
mod tests;
