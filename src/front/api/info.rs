//! The attributes of channels that a request asks for with `info`.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::protocol::names::ChannelName;

use super::super::gateway::ChannelState;

/// The attributes that `info` asks for. As in Reverb, unknown ones are ignored, and an answer
/// leaves out those that the channel does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    user_count: bool,
    subscription_count: bool,
    pub(super) cache: bool,
}

impl Info {
    pub(super) fn of(list: &str) -> Self {
        let mut info = Self::default();
        for attribute in list.split(',') {
            match attribute.trim() {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                _ => {}
            }
        }
        info
    }

    /// Whether any count is asked for.
    pub(super) const fn wants_counts(self) -> bool {
        self.user_count || self.subscription_count
    }

    /// The counts that were asked for and that this channel has: only presence channels have users.
    pub(super) fn counts(self, channel: &ChannelName, state: &ChannelState) -> ChannelCounts {
        let user_count = self.user_count && channel.kind().is_presence();
        ChannelCounts {
            user_count: user_count.then_some(state.user_count),
            subscription_count: self.subscription_count.then_some(state.subscription_count),
        }
    }
}

/// The counts of a channel that were asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ChannelCounts {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u32>,
}

/// `{"name":{…},…}`. An empty map is an object as well, because the PHP client breaks on `[]`.
pub(super) struct ChannelMap(pub(super) Vec<(ChannelName, ChannelCounts)>);

impl Serialize for ChannelMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, counts) in &self.0 {
            map.serialize_entry(name.as_str(), counts)?;
        }
        map.end()
    }
}
