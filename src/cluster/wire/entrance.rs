//! The entrance of a node into a partition.

use bytes::Bytes;

use super::NodeId;
use super::codec::{Listed, Values, id, number, text};

/// A node introduces itself. See the [module](super) for what the script does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    /// The number of partitions.
    pub(crate) partitions: u16,
    /// The epoch to use if there is none.
    pub(crate) epoch: Box<str>,
    /// The `run_id` of the server; empty if it does not tell.
    pub(crate) run: Box<str>,
    /// The version of Ringwave.
    pub(crate) version: Box<str>,
    /// Host name and listener, for the operator.
    pub(crate) address: Box<str>,
    /// The number before the first batch that can be repeated.
    pub(crate) base: u64,
    /// The duration of a lease in milliseconds.
    pub(crate) lease_ms: u64,
    /// The other nodes that were seen alive.
    pub(crate) known: Vec<NodeId>,
}

/// The answer to an [`Entrance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    /// The epoch of the partition.
    pub(crate) epoch: Box<str>,
    /// The highest number of a batch that was executed.
    pub(crate) done: u64,
    /// Whether the node was unknown: it has to register everything.
    pub(crate) unknown: bool,
    /// Whether its inbox was cut: records are lost.
    pub(crate) cut: bool,
    /// Whether its members were buried: it has to register them.
    pub(crate) buried: bool,
    /// Whether others have made batches in this epoch while none of them knew the node.
    pub(crate) missed: bool,
    /// The time of Redis in milliseconds.
    pub(crate) now_ms: u64,
}

impl Entrance {
    /// Appends the arguments behind `T` and `N`.
    pub(crate) fn push_args(&self, out: &mut Vec<Bytes>) {
        out.extend([
            number(self.partitions),
            text(&self.epoch),
            text(&self.run),
            text(&self.version),
            text(&self.address),
            number(self.base),
            number(self.lease_ms),
        ]);
        out.extend(self.known.iter().map(id));
    }
}

impl Entered {
    /// Reads the elements of the answer; `None` if they are not one.
    pub(crate) fn of(elements: &[Bytes]) -> Option<Self> {
        let mut elements = Listed(elements.iter());
        let (epoch, done) = (elements.text()?, elements.number()?);
        let (letters, now_ms) = (elements.next()?, elements.number()?);
        elements.is_empty().then(|| Self {
            epoch,
            done,
            unknown: letters.contains(&b'f'),
            cut: letters.contains(&b'c'),
            buried: letters.contains(&b'd'),
            missed: letters.contains(&b'm'),
            now_ms,
        })
    }
}
