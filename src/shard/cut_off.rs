//! The end of connections that may have missed messages, because the cluster lost some of this
//! node's. Their clients return, subscribe anew, and are right again.

use std::collections::VecDeque;

use super::subscriber_side::SubscriberSide;
use crate::channels::{ChannelKey, ChannelPath};
use crate::id::ConnKey;
use crate::plane::Plane;
use crate::protocol::close::ProtocolError;
use crate::ring::Ring;

/// The most connections that a tick closes: 10,000 per second and shard, half the rate of a drain,
/// because all of them return to this node.
const CLOSINGS_PER_TICK: usize = 1000;

/// The connections that are to be closed, the next one first.
#[derive(Debug, Default)]
pub(super) struct CutOff {
    due: VecDeque<ConnKey>,
}

impl CutOff {
    /// Whether connections are left to close.
    pub(super) fn has_work(&self) -> bool {
        !self.due.is_empty()
    }
}

impl SubscriberSide {
    /// Marks the connections with a subscription to a channel of the partition.
    pub(super) fn cut_off<R: Ring>(&mut self, plane: &Plane<R>, partition: u16, partitions: u16) {
        let Self { local, apps, .. } = self;
        let is_lost = |key: &ChannelKey| {
            let app = apps.get(key.app());
            app.is_some_and(|app| {
                ChannelPath::new(&app.id, key.name()).partition(partitions) == partition
            })
        };
        let keys: Vec<_> = plane.keys().filter(|key| local.subscribes(key.slot, is_lost)).collect();
        self.cut_off.due.extend(keys);
    }

    /// Closes the next of the marked connections.
    pub(super) fn close_cut_off<R: Ring>(&mut self, plane: &mut Plane<R>) {
        for _ in 0..CLOSINGS_PER_TICK {
            let Some(key) = self.cut_off.due.pop_front() else { return };
            self.end(plane, key, ProtocolError::MessagesLost);
        }
    }
}
