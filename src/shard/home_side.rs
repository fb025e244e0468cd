//! The home side of a shard: the channels and users whose home it is.

use std::sync::Arc;

use super::ShardMessage;
use super::link::Link;
use super::trace::{Traced, debugging};
use crate::apps::{App, Apps};
use crate::channels::{CacheBounds, Homes, Outbox, Steps, ToHome, UserHomes, Wanted};
use crate::id::{AppIndex, ShardId};
use crate::protocol::rules::Standing;
use crate::time::Millis;
use crate::webhooks::NoticeSender;

/// The most cached events of removed apps that a tick drops: a millisecond of work.
const FORGOTTEN_PER_TICK: usize = 1000;

/// The homes on a shard. Their messages go out by the [`Link`] that is handed in, their notices to
/// the webhooks at [`send_notices`](Self::send_notices).
///
/// In a turn the shard calls [`work`](Self::work) once, then [`handle`](Self::handle) and
/// [`handle_users`](Self::handle_users) for every message of the bus, in its order, and at the end
/// [`send_notices`](Self::send_notices). It calls [`tick`](Self::tick) at every tick, and
/// [`adopt`](Self::adopt) before anything else and after every reload.
#[derive(Debug)]
pub(super) struct HomeSide {
    /// The channels whose home is this shard.
    homes: Homes,
    /// The users whose home is this shard.
    users: UserHomes,
    /// The effects of the current call; empty between two calls.
    outbox: Outbox,
    /// The queue of the turn's notices to the webhooks.
    notices: NoticeSender,
    /// Whether removed apps may still have cached events, of which each tick drops a part.
    forgetting: bool,
}

impl HomeSide {
    pub(super) fn new(cache: CacheBounds, notices: NoticeSender) -> Self {
        Self {
            homes: Homes::new(cache),
            users: UserHomes::default(),
            outbox: Outbox::default(),
            notices,
            forgetting: false,
        }
    }

    /// Takes over which notices and counts each app wants.
    pub(super) fn adopt(&mut self, apps: &Apps) {
        let mut wanted = Vec::new();
        for app in apps.iter() {
            let index = usize::from(app.index.0);
            wanted.resize(wanted.len().max(index + 1), Wanted::default());
            wanted[index] = wanted_by(app);
        }
        self.homes.adopt(wanted);
        self.forgetting = true;
    }

    /// Handles a message about a channel.
    pub(super) fn handle(&mut self, from: ShardId, message: ToHome, now: Millis, link: &mut Link) {
        self.homes.handle(from, message, now, &mut self.outbox);
        self.send(link);
    }

    /// Handles the changes of users on a shard.
    pub(super) fn handle_users(&mut self, from: ShardId, steps: Steps, link: &mut Link) {
        self.users.handle(from, steps, &mut self.outbox);
        self.send(link);
    }

    /// Does a turn's part of work that is too long for one turn.
    pub(super) fn work(&mut self, now: Millis, link: &mut Link) {
        self.homes.work(now, &mut self.outbox);
        self.send(link);
    }

    /// Whether work is left for the next turn.
    pub(super) fn has_work(&self) -> bool {
        self.homes.has_work()
    }

    /// Does the timed work: sends delayed subscriber counts, and drops cached events that have
    /// expired or belong to removed apps.
    pub(super) fn tick(&mut self, apps: &Arc<Apps>, now: Millis, link: &mut Link) {
        self.homes.tick(now, &mut self.outbox);
        self.send(link);
        if self.forgetting {
            let removed = |app: &Arc<App>| app.rules.standing == Standing::Removed;
            let gone = |app: AppIndex| apps.get(app).is_none_or(removed);
            self.forgetting = self.homes.cache_mut().forget_apps(gone, FORGOTTEN_PER_TICK);
        }
    }

    /// Hands the notices of the turn to the webhooks.
    pub(super) fn send_notices(&mut self) {
        self.notices.send();
    }

    /// Sets other bounds on cached events.
    pub(super) const fn bound_cache(&mut self, bounds: CacheBounds) {
        self.homes.cache_mut().bound(bounds);
    }

    /// Drops at most `most` cached events that exceed the bounds.
    pub(super) fn shrink_cache(&mut self, most: usize) {
        self.homes.cache_mut().shrink(most);
    }

    /// Channels whose home is this shard.
    pub(super) fn channels(&self) -> usize {
        self.homes.len()
    }

    /// The number of occupied channels by index of the app.
    pub(super) fn occupied_counts(&self) -> &[u32] {
        self.homes.occupied_counts()
    }

    /// Users whose home is this shard.
    #[cfg(feature = "testing")]
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Gives memory back that a burst has left.
    pub(super) fn trim(&mut self) {
        self.homes.trim();
        self.outbox.trim();
    }

    /// Bytes that lists and tables hold, in use or not.
    #[cfg(feature = "testing")]
    pub(super) fn room(&self) -> usize {
        self.homes.room() + self.outbox.room()
    }

    /// The record for the log line of an event that the home is about to deliver. `None` without
    /// `--debug`, and for other messages.
    pub(super) fn traced(&self, from: ShardId, message: &ToHome, now: Millis) -> Option<Traced> {
        if !debugging() {
            return None;
        }
        let (event, by_client) = match message {
            ToHome::Publish(event) => (event, false),
            ToHome::PublishAndReport(event, _) => (&**event, false),
            ToHome::Whisper(whisper) if !self.homes.refuses(from, whisper) => {
                (&whisper.event, true)
            }
            _ => return None,
        };
        let subscribers = self.homes.state(&event.key, now).subscription_count;
        Some(Traced::new(event, by_client, subscribers))
    }

    fn send(&mut self, link: &mut Link) {
        for (to, message) in self.outbox.messages() {
            link.send(to, ShardMessage::FromHome(message));
        }
        self.outbox.notices().for_each(|notice| self.notices.push(notice));
    }
}

fn wanted_by(app: &App) -> Wanted {
    Wanted { notices: app.webhooks.watched(), counts: app.subscription_counts }
}
