//! The end of connections that may have missed messages, because the cluster lost some of this
//! node's. Their clients return at once, subscribe anew, and are right again. As all of them return
//! to nodes that serve others meanwhile, their closes are spread as those of a stop are.

use std::collections::HashMap;

use super::subscriber_side::SubscriberSide;
use crate::channels::{AppPath, ChannelKey, PartitionId};
use crate::id::AppIndex;
use crate::plane::Plane;
use crate::protocol::close::ProtocolError;
use crate::ring::Ring;

impl SubscriberSide {
    /// Marks the connections with a subscription to a channel of the partition.
    pub(super) fn cut_off<R: Ring>(&mut self, plane: &Plane<R>, partition: PartitionId) {
        let Self { local, apps, cut_off, link, now, .. } = self;
        let paths: HashMap<AppIndex, AppPath> =
            apps.iter().map(|app| (app.index, AppPath::new(&app.id))).collect();
        let is_lost = |key: &ChannelKey| {
            let path = paths.get(&key.app());
            path.is_some_and(|path| path.partition(key.name(), partition.of) == partition.number)
        };
        let keys = plane.keys().filter(|key| local.subscribes(key.slot, is_lost));
        cut_off.mark(keys, link.topology.shards().len(), *now);
    }

    /// Closes those of the marked connections that are due.
    pub(super) fn close_cut_off<R: Ring>(&mut self, plane: &mut Plane<R>) {
        if !self.cut_off.is_empty() {
            for key in self.cut_off.due(self.now) {
                self.end(plane, key, ProtocolError::MessagesLost);
            }
        }
    }
}
