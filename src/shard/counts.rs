//! The counts of messages, and of connections that end.

use super::subscriber_side::SubscriberSide;
use crate::counters::CloseCause;
use crate::id::{AppIndex, ConnKey};
use crate::plane::Ended;
use crate::websocket::Message;

impl SubscriberSide {
    /// Counts a message of a client.
    pub(super) fn count_message(&mut self, key: ConnKey, message: &Message<'_>) {
        let bytes = match message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
            _ => return,
        };
        if let Some(open) = self.sessions.get(key.slot) {
            let of_app = self.counters.of(open.app());
            of_app.messages += 1;
            of_app.message_bytes += bytes as u64;
        }
    }

    /// Counts a connection that this shard is about to close.
    pub(super) fn count_close(&mut self, slot: u32, cause: CloseCause) {
        if let Some(open) = self.sessions.get(slot) {
            self.counters.of(open.app()).closed[cause as usize] += 1;
        }
    }

    /// Counts a connection that has ended, unless it was counted before its close.
    pub(super) fn count_end(&mut self, app: AppIndex, why: Ended) {
        let cause = match why {
            Ended::Ours => return,
            Ended::PeerClosed => CloseCause::Client,
            Ended::PeerLeft => CloseCause::Left,
            Ended::Violation(_) => CloseCause::Frames,
            Ended::Failed(_) => CloseCause::Network,
            Ended::TooSlow => CloseCause::SlowReader,
        };
        self.counters.of(app).closed[cause as usize] += 1;
    }
}
