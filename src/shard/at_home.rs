//! Handles the messages that reach this shard as the home of a channel, and tells subscribers and
//! webhooks of them.
//!
//! Notices are made here because only a home knows what is true of a channel and in which order. An
//! app without webhooks and counts costs the look at two bytes.

use std::sync::Arc;

use super::{Core, Message};
use crate::channels::{self, Change, ChannelKey, Join, Leave, Publish};
use crate::id::{AppIndex, ShardId};
use crate::protocol::app::App;
use crate::protocol::auth::Member;
use crate::protocol::webhook::{EventKind, EventKinds};
use crate::webhooks::{ChannelEvent, Notice};

/// The notices that an app wants beside its messages.
#[derive(Default)]
struct Wanted {
    /// The kinds of events that its webhooks want.
    watched: EventKinds,
    /// Whether its subscribers are told their number.
    counts: bool,
}

impl Core {
    /// A connection of some shard subscribes.
    pub(super) fn home_join(&mut self, join: Join) {
        let Wanted { watched, counts } = self.wanted(join.key.app());
        let about =
            (counts || !watched.is_empty()).then(|| (join.key.clone(), join.member.clone()));
        let Self { homes, port, now, .. } = self;
        let change = homes.join(join, *now, &mut |to, message| post(port, to, message));
        let Some((key, member)) = about else { return };
        if counts && change.subscribers {
            self.tell_count(&key);
        }
        if watched.is_empty() {
            return;
        }
        if change.occupancy {
            self.note(&key, ChannelEvent::Occupied);
        }
        self.note_member(&key, change, member.as_ref(), ChannelEvent::MemberAdded);
        self.note_count(&key, change, watched);
        let missed = watched.contains(EventKind::CacheMiss)
            && change.subscribers
            && key.name().kind().is_cache()
            && self.homes.state(&key, self.now).cached.is_none();
        if missed {
            self.note(&key, ChannelEvent::CacheMiss);
        }
    }

    /// A subscription of some shard ended.
    pub(super) fn home_leave(&mut self, leave: &Leave) {
        let Wanted { watched, counts } = self.wanted(leave.key.app());
        let Self { homes, port, .. } = self;
        let change = homes.leave(leave, &mut |to, message| post(port, to, message));
        if counts && change.subscribers {
            self.tell_count(&leave.key);
        }
        if watched.is_empty() {
            return;
        }
        self.note_member(&leave.key, change, leave.member.as_ref(), ChannelEvent::MemberRemoved);
        self.note_count(&leave.key, change, watched);
        if change.occupancy {
            self.note(&leave.key, ChannelEvent::Vacated);
        }
    }

    /// An event for all subscribers of a channel.
    pub(super) fn home_publish(&mut self, mut publish: Publish) {
        let whisper = publish.whisper.take().map(|whisper| (publish.key.clone(), whisper));
        let traced = self.traced(&publish);
        let Self { homes, port, now, .. } = self;
        if !homes.publish(publish, *now, &mut |to, message| post(port, to, message)) {
            return;
        }
        if let Some((key, whisper)) = whisper {
            self.note(&key, ChannelEvent::ClientEvent(whisper));
        }
        if let Some(traced) = traced {
            self.trace(traced);
        }
    }

    /// Tells subscribers numbers that have waited for their time.
    pub(super) fn tell_counts(&mut self) {
        let Self { homes, port, now, .. } = self;
        homes.tell_counts(*now, &mut |to, message| post(port, to, message));
    }

    fn tell_count(&mut self, key: &ChannelKey) {
        let Self { homes, port, now, .. } = self;
        homes.tell_count(key, *now, &mut |to, message| post(port, to, message));
    }

    fn wanted(&self, app: AppIndex) -> Wanted {
        let wanted = |app: &Arc<App>| Wanted {
            watched: app.webhooks.watched(),
            counts: app.subscription_counts,
        };
        self.apps.get(app).map(wanted).unwrap_or_default()
    }

    fn note_member(
        &mut self,
        key: &ChannelKey,
        change: Change,
        member: Option<&Arc<Member>>,
        what: impl FnOnce(Arc<str>) -> ChannelEvent,
    ) {
        if let Some(member) = member.filter(|_| change.membership) {
            self.note(key, what(Arc::clone(&member.user_id)));
        }
    }

    /// Presence channels tell of members instead, as at Pusher.
    fn note_count(&mut self, key: &ChannelKey, change: Change, watched: EventKinds) {
        if change.subscribers
            && watched.contains(EventKind::SubscriptionCount)
            && !key.name().kind().is_presence()
        {
            let count = self.homes.state(key, self.now).subscription_count;
            self.note(key, ChannelEvent::SubscriptionCount(count));
        }
    }

    fn note(&mut self, key: &ChannelKey, what: ChannelEvent) {
        self.notices.push(Notice { app: key.app(), channel: key.name().clone(), event: what });
    }
}

fn post(port: &mut crate::bus::Port<Message>, to: ShardId, message: channels::Message) {
    port.send(to, Message::Channel(message));
}
