//! The standing of this node, or of a user on it, in a channel.

/// The standing of a node in a channel, or of a node's user in a presence channel. It changes by
/// the cluster's answer, and no other question is under way meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not in the channel.
    #[default]
    Out,
    /// The cluster has been asked to let it in.
    Entering,
    /// It is in the channel.
    In,
    /// The cluster has been told that it leaves.
    Leaving,
}
