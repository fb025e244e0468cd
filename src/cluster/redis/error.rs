//! The reasons for which a node cannot work with Redis.

use std::io;

use super::acl::ACL_LINE;
use super::call_error::{CallError, Reply};
use super::peer::Peer;
use super::tls::{TlsFailure, TlsFilesError};
use crate::text::{Quoted, WithCauses};

/// The reason for which a node cannot work with Redis. `Display` is the sentence for the operator,
/// with the server, the cause and what to do. No text holds a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedisError {
    #[error(transparent)]
    Files(#[from] TlsFilesError),
    #[error(
        "cannot find the address of {peer} ({cause}): {remedy}",
        cause = WithCauses(cause),
        remedy = peer.address_remedy()
    )]
    Unresolved { peer: Peer, cause: io::Error },
    #[error(
        "cannot reach {peer} ({cause}): {remedy}",
        cause = WithCauses(cause),
        remedy = peer.address_remedy()
    )]
    Unreachable { peer: Peer, cause: io::Error },
    #[error("there is no TLS connection with {peer}: {cause}")]
    Tls { peer: Peer, cause: TlsFailure },
    #[error(
        "{peer} does not accept the user or the password ({reply}): correct {settings}",
        settings = peer.login_settings()
    )]
    Login { peer: Peer, reply: Reply },
    #[error(
        "{peer} does not have database {database} ({reply}): set cluster.database (REDIS_DB) to \
         one that it has; a Redis Cluster has only 0"
    )]
    Database { peer: Peer, database: u32, reply: Reply },
    #[error("{peer} is {product}: upgrade it to Redis 6.2 or later, or to Valkey")]
    Old { peer: Peer, product: Box<str> },
    #[error(
        "{peer} is a replica: name its master with cluster.redis (REDIS_HOST), or let sentinels \
         find it (cluster.mode `sentinel`)"
    )]
    Replica { peer: Peer },
    #[error(
        "{peer} is a sentinel: set cluster.mode to `sentinel`, and name it with cluster.sentinels"
    )]
    IsSentinel { peer: Peer },
    #[error(
        "{peer} is no sentinel ({reply}): correct cluster.sentinels, whose usual port is 26379"
    )]
    NoSentinel { peer: Peer, reply: Reply },
    #[error(
        "{peer} does not know the master {master}: correct cluster.sentinel_master",
        master = Quoted(master)
    )]
    UnknownMaster { peer: Peer, master: Box<str> },
    /// The partition is on another server of a Redis Cluster than the only one that is to be used.
    #[error("{peer} is part of a Redis Cluster: set cluster.mode to `cluster`")]
    InCluster { peer: Peer },
    #[error(
        "the servers of the Redis Cluster name each other as the one that has the partition, \
         lastly {peer}: repair the cluster (redis-cli --cluster check)"
    )]
    Circle { peer: Peer },
    /// Two sockets to one address reached two processes.
    #[error(
        "{peer} stands for several servers: name one server, or use cluster.mode `sentinel` or \
         `cluster`; behind a restart it is one server again"
    )]
    Several { peer: Peer },
    /// The cluster has another number of partitions than this node.
    #[error(
        "the cluster has {theirs} partition{s} at {peer}, and cluster.partitions of this node is \
         {ours}: set it to {theirs}, or choose another cluster.name (REVERB_SCALING_CHANNEL)",
        s = if *theirs == 1 { "" } else { "s" }
    )]
    Partitions { peer: Peer, theirs: u16, ours: u16 },
    #[error("the user of {peer} may not run {commands}: grant it with `{ACL_LINE}`")]
    Rights { peer: Peer, commands: Box<str> },
    #[error("cannot use {peer}: {cause}")]
    Call { peer: Peer, cause: CallError },
    /// None of several servers can be used.
    #[error("none of {count} servers can be used; the last: {last}")]
    NoneOf { count: usize, last: Box<Self> },
    /// The settings name no server, which the configuration refuses.
    #[error("the settings name no server: set cluster.redis, or cluster.sentinels")]
    NoServer,
}

impl RedisError {
    /// A request to this server failed.
    pub(super) fn of_call(peer: &Peer, cause: CallError) -> Self {
        let peer = peer.clone();
        match cause {
            CallError::Login(reply) => Self::Login { peer, reply },
            CallError::Lost(text) if text.contains("fatal alert") => {
                Self::Tls { peer, cause: TlsFailure::of_alert(&text) }
            }
            cause => Self::Call { peer, cause },
        }
    }

    /// A request failed that tells the server how many partitions this node expects.
    pub(super) fn of_entrance(peer: &Peer, cause: CallError, ours: u16) -> Self {
        match cause {
            CallError::Partitions(theirs) => Self::Partitions { peer: peer.clone(), theirs, ours },
            cause => Self::of_call(peer, cause),
        }
    }

    /// Whether it remains until somebody changes the settings or the server, so that a node that
    /// waits would wait for ever. Of several servers, the last one counts.
    pub(crate) const fn is_permanent(&self) -> bool {
        match self {
            Self::Files(_)
            | Self::Login { .. }
            | Self::Database { .. }
            | Self::Old { .. }
            | Self::IsSentinel { .. }
            | Self::NoSentinel { .. }
            | Self::UnknownMaster { .. }
            | Self::InCluster { .. }
            | Self::Partitions { .. }
            | Self::Rights { .. }
            | Self::NoServer => true,
            // Servers start, fail over and are moved.
            Self::Unresolved { .. }
            | Self::Unreachable { .. }
            | Self::Replica { .. }
            | Self::Circle { .. }
            | Self::Several { .. } => false,
            Self::Tls { cause, .. } => cause.is_permanent(),
            Self::Call { cause, .. } => cause.is_permanent(),
            Self::NoneOf { last, .. } => last.is_permanent(),
        }
    }

    /// The outcome of several servers that were tried in their order.
    pub(super) fn none_of(count: usize, last: Option<Self>) -> Self {
        match last {
            None => Self::NoServer,
            Some(only) if count == 1 => only,
            Some(last) => Self::NoneOf { count, last: Box::new(last) },
        }
    }
}
