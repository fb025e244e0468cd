//! Notices about channels, for webhooks. Homes make them, because only a home knows the state of a
//! channel and the order of its changes.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::apps::webhook::EventKind;
use crate::id::{AppIndex, SocketId};
use crate::protocol::names::ChannelName;

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

/// An event on a channel, in the order of [`EventKind`].
#[derive(Clone, Debug)]
pub enum ChannelEvent {
    /// The channel has its first subscriber.
    Occupied,
    /// Its last subscriber is gone.
    Vacated,
    /// A user of this id became a member.
    MemberAdded(Arc<str>),
    /// The user of this id is no member any more.
    MemberRemoved(Arc<str>),
    /// A client sent an event.
    ClientEvent(Box<ClientEventNotice>),
    /// A subscriber found no cached event.
    CacheMiss,
    /// The channel has this number of subscribers now.
    SubscriptionCount(u32),
}

/// A client event as webhooks report it. It travels with the event, so that the home makes the
/// notices of a channel in the order of its events.
#[derive(Clone, Debug)]
pub struct ClientEventNotice {
    /// The name of the event.
    pub(crate) event: Box<str>,
    /// The data as sent. `None` if the client sent none.
    pub(crate) data: Option<Box<RawValue>>,
    /// The socket id of its sender.
    pub(crate) socket_id: SocketId,
    /// The user id of its sender, on presence channels.
    pub(crate) user_id: Option<Arc<str>>,
}

impl ChannelEvent {
    /// The kind of webhook event that this becomes.
    #[must_use]
    pub(crate) const fn kind(&self) -> EventKind {
        match self {
            Self::Occupied => EventKind::ChannelOccupied,
            Self::Vacated => EventKind::ChannelVacated,
            Self::MemberAdded(_) => EventKind::MemberAdded,
            Self::MemberRemoved(_) => EventKind::MemberRemoved,
            Self::ClientEvent(_) => EventKind::ClientEvent,
            Self::CacheMiss => EventKind::CacheMiss,
            Self::SubscriptionCount(_) => EventKind::SubscriptionCount,
        }
    }
}

impl Notice {
    /// The kind of event, by which webhooks select notices.
    #[must_use]
    pub(crate) const fn kind(&self) -> EventKind {
        self.event.kind()
    }

    /// The bytes of memory that it holds, roughly.
    #[must_use]
    pub(crate) fn weight(&self) -> usize {
        let event = match &self.event {
            ChannelEvent::ClientEvent(event) => {
                event.event.len() + event.data.as_ref().map_or(0, |data| data.get().len())
            }
            _ => 0,
        };
        size_of::<Self>() + self.channel.len() + event
    }

    /// A notice of the first app, for tests.
    #[cfg(test)]
    pub(crate) fn of(channel: &str, event: ChannelEvent) -> Self {
        let channel = ChannelName::parse(channel, 200, true).unwrap();
        Self { app: AppIndex(0), channel, event }
    }
}
