//! The state that all shards share, and the configuration that they are given with it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::apps::Apps;
use crate::config::ServerConfig;
use crate::front::{self, AddressTable};
use crate::memory::{Allowance, Headroom};
use crate::plane::BacklogLimits;
use crate::refusals::Refusals;
use crate::shard::InForce;
use crate::time::Clock;

use super::ledger::Shares;

/// The state that all shards share. A reload does not change it.
#[derive(Clone, Debug)]
pub(super) struct SharedState {
    /// The number of HTTP connections of each shard that the limit of open files allows.
    pub(super) http_connections_max: u32,
    /// The connections and requests of each address.
    pub(super) addresses: Arc<AddressTable>,
    /// The counters of refusals that the log still has to report.
    pub(super) refusals: Arc<Refusals>,
    /// The memory that may be taken for clients before it is measured again.
    pub(super) allowance: Arc<Allowance>,
    /// The memory that is left, as the memory watch last told all shards.
    pub(super) headroom: Arc<watch::Sender<Headroom>>,
    /// The clock of the process.
    pub(super) clock: Clock,
}

impl SharedState {
    /// The state of a process that starts.
    pub(super) fn new(http_connections_max: u32, clock: Clock) -> Self {
        Self {
            http_connections_max,
            addresses: Arc::default(),
            refusals: Arc::default(),
            allowance: Arc::default(),
            headroom: Arc::new(watch::Sender::new(Headroom::Enough)),
            clock,
        }
    }

    /// The configuration of shards that these settings and apps make.
    pub(super) fn in_force(&self, server: &ServerConfig, apps: &Arc<Apps>) -> InForce {
        let shares = Shares::of_settings(server, apps);
        let backlog =
            BacklogLimits { connection: server.backlog_per_connection, shard: shares.backlogs };
        let front = front::Settings {
            path_prefix: server.path.clone(),
            connections_max: self.http_connections_max,
            head_timeout: server.header_timeout,
            proxies: server.trusted_proxies.clone(),
            limits: server.address_limits,
            addresses: Arc::clone(&self.addresses),
            refusals: Arc::clone(&self.refusals),
            clock: self.clock,
            bodies_bytes_max: shares.bodies,
            connections_when_short: shares.connections_when_short,
            ..front::Settings::default()
        };
        InForce {
            apps: Arc::clone(apps),
            backlog,
            front: Arc::new(front),
            shutdown_window: server.shutdown_window,
        }
    }
}
