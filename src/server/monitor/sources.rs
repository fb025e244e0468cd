//! The sources of the listener's answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::bus::Outside;
use crate::cluster::ClusterStatus;
use crate::shard::ShardMessage;
use crate::time::Millis;
use crate::webhooks::WebhookFigures;

use super::super::asking::ask;
use super::super::shared::SharedState;
use super::process_figures::ProcessFigures;
use super::readiness::{Phase, unready};
use super::report;
use super::snapshot::Snapshot;

/// The time that shards may take to answer a scrape. A turn under full load takes some
/// milliseconds, and Prometheus waits for ten seconds.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(1);

/// The sources of the answers.
pub(in super::super) struct Sources {
    /// The way to all shards.
    pub(in super::super) bus: Outside<ShardMessage>,
    /// The phase of the process.
    pub(in super::super) phase: watch::Receiver<Phase>,
    /// The state of the cluster; `None` if the server stands alone.
    pub(in super::super) cluster: Option<watch::Receiver<ClusterStatus>>,
    /// The figures of webhooks.
    pub(in super::super) webhooks: watch::Receiver<WebhookFigures>,
    /// The state that shards share: memory, refusals and the clock.
    pub(in super::super) shared: SharedState,
    /// Held while shards are asked, so that scrapes at the same time do not add up on them.
    pub(in super::super) asking: Mutex<()>,
}

impl Sources {
    /// The reason for which the node takes no clients; `None` if it takes them.
    pub(super) fn unready(&self) -> Option<&'static str> {
        let cluster = self.cluster.as_ref().map(watch::Receiver::borrow);
        unready(*self.phase.borrow(), *self.shared.headroom.borrow(), cluster.as_deref())
    }

    /// The metrics as text.
    ///
    /// # Errors
    /// The metrics cannot be encoded.
    pub(super) async fn scrape(&self) -> Result<String, fmt::Error> {
        let shards = {
            let _one_at_a_time = self.asking.lock().await;
            ask(&self.bus, SHARDS_TIMEOUT, ShardMessage::Measure).await
        };
        report::encode(Snapshot {
            shards,
            refusals: Arc::clone(&self.shared.refusals),
            unready: self.unready(),
            headroom: *self.shared.headroom.borrow(),
            memory: self.shared.allowance.look(),
            cluster: self.cluster.as_ref().map(|cluster| cluster.borrow().clone()),
            webhooks: *self.webhooks.borrow(),
            uptime: self.shared.clock.now().since(Millis(0)),
            process: ProcessFigures::read(),
        })
    }
}
