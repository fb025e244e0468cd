//! The lines of the memory budget, which `ringwave doctor` prints, and those of the ledger.

/// A holder of memory, for one line of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The purpose of the memory.
    pub(crate) name: &'static str,
    /// The size, without the allocator's rounding.
    pub(crate) bytes: usize,
    /// The kind of object that has one of these.
    pub(crate) per: Per,
}

/// The unit by which a [`Holder`] is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    /// A shard, with or without connections.
    Shard,
    /// An open connection.
    Connection,
    /// A subscription of a connection.
    Subscription,
    /// A channel that is occupied, at the shard of its only subscriber and at its home.
    Channel,
    /// A member of a presence channel, beside the subscription.
    Member,
}

/// A kind of memory that clients can make the process hold, for one line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The name in the ledger.
    pub(crate) name: &'static str,
    /// The size of one, the largest or a usual one; as text, because some depend on names.
    pub(crate) each: String,
    /// The most bytes of all together, over all shards. `None` if only the memory bounds them: new
    /// ones are refused when it is short.
    pub(crate) total: Option<u64>,
    /// The setting that changes the total, or the reason why it is bounded.
    pub(crate) by: &'static str,
}
