//! The home side of a shard: the channels and users whose home it is. On a node of a cluster it
//! keeps replicas of them.

use std::sync::Arc;

use super::ShardMessage;
use super::link::Link;
use super::trace::{Traced, debugging};
use crate::apps::{App, Apps};
use crate::channels::{
    AppPath, CacheBounds, Event, FromCluster, Homes, Outbox, Replicas, Steps, ToCluster, ToHome,
    UserHomes, UserReplicas, Wanted, Whisper,
};
use crate::id::{AppIndex, ShardId};
use crate::invariant::broken;
use crate::protocol::rules::Standing;
use crate::time::Millis;
use crate::webhooks::NoticeSender;

/// The most cached events of removed apps that a tick drops: a millisecond of work.
const FORGOTTEN_PER_TICK: usize = 1000;

/// The homes on a shard. Their messages go out by the [`Link`] that is handed in, their notices to
/// the webhooks at [`send_notices`](Self::send_notices).
///
/// In a turn the shard calls [`work`](Self::work) once, then [`handle`](Self::handle),
/// [`handle_users`](Self::handle_users) and [`learn`](Self::learn) for every message of the bus, in
/// its order, and at the end
/// [`send_notices`](Self::send_notices). It calls [`tick`](Self::tick) at every tick, and
/// [`adopt`](Self::adopt) before anything else and after every reload.
#[derive(Debug)]
pub(super) struct HomeSide {
    /// The channels whose home is this shard.
    channels: ChannelHomes,
    /// The users whose home is this shard.
    users: UserTable,
    /// The effects of the current call; empty between two calls.
    outbox: Outbox,
    /// The queue of the turn's notices to the webhooks.
    notices: NoticeSender,
    /// Whether removed apps may still have cached events, of which each tick drops a part.
    forgetting: bool,
}

/// The channels at home, or on a node of a cluster their replicas.
#[derive(Debug)]
enum ChannelHomes {
    Own(Homes),
    Replicas(Replicas),
}

/// The users at home, or on a node of a cluster their replicas.
#[derive(Debug)]
enum UserTable {
    Own(UserHomes),
    Replicas(UserReplicas),
}

/// Calls the same method of either kind of channels.
macro_rules! either {
    ($channels:expr, $homes:ident => $call:expr) => {
        match $channels {
            ChannelHomes::Own($homes) => $call,
            ChannelHomes::Replicas($homes) => $call,
        }
    };
}

impl HomeSide {
    /// Homes without channels. With `clustered`, the node is one of a cluster.
    pub(super) fn new(cache: CacheBounds, notices: NoticeSender, clustered: bool) -> Self {
        let (channels, users) = if clustered {
            let users = UserTable::Replicas(UserReplicas::default());
            (ChannelHomes::Replicas(Replicas::new(cache)), users)
        } else {
            (ChannelHomes::Own(Homes::new(cache)), UserTable::Own(UserHomes::default()))
        };
        Self { channels, users, outbox: Outbox::default(), notices, forgetting: false }
    }

    /// Takes over which notices and counts each app wants.
    pub(super) fn adopt(&mut self, apps: &Apps) {
        let mut wanted = Vec::new();
        for app in apps.iter() {
            let index = usize::from(app.index.0);
            wanted.resize(wanted.len().max(index + 1), Wanted::default());
            wanted[index] = wanted_by(app);
        }
        if let ChannelHomes::Replicas(replicas) = &mut self.channels {
            replicas.adopt_paths(apps.iter().map(|app| (app.index, AppPath::new(&app.id))));
        }
        either!(&mut self.channels, homes => homes.adopt(wanted));
        self.forgetting = true;
    }

    /// Handles a message about a channel.
    pub(super) fn handle(&mut self, from: ShardId, message: ToHome, now: Millis, link: &mut Link) {
        let out = &mut self.outbox;
        either!(&mut self.channels, homes => homes.handle(from, message, now, out));
        self.send(link);
    }

    /// Handles the changes of users on a shard.
    pub(super) fn handle_users(&mut self, from: ShardId, steps: Steps, link: &mut Link) {
        let out = &mut self.outbox;
        match &mut self.users {
            UserTable::Own(users) => users.handle(from, steps, out),
            UserTable::Replicas(users) => users.handle(from, steps, out),
        }
        self.send(link);
    }

    /// Handles a message of the cluster.
    pub(super) fn learn(&mut self, message: FromCluster, now: Millis, link: &mut Link) {
        let Self { channels, users, outbox, .. } = self;
        if matches!(message, FromCluster::Alone(true)) {
            outbox.tell_cluster(ToCluster::Alone(link.port.id()));
        }
        match (message, channels, users) {
            (FromCluster::Online(user, online), _, UserTable::Replicas(users)) => {
                users.learn(&user, online, outbox);
            }
            (FromCluster::Certain(user), _, UserTable::Replicas(users)) => {
                users.ask_again(&user, outbox);
            }
            (message, ChannelHomes::Replicas(replicas), _) => replicas.learn(message, now, outbox),
            _ => broken("a cluster speaks to a node that is alone"),
        }
        self.send(link);
    }

