//! Floor 4. Webhooks: tells an app's own servers what happens on its channels, by signed requests.
//!
//! Contract:
//! - A shard hands over what happened by its [`Tap`], once per turn, and never waits: what finds
//!   no room is counted and logged. For an app without webhooks nothing is handed over at all.
//! - One thread, the [`Courier`]'s, does everything else. A slow or dead receiver holds up its own
//!   endpoint only, whose queue is bounded in bytes; what overflows is counted and logged.
//! - Events of one channel reach an endpoint in the order in which its home had them; the next
//!   request to an endpoint begins when the one before was answered with 2xx or given up. An event
//!   may come twice, when an answer was lost.
//! - A failed request is repeated with exponential back-off and full jitter, until the event is
//!   five minutes old. Redirects are not followed: a body signed for one host is for no other.
//!
//! The decisions are a state machine without clock, sockets and randomness (`Dispatch`, made of
//! `Settling`, `Counts` of the floor below and a `Lane` per endpoint), which `courier` drives.

mod body;
mod courier;
mod dispatch;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
mod http;
mod lane;
mod settling;
mod spool;
mod tap;

use std::sync::Arc;

use crate::channels::Whisper;
use crate::id::AppIndex;
use crate::protocol::names::ChannelName;
use crate::protocol::webhook::EventKind;

pub(crate) use courier::{Courier, Settings};
pub use tap::Tap;
pub(crate) use tap::WAITING_BYTES_MAX;

/// Something that happened on a channel.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The app of the channel.
    pub app: AppIndex,
    /// The channel.
    pub channel: ChannelName,
    /// The event.
    pub what: What,
}

/// An event on a channel.
#[derive(Clone, Debug)]
pub enum What {
    /// It has its first subscriber.
    Occupied,
    /// Its last subscriber is gone.
    Vacated,
    /// This user came.
    MemberAdded(Arc<str>),
    /// This user left.
    MemberRemoved(Arc<str>),
    /// A client sent an event.
    ClientEvent(Box<Whisper>),
    /// A subscriber found no remembered event.
    CacheMiss,
    /// It has this number of subscribers now.
    SubscriptionCount(u32),
}

impl Notice {
    const fn kind(&self) -> EventKind {
        match self.what {
            What::Occupied => EventKind::ChannelOccupied,
            What::Vacated => EventKind::ChannelVacated,
            What::MemberAdded(_) => EventKind::MemberAdded,
            What::MemberRemoved(_) => EventKind::MemberRemoved,
            What::ClientEvent(_) => EventKind::ClientEvent,
            What::CacheMiss => EventKind::CacheMiss,
            What::SubscriptionCount(_) => EventKind::SubscriptionCount,
        }
    }

    /// About the memory that it holds, in bytes.
    fn weight(&self) -> usize {
        let whisper = match &self.what {
            What::ClientEvent(whisper) => {
                whisper.event.len() + whisper.data.as_ref().map_or(0, |data| data.get().len())
            }
            _ => 0,
        };
        size_of::<Self>() + self.channel.len() + whisper
    }
}

#[cfg(test)]
fn notice(channel: &str, what: What) -> Notice {
    let channel = ChannelName::parse(channel, 200, true).unwrap();
    Notice { app: AppIndex(0), channel, what }
}
