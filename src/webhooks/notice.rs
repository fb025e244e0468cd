//! A notice: something that happened on a channel, as a shard reports it.

use std::sync::Arc;

use crate::channels::Whisper;
use crate::id::AppIndex;
use crate::protocol::names::ChannelName;
use crate::protocol::webhook::EventKind;

/// Something that happened on a channel.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The app of the channel.
    pub app: AppIndex,
    /// The channel.
    pub channel: ChannelName,
    /// The event.
    pub event: ChannelEvent,
}

/// An event on a channel.
#[derive(Clone, Debug)]
pub enum ChannelEvent {
    /// The channel has its first subscriber.
    Occupied,
    /// The channel has lost its last subscriber.
    Vacated,
    /// This user became a member.
    MemberAdded(Arc<str>),
    /// This user is no longer a member.
    MemberRemoved(Arc<str>),
    /// A client sent an event.
    ClientEvent(Box<Whisper>),
    /// A client subscribed and found no cached event.
    CacheMiss,
    /// The channel has this number of subscribers now.
    SubscriptionCount(u32),
}

impl Notice {
    /// The kind by which webhooks choose it.
    pub(super) const fn kind(&self) -> EventKind {
        match self.event {
            ChannelEvent::Occupied => EventKind::ChannelOccupied,
            ChannelEvent::Vacated => EventKind::ChannelVacated,
            ChannelEvent::MemberAdded(_) => EventKind::MemberAdded,
            ChannelEvent::MemberRemoved(_) => EventKind::MemberRemoved,
            ChannelEvent::ClientEvent(_) => EventKind::ClientEvent,
            ChannelEvent::CacheMiss => EventKind::CacheMiss,
            ChannelEvent::SubscriptionCount(_) => EventKind::SubscriptionCount,
        }
    }

    /// About the memory that it holds, in bytes.
    pub(super) fn weight(&self) -> usize {
        let whisper = match &self.event {
            ChannelEvent::ClientEvent(whisper) => {
                whisper.event.len() + whisper.data.as_ref().map_or(0, |data| data.get().len())
            }
            _ => 0,
        };
        size_of::<Self>() + self.channel.len() + whisper
    }
}

#[cfg(test)]
pub(super) fn notice(channel: &str, event: ChannelEvent) -> Notice {
    let channel = ChannelName::parse(channel, 200, true).unwrap();
    Notice { app: AppIndex(0), channel, event }
}
