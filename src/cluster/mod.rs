//! Floor 6. Past one machine: this node's side of the truth that several nodes share over Redis.
//!
//! Alone, the home of a channel is a shard. In a cluster it is a script in Redis, which does for
//! nodes what a home shard does for shards: it knows which nodes are interested, orders the
//! messages, and keeps the members and the last event. Each node has one inbox per partition, a
//! stream in Redis, as each shard has a mailbox. The home shard of a channel on a node keeps a
//! [replica](crate::channels::Replicas) of what concerns its own subscribers.
//!
//! - [`ClusterWorker`]: the thread between the shards and Redis
//! - [`driver`]: the connections of each partition, and what is sent and read by them
//! - [`node`]: the node between the homes of this process and the partitions; pure
//! - [`partition`]: the stream of commands and the inbox of one partition; pure
//! - [`store`]: the connections as the driver uses them
//! - [`redis`]: the connections to Redis
//! - [`settings`]: where Redis is, and the times and bounds of the cluster
//! - [`status`]: the state of the cluster, for the operator
//! - [`scripts`]: the scripts in Redis
//! - [`wire`]: the commands that scripts take, and the records that they append to inboxes

mod driver;
#[cfg(any(test, feature = "testing"))]
mod model;
mod node;
mod partition;
mod redis;
pub(crate) mod scripts;
mod settings;
mod status;
mod store;
#[cfg(feature = "testing")]
pub(crate) mod testing;
mod wire;
mod worker;

pub(crate) use redis::probe;
pub(crate) use settings::{
    ClusterSettings, Password, RedisAddress, RedisLogin, RedisPlace, TlsFiles, WhenAway,
};
pub(crate) use status::{ClusterState, ClusterStatus};
pub(crate) use worker::{ClusterError, ClusterParts, ClusterWorker, ended};
