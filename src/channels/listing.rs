//! Lists of occupied channels, of which an app may have hundreds of thousands. A home looks at a
//! part of its channels per turn, so that nothing else waits for the whole list.

use std::sync::Arc;

use crate::id::AppIndex;

use super::ReplyTo;

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
