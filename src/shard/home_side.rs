//! The home side of a shard: the channels and users whose home it is. On a node of a cluster it
//! keeps replicas of them.

use std::sync::Arc;

use super::ShardMessage;
use super::link::Link;
use super::trace::{Traced, debugging};
use crate::apps::{App, Apps};
use crate::channels::{
    AppPath, CacheBounds, Channels, Event, FromCluster, Homes, Outbox, Replicas, Steps, ToCluster,
    ToHome, UserHomes, UserReplicas, Wanted, Whisper,
};
use crate::counters::{ChannelCounters, PerApp};
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
/// its order, and at the end [`send_notices`](Self::send_notices). It calls [`tick`](Self::tick) at
/// every tick, and [`adopt`](Self::adopt) before anything else and after every reload.
#[derive(Debug)]
pub(super) struct HomeSide {
    /// The channels and users whose home is this shard.
    homes: ShardHomes,
    /// The effects of the current call; empty between two calls.
    outbox: Outbox,
    /// The queue of the turn's notices to the webhooks.
    notices: NoticeSender,
    /// Whether removed apps may still have cached events, of which each tick drops a part.
    forgetting: bool,
}

/// The channels and users whose home is a shard.
#[derive(Debug)]
enum ShardHomes {
    /// The server stands alone: its homes have the truth.
    Own { channels: Homes, users: UserHomes },
    /// The node is one of a cluster, which has the truth.
    Replicas { channels: Replicas, users: UserReplicas },
}

impl ShardHomes {
    fn new(cache: CacheBounds, clustered: bool) -> Self {
        if clustered {
            Self::Replicas { channels: Replicas::new(cache), users: UserReplicas::default() }
        } else {
            Self::Own { channels: Homes::new(cache), users: UserHomes::default() }
        }
    }

    /// The channels of either, for everything but messages.
    const fn channels(&self) -> &dyn Channels {
        match self {
            Self::Own { channels, .. } => channels.channels(),
            Self::Replicas { channels, .. } => channels.channels(),
        }
    }

    /// The channels of either, for everything but messages.
    const fn channels_mut(&mut self) -> &mut dyn Channels {
        match self {
            Self::Own { channels, .. } => channels.channels_mut(),
            Self::Replicas { channels, .. } => channels.channels_mut(),
        }
    }

    /// The replicas of channels, if the node is one of a cluster.
    const fn replicas(&self) -> Option<&Replicas> {
        match self {
            Self::Own { .. } => None,
            Self::Replicas { channels, .. } => Some(channels),
        }
    }

    /// The replicas of channels, if the node is one of a cluster.
    const fn replicas_mut(&mut self) -> Option<&mut Replicas> {
        match self {
            Self::Own { .. } => None,
            Self::Replicas { channels, .. } => Some(channels),
        }
    }
}

impl HomeSide {
    /// Homes without channels. With `clustered`, the node is one of a cluster.
    pub(super) fn new(cache: CacheBounds, notices: NoticeSender, clustered: bool) -> Self {
        let homes = ShardHomes::new(cache, clustered);
        Self { homes, outbox: Outbox::default(), notices, forgetting: false }
    }

    /// Takes over which notices and counts each app wants.
    pub(super) fn adopt(&mut self, apps: &Apps) {
        let mut wanted = Vec::new();
        for app in apps.iter() {
            let index = usize::from(app.index.0);
            wanted.resize(wanted.len().max(index + 1), Wanted::default());
            wanted[index] = wanted_by(app);
        }
        if let Some(replicas) = self.homes.replicas_mut() {
            replicas.adopt_paths(apps.iter().map(|app| (app.index, AppPath::new(&app.id))));
        }
        self.homes.channels_mut().adopt(wanted);
        self.forgetting = true;
    }

    /// Handles a message about a channel.
    pub(super) fn handle(&mut self, from: ShardId, message: ToHome, now: Millis, link: &mut Link) {
        let out = &mut self.outbox;
        match &mut self.homes {
            ShardHomes::Own { channels, .. } => channels.handle(from, message, now, out),
            ShardHomes::Replicas { channels, .. } => channels.handle(from, message, now, out),
        }
        self.send(link);
    }

    /// Handles the changes of users on a shard.
    pub(super) fn handle_users(&mut self, from: ShardId, steps: Steps, link: &mut Link) {
        let out = &mut self.outbox;
        match &mut self.homes {
            ShardHomes::Own { users, .. } => users.handle(from, steps, out),
            ShardHomes::Replicas { users, .. } => users.handle(from, steps, out),
        }
        self.send(link);
    }

