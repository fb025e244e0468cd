//! The calls of a partition, and what comes of calls and entrances.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::channels::ReplyTo;
use crate::cluster::wire::CallKind;

/// A call, without the name of the node and what the settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its kind.
    pub(crate) kind: CallKind,
    /// Its number.
    pub(crate) number: u64,
    /// Its commands.
    pub(crate) args: Arc<[Bytes]>,
}

/// The outcome of an entrance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The node is in.
    In {
        /// Whether everything has to be registered anew: shards are to be asked for it.
        register: bool,
        /// Whether Redis was emptied: what is registered is no news to anybody.
        emptied: bool,
        /// Whether messages are lost.
        cut_off: bool,
        /// Publishers whose call was executed, though its answer was lost.
        confirmed: Vec<ReplyTo>,
    },
    /// Redis has buried the node: it has to enter under a new name ([`Partition::rename`](super::Partition::rename)).
    Buried,
}

/// The outcome of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Publishers whose events are certain to arrive.
    pub(crate) confirmed: Vec<ReplyTo>,
    /// An entrance is complete that was not the first.
    pub(crate) returned: Option<Returned>,
}

/// The node serves the partition again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    /// The time for which it was away.
    pub(crate) away: Duration,
    /// The calls that were sent again.
    pub(crate) repeated: u64,
}
