//! The counters of a busy shard, for benches.

use crate::id::AppIndex;

use super::RequestCounters;
use super::{APPS_MAX, ApiRoute, ByKind, ChannelCounters, ConnectionCounters, PerApp};

/// All counters by app that a shard has, with as many apps as have counters of their own.
#[derive(Clone, Debug, Default)]
pub struct FullCounters {
    connections: PerApp<ConnectionCounters>,
    subscriptions: PerApp<ByKind>,
    channels: PerApp<ChannelCounters>,
    requests: PerApp<RequestCounters>,
}

impl FullCounters {
    /// Counts something of every app.
    #[must_use]
    pub fn new() -> Self {
        let mut counters = Self::default();
        let apps = (0..=APPS_MAX).filter_map(|index| u16::try_from(index).ok().map(AppIndex));
        for app in apps {
            counters.message(app, 1);
            counters.subscriptions.of(app)[0] += 1;
            counters.channels.of(app).members += 1;
            counters.requests.of(app).answered(ApiRoute::Events, 200);
        }
        counters
    }

    /// Counts a message of a client, as a shard does.
    pub fn message(&mut self, app: AppIndex, bytes: u64) {
        let of_app = self.connections.of(app);
        of_app.messages += 1;
        of_app.message_bytes += bytes;
    }
}