    /// Handles a message of the cluster.
    pub(super) fn learn(&mut self, message: FromCluster, now: Millis, link: &mut Link) {
        let ShardHomes::Replicas { channels, users } = &mut self.homes else {
            return broken("a cluster speaks to a node that is alone");
        };
        let out = &mut self.outbox;
        match message {
            FromCluster::Online(user, online) => users.learn(&user, online, out),
            FromCluster::Certain(user) => users.ask_again(&user, out),
            message => {
                if let FromCluster::Alone(alone) = message {
                    if alone {
                        out.tell_cluster(ToCluster::Alone(link.port.id()));
                    }
                    users.set_alone(alone, out);
                }
                channels.learn(message, now, out);
            }
        }
        self.send(link);
    }

    /// Whether the homes answer in the place of the cluster, which is away.
    pub(super) const fn is_alone(&self) -> bool {
        match &self.homes {
            ShardHomes::Own { .. } => false,
            ShardHomes::Replicas { users, .. } => users.is_alone(),
        }
    }

    /// Does a turn's part of work that is too long for one turn.
    pub(super) fn work(&mut self, now: Millis, link: &mut Link) {
        let out = &mut self.outbox;
        self.homes.channels_mut().work(now, out);
        if let Some(replicas) = self.homes.replicas_mut() {
            replicas.work(now, out);
        }
        self.send(link);
    }

    /// Whether work is left for the next turn.
    pub(super) fn has_work(&self) -> bool {
        let has_walks = || self.homes.replicas().is_some_and(Replicas::has_work);
        self.homes.channels().has_work() || has_walks()
    }

    /// Does the timed work: sends delayed subscriber counts, and drops cached events that have
    /// expired or belong to removed apps.
    pub(super) fn tick(&mut self, apps: &Arc<Apps>, now: Millis, link: &mut Link) {
        let out = &mut self.outbox;
        self.homes.channels_mut().tick(now, out);
        self.send(link);
        if self.forgetting {
            let removed = |app: &Arc<App>| app.rules.standing == Standing::Removed;
            let gone = |app: AppIndex| apps.get(app).is_none_or(removed);
            let cache = self.homes.channels_mut().cache_mut();
            self.forgetting = cache.forget_apps(gone, FORGOTTEN_PER_TICK);
        }
    }

    /// Hands the notices of the turn to the webhooks.
    pub(super) fn send_notices(&mut self) {
        self.notices.send();
    }

    /// Sets other bounds on cached events.
    pub(super) fn bound_cache(&mut self, bounds: CacheBounds) {
        self.homes.channels_mut().cache_mut().bound(bounds);
    }

    /// Drops at most `most` cached events that exceed the bounds.
    pub(super) fn shrink_cache(&mut self, most: usize) {
        self.homes.channels_mut().cache_mut().shrink(most);
    }

    /// Channels whose home is this shard.
    pub(super) fn channels(&self) -> usize {
        self.homes.channels().len()
    }

    /// The number of occupied channels by index of the app.
    pub(super) fn occupied_counts(&self) -> &[u32] {
        self.homes.channels().occupied_counts()
    }

    /// The occupied channels by kind, and their members, by app.
    pub(super) fn counters(&self) -> &PerApp<ChannelCounters> {
        self.homes.channels().counters()
    }

    /// The number of cached events.
    pub(super) fn cached(&self) -> usize {
        self.homes.channels().cached()
    }

    /// Users whose home is this shard.
    #[cfg(feature = "testing")]
    pub(super) fn users(&self) -> usize {
        match &self.homes {
            ShardHomes::Own { users, .. } => users.len(),
            ShardHomes::Replicas { users, .. } => users.len(),
        }
    }

    /// Gives memory back that a burst has left.
    pub(super) fn trim(&mut self) {
        self.homes.channels_mut().trim();
        if let Some(replicas) = self.homes.replicas_mut() {
            replicas.trim();
        }
        self.outbox.trim();
    }

    /// Bytes that lists and tables hold, in use or not.
    #[cfg(feature = "testing")]
    pub(super) fn room(&self) -> usize {
        let pending = self.homes.replicas().map_or(0, Replicas::room);
        self.homes.channels().room() + pending + self.outbox.room()
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
        let subscribers = self.homes.channels().subscribers(&event.key);
        Traced::new(event, by_client, subscribers)
    }

    fn refuses(&self, from: ShardId, whisper: &Whisper) -> bool {
        self.homes.channels().refuses(from, whisper)
    }

    fn send(&mut self, link: &mut Link) {
        for (to, message) in self.outbox.messages() {
            link.send(to, ShardMessage::FromHome(message));
        }
        for mut message in self.outbox.cluster_messages() {
            // Channels are registered by parts; the users are in the last one.
            if let (ToCluster::Registered(part), ShardHomes::Replicas { users, .. }) =
                (&mut message, &self.homes)
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
