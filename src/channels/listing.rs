//! Lists of occupied channels, of which an app may have hundreds of thousands. A home looks at a
//! part of its channels per turn, so that nothing else waits for the whole list.

use std::sync::Arc;

use crate::id::AppIndex;

use super::message::{Answer, FromHome, ReplyTo};
use super::{ChannelKey, ChannelState, Outbox};

/// The channels that a turn looks at for a list: some hundreds of microseconds of work.
pub(super) const LOOKS_PER_TURN: u32 = 1024;

/// A list on its way to the shard that asked for it.
#[derive(Debug)]
pub(super) struct Listing {
    /// The address for the parts of the list.
    pub(super) reply_to: ReplyTo,
    /// The app whose channels are listed.
    pub(super) app: AppIndex,
    /// The prefix that the channels' names have to have.
    pub(super) prefix: Arc<str>,
    /// The number of the channel at which the next part begins.
    pub(super) from: u32,
}

impl Listing {
    /// Sends the next part of the list. `occupied` returns the occupied channel of a number, if
    /// there is one, and `state` what is told of it; all numbers are below `end`. Returns the rest
    /// of the list, if any is left.
    pub(super) fn send_part<'a>(
        self,
        end: u32,
        occupied: impl Fn(u32) -> Option<&'a ChannelKey>,
        state: impl Fn(&ChannelKey) -> ChannelState,
        out: &mut Outbox,
    ) -> Option<Self> {
        let Self { reply_to, app, ref prefix, from } = self;
        let to = from.saturating_add(LOOKS_PER_TURN).min(end);
        let asked = (from..to).filter_map(occupied).filter(|key| key.app() == app);
        let named = asked.filter(|key| key.name().as_str().starts_with(&**prefix));
        let channels = named.map(|key| (key.name().clone(), state(key))).collect();
        let last = to == end;
        let answer = Box::new(Answer::Occupied { channels, last });
        out.send(reply_to.shard, FromHome::Answer(reply_to, answer));
        (!last).then_some(Self { from: to, ..self })
    }
}
