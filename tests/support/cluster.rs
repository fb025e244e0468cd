//! Several gateways on one Redis, each behind a proxy of its own.

use std::array;
use std::net::SocketAddr;
use std::ops::Deref;

use rustix::process::Signal;

use super::gateway::{Gateway, Setup, eventually};
use super::proxy::Proxy;
use super::redis::{self, Redis};

/// The shards of each node: several, so that subscribers of one channel meet across them.
const SHARDS: usize = 2;

/// The first part of every key of a cluster that has the default name and one partition.
pub const TAG: &str = "{ringwave:reverb:0}:";

/// The settings for tests that wait for the end of a lease. They keep the proportions of the
/// defaults, as far as whole seconds do.
pub const BRIEF: &str = "cluster.lease = 2\ncluster.retention = 8\ncluster.patience = 3\n";

/// A running cluster.
pub struct Cluster<const N: usize> {
    pub nodes: [Node; N],
    pub redis: Redis,
}

/// A gateway of a cluster.
pub struct Node {
    gateway: Gateway,
    /// The proxy between the gateway and its Redis.
    pub proxy: Proxy,
}

impl Deref for Node {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// Runs a test on a cluster. Without a `redis-server` it is left out.
pub fn over<const N: usize>(test: impl FnOnce(Cluster<N>)) {
    over_with(|setup| setup, test);
}

/// Runs a test as [`over`] does, with settings for all nodes.
pub fn over_with<const N: usize>(settings: impl Fn(Setup) -> Setup, test: impl FnOnce(Cluster<N>)) {
    if redis::is_installed() {
        test(Cluster::on(Redis::start(), settings));
    }
}

/// The settings of [`BRIEF`].
pub fn brief(setup: Setup) -> Setup {
    setup.toml(BRIEF)
}

/// A setup whose `.env` names this Redis.
pub fn scaled(setup: Setup, redis: SocketAddr) -> Setup {
    let setup = setup.env("REVERB_SCALING_ENABLED", "true");
    setup.env("REDIS_HOST", &redis.ip().to_string()).env("REDIS_PORT", &redis.port().to_string())
}

/// Waits until exactly so many nodes are in the cluster, and all of them have registered
/// everything.
#[track_caller]
pub fn until_joined(redis: &Redis, count: usize) {
    eventually(&format!("{count} nodes are in the cluster"), || {
        let nodes: usize = redis.ask(&format!("ZCARD {TAG}nodes"));
        let stale: usize = redis.ask(&format!("SCARD {TAG}stale"));
        (nodes == count && stale == 0).then_some(())
    });
}

impl<const N: usize> Cluster<N> {
    /// Starts the nodes and waits until all of them have joined.
    pub fn on(redis: Redis, settings: impl Fn(Setup) -> Setup) -> Self {
        let nodes = array::from_fn(|_| Node::on(&redis, &settings));
        let cluster = Self { nodes, redis };
        cluster.until_joined(N);
        cluster
    }

    /// The gateways of all nodes.
    pub fn gateways(&self) -> [&Gateway; N] {
        self.nodes.each_ref().map(|node| &**node)
    }

    /// Waits until exactly so many nodes are in the cluster.
    #[track_caller]
    pub fn until_joined(&self, count: usize) {
        until_joined(&self.redis, count);
    }
}

impl Node {
    /// Starts a node. It may still be joining.
    pub fn on(redis: &Redis, settings: impl Fn(Setup) -> Setup) -> Self {
        let proxy = Proxy::to(redis.address());
        let gateway = settings(scaled(Setup::new(SHARDS), proxy.address())).start();
        Self { gateway, proxy }
    }

    /// The process, without the proxy in front of its Redis.
    pub fn gateway(&mut self) -> &mut Gateway {
        &mut self.gateway
    }

    /// Ends it by a signal, and starts another one with the same settings at once.
    pub fn restart(&mut self, signal: Signal) {
        self.gateway.signal(signal);
        self.gateway.ended();
        let twin = self.gateway.twin();
        self.gateway = twin.start();
    }
}
