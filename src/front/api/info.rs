//! The attributes of channels that a call asks for with `info`.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::protocol::names::ChannelName;

use super::super::gateway::ChannelState;

/// Attributes asked for with `info`. As in Reverb, unknown ones are ignored, and those that a
/// channel does not have are left out of its answer.
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

    /// Whether a count is asked for, of whatever channel.
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

/// The counts of a channel, those that were asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ChannelCounts {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u32>,
}

/// `{"channels":{"name":{…},…}}`. An object also when it is empty: the PHP client breaks on `[]`.
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
