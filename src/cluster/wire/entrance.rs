//! The entrance of a node into a partition.

use bytes::Bytes;

use super::NodeId;

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
        let texts = [
            self.partitions.to_string(),
            self.epoch.to_string(),
            self.run.to_string(),
            self.version.to_string(),
            self.address.to_string(),
            self.base.to_string(),
            self.lease_ms.to_string(),
        ];
        out.extend(texts.into_iter().map(Bytes::from));
        out.extend(self.known.iter().map(|node| Bytes::from(node.to_string())));
    }
}

impl Entered {
    /// Reads the elements of the answer; `None` if they are not one.
    pub(crate) fn of(elements: &[Bytes]) -> Option<Self> {
        let [epoch, done, letters, now_ms] = elements else { return None };
        let text = |element: &Bytes| std::str::from_utf8(element).ok().map(ToOwned::to_owned);
        Some(Self {
            epoch: text(epoch)?.into(),
            done: text(done)?.parse().ok()?,
            unknown: letters.contains(&b'f'),
            cut: letters.contains(&b'c'),
            buried: letters.contains(&b'd'),
            missed: letters.contains(&b'm'),
            now_ms: text(now_ms)?.parse().ok()?,
        })
    }
}
