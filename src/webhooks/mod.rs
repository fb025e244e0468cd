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
//! `Settling`, `CountThrottle` of the floor below and a `Lane` per endpoint), which `courier` drives.

mod body;
mod courier;
mod dispatch;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod lane;
mod settling;
mod spool;
mod tap;

use crate::channels::{Notice, NoticeKind};
#[cfg(test)]
use crate::{id::AppIndex, protocol::names::ChannelName};

pub use courier::{Courier, Settings};
pub use tap::{Tap, WAITING_BYTES_MAX};

#[cfg(test)]
fn notice(channel: &str, what: NoticeKind) -> Notice {
    let channel = ChannelName::parse(channel, 200, true).unwrap();
    Notice { app: AppIndex(0), channel, what }
}
