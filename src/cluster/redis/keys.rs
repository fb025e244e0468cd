//! The names of the keys that a connection itself needs.

use bytes::Bytes;

use crate::cluster::wire::NodeId;

/// The keys of one partition. They share a tag, and with it a slot of Redis Cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    tag: Bytes,
}

impl Keys {
    /// The keys of a partition of the cluster of this name.
    pub(super) fn of_partition(name: &str, partition: u16) -> Self {
        Self { tag: format!("{{ringwave:{name}:{partition}}}:").into() }
    }

    /// Keys in the same slot that no node uses, told apart by the id.
    pub(super) fn scratch(&self, id: NodeId) -> Self {
        Self { tag: self.named(&format!("check:{id}:")) }
    }

    /// The tag, with which all keys begin.
    pub(super) const fn tag(&self) -> &Bytes {
        &self.tag
    }

    /// The number of partitions that the cluster has.
    pub(super) fn partitions(&self) -> Bytes {
        self.named("partitions")
    }

    /// The leases of the nodes: the key that routes a call on Redis Cluster.
    pub(super) fn nodes(&self) -> Bytes {
        self.named("nodes")
    }

    /// The inbox of a node.
    pub(super) fn inbox(&self, node: NodeId) -> Bytes {
        self.named(&format!("in:{node}"))
    }

    /// A key by its name behind the tag.
    pub(super) fn named(&self, name: &str) -> Bytes {
        [&self.tag, name.as_bytes()].concat().into()
    }
}
