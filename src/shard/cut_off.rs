//! The end of connections that may have missed messages, because the cluster lost some of this
//! node's. Their clients return, subscribe anew, and are right again.

use std::collections::HashMap;

use super::subscriber_side::SubscriberSide;
use crate::channels::{AppPath, ChannelKey, PartitionId};
use crate::id::AppIndex;
use crate::plane::Plane;
use crate::protocol::close::ProtocolError;
use crate::ring::Ring;

/// The most connections that a tick closes: 10,000 per second and shard, half the rate of a drain,
/// because all of them return to this node.
const CLOSINGS_PER_TICK: usize = 1000;

impl SubscriberSide {
    /// Marks the connections with a subscription to a channel of the partition.
    pub(super) fn cut_off<R: Ring>(&mut self, plane: &Plane<R>, partition: PartitionId) {
        let Self { local, apps, .. } = self;
        let paths: HashMap<AppIndex, AppPath> =
            apps.iter().map(|app| (app.index, AppPath::new(&app.id))).collect();
        let is_lost = |key: &ChannelKey| {
            let path = paths.get(&key.app());
            path.is_some_and(|path| path.partition(key.name(), partition.of) == partition.number)
        };
        let keys: Vec<_> = plane.keys().filter(|key| local.subscribes(key.slot, is_lost)).collect();
        self.cut_off.extend(keys);
    }

    /// Closes the next of the marked connections.
    pub(super) fn close_cut_off<R: Ring>(&mut self, plane: &mut Plane<R>) {
        for _ in 0..CLOSINGS_PER_TICK {
            let Some(key) = self.cut_off.pop_front() else { return };
            self.end(plane, key, ProtocolError::MessagesLost);
        }
    }
}