    /// Does a turn's part of work that is too long for one turn.
    pub(super) fn work(&mut self, now: Millis, link: &mut Link) {
        let out = &mut self.outbox;
        either!(&mut self.channels, homes => homes.work(now, out));
        self.send(link);
    }

    /// Whether work is left for the next turn.
    pub(super) fn has_work(&self) -> bool {
        either!(&self.channels, homes => homes.has_work())
    }

    /// Does the timed work: sends delayed subscriber counts, and drops cached events that have
    /// expired or belong to removed apps.
    pub(super) fn tick(&mut self, apps: &Arc<Apps>, now: Millis, link: &mut Link) {
        let out = &mut self.outbox;
        either!(&mut self.channels, homes => homes.tick(now, out));
        self.send(link);
        if self.forgetting {
            let removed = |app: &Arc<App>| app.rules.standing == Standing::Removed;
            let gone = |app: AppIndex| apps.get(app).is_none_or(removed);
            self.forgetting = either!(
                &mut self.channels,
                homes => homes.cache_mut().forget_apps(gone, FORGOTTEN_PER_TICK)
            );
        }
    }

    /// Hands the notices of the turn to the webhooks.
    pub(super) fn send_notices(&mut self) {
        self.notices.send();
    }

    /// Sets other bounds on cached events.
    pub(super) const fn bound_cache(&mut self, bounds: CacheBounds) {
        either!(&mut self.channels, homes => homes.cache_mut().bound(bounds));
    }

    /// Drops at most `most` cached events that exceed the bounds.
    pub(super) fn shrink_cache(&mut self, most: usize) {
        either!(&mut self.channels, homes => homes.cache_mut().shrink(most));
    }

    /// Channels whose home is this shard.
    pub(super) fn channels(&self) -> usize {
        either!(&self.channels, homes => homes.len())
    }

    /// The number of occupied channels by index of the app.
    pub(super) fn occupied_counts(&self) -> &[u32] {
        either!(&self.channels, homes => homes.occupied_counts())
    }

    /// Users whose home is this shard.
    #[cfg(feature = "testing")]
    pub(super) fn users(&self) -> usize {
        match &self.users {
            UserTable::Own(users) => users.len(),
            UserTable::Replicas(users) => users.len(),
        }
    }

    /// Gives memory back that a burst has left.
    pub(super) fn trim(&mut self) {
        either!(&mut self.channels, homes => homes.trim());
        self.outbox.trim();
    }

    /// Bytes that lists and tables hold, in use or not.
    #[cfg(feature = "testing")]
    pub(super) fn room(&self) -> usize {
        either!(&self.channels, homes => homes.room()) + self.outbox.room()
    }

    /// The record for the log line of an event that the home is about to deliver. `None` without
    /// `--debug`, and for other messages.
    pub(super) fn traced(&self, from: ShardId, message: &ToHome) -> Option<Traced> {
        if !debugging() {
            return None;
        }
        let (event, by_client) = match message {
            ToHome::Publish(event) => (event, false),
            ToHome::PublishAndReport(event, _) => (&**event, false),
            ToHome::Whisper(whisper) if !self.refuses(from, whisper) => (&whisper.event, true),
            _ => return None,
        };
        Some(self.trace(event, by_client))
    }

    /// The record for the log line of an event of the cluster. `None` without `--debug`, and for
    /// other messages.
    pub(super) fn traced_of_cluster(&self, message: &FromCluster) -> Option<Traced> {
        match message {
            FromCluster::Event(event) if debugging() => Some(self.trace(event, false)),
            _ => None,
        }
    }

    fn trace(&self, event: &Event, by_client: bool) -> Traced {
        let subscribers = either!(&self.channels, homes => homes.subscribers(&event.key));
        Traced::new(event, by_client, subscribers)
    }

    fn refuses(&self, from: ShardId, whisper: &Whisper) -> bool {
        either!(&self.channels, homes => homes.refuses(from, whisper))
    }

    fn send(&mut self, link: &mut Link) {
        for (to, message) in self.outbox.messages() {
            link.send(to, ShardMessage::FromHome(message));
        }
        for mut message in self.outbox.cluster_messages() {
            // Channels are registered by parts; the users are in the last one.
            if let (ToCluster::Registered(part), UserTable::Replicas(users)) =
                (&mut message, &self.users)
                && part.last
            {
                part.users = users.registration();
            }
            link.tell_cluster(message);
        }
        self.outbox.notices().for_each(|notice| self.notices.push(notice));
    }
}

fn wanted_by(app: &App) -> Wanted {
    Wanted { notices: app.webhooks.watched(), counts: app.subscription_counts }
}
