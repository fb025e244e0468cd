//! The state of a cluster as one of its nodes sees it, for the operator.

use serde::{Deserialize, Serialize};

/// The state of the cluster as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterStatus {
    /// The name of the cluster.
    pub(crate) name: String,
    /// The addresses of Redis.
    pub(crate) redis: String,
    /// Whether commands reach Redis.
    pub(crate) state: ClusterState,
    /// The time since which they do not, in seconds.
    pub(crate) away_s: Option<u64>,
    /// The addresses of all nodes.
    pub(crate) nodes: Vec<String>,
    /// Calls that were sent again, because Redis may not have executed them.
    pub(crate) repeated_calls: u64,
    /// The bytes of commands that wait for Redis.
    pub(crate) backlog_bytes: usize,
    /// Entries and records that could not be read.
    pub(crate) unreadable: u64,
    /// Entries of other versions.
    pub(crate) other_versions: u64,
}

/// Whether commands reach Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClusterState {
    /// Commands do not reach Redis, and clients wait.
    #[default]
    Away,
    /// Commands do not reach Redis, and the node serves its clients alone.
    Alone,
    /// Commands reach Redis.
    Serving,
}
