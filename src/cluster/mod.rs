//! Floor 6. Past one machine: this node's side of the truth that several nodes share over Redis.
//!
//! Alone, the home of a channel is a shard. In a cluster it is a script in Redis, which does for
//! nodes what a home shard does for shards: it knows which nodes are interested, orders the
//! messages, and keeps the members and the last event. Each node has one inbox per partition, a
//! stream in Redis, as each shard has a mailbox. The home shard of a channel on a node keeps a
//! [replica](crate::channels::Replicas) of what concerns its own subscribers.
//!
//! - [`redis`]: the connections to Redis
//! - [`settings`]: where Redis is, and the times and bounds of the cluster
//! - [`scripts`]: the scripts in Redis
//! - [`wire`]: the commands that scripts take, and the records that they append to inboxes

#[cfg(any(test, feature = "testing"))]
mod model;
mod partition;
mod redis;
mod scripts;
mod settings;
mod store;
mod wire;

use redis::Scripts;
pub(crate) use redis::{ConnectError, Findings};
pub(crate) use settings::{
    ClusterSettings, Password, RedisAddress, RedisLogin, RedisPlace, TlsFiles, WhenAway,
};

/// The scripts of this version.
const SCRIPTS: Scripts = Scripts { enter: scripts::ENTER, call: scripts::CALL };

/// Proves that a node with these settings can work with its Redis. See [`redis::probe`].
///
/// # Errors
/// Redis cannot be reached, or lacks something that a node needs.
pub(crate) async fn probe(settings: &ClusterSettings) -> Result<Findings, ConnectError> {
    redis::probe(settings, SCRIPTS).await
}
