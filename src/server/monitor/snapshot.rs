//! Everything that a scrape reports, at one moment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::apps::Apps;
use crate::bus::Outside;
use crate::cluster::ClusterStatus;
use crate::memory::{Allowance, Headroom, Reading};
use crate::refusals::Refusals;
use crate::shard::{Figures, ShardMessage};
use crate::time::{Clock, Millis};

use super::super::asking::ask;
use super::exposition::encode;
use super::of_process::ProcessFigures;
use super::readiness::{Phase, unready};

/// The time that shards may take to answer a scrape. A turn under full load takes some
/// milliseconds, and Prometheus waits for ten seconds.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(1);

/// The sources of the answers.
pub(in super::super) struct Sources {
    /// The way to all shards.
    pub(in super::super) bus: Outside<ShardMessage>,
    /// The phase of the process.
    pub(in super::super) phase: watch::Receiver<Phase>,
    /// The memory that is left.
    pub(in super::super) headroom: watch::Receiver<Headroom>,
    /// The measurement of the memory.
    pub(in super::super) allowance: Arc<Allowance>,
    /// The counters of refusals.
    pub(in super::super) refusals: Arc<Refusals>,
    /// The state of the cluster; `None` if the server stands alone.
    pub(in super::super) cluster: Option<watch::Receiver<ClusterStatus>>,
    /// The clock of the process.
    pub(in super::super) clock: Clock,
    /// Held while shards are asked, so that scrapes at the same time do not add up on them.
    pub(in super::super) asking: Mutex<()>,
}

/// Everything that a scrape reports.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The figures of each shard; `None` if it did not answer.
    pub(super) shards: Vec<Option<Box<Figures>>>,
    /// The refusals by app and cause.
    pub(super) refusals: Arc<Refusals>,
    /// The reason for which the node takes no clients.
    pub(super) unready: Option<&'static str>,
    /// The memory that is left.
    pub(super) headroom: Headroom,
    /// The measured memory; `None` if it is not limited.
    pub(super) memory: Option<Reading>,
    /// The cluster; `None` if the server stands alone.
    pub(super) cluster: Option<ClusterStatus>,
    /// The time since the process began.
    pub(super) uptime: Duration,
    /// The figures that the kernel has of the process.
    pub(super) process: ProcessFigures,
}

impl Sources {
    /// The reason for which the node takes no clients; `None` if it takes them.
    pub(super) fn unready(&self) -> Option<&'static str> {
        let cluster = self.cluster.as_ref().map(watch::Receiver::borrow);
        unready(*self.phase.borrow(), *self.headroom.borrow(), cluster.as_deref())
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
        encode(Snapshot {
            shards,
            refusals: Arc::clone(&self.refusals),
            unready: self.unready(),
            headroom: *self.headroom.borrow(),
            memory: self.allowance.look(),
            cluster: self.cluster.as_ref().map(|cluster| cluster.borrow().clone()),
            uptime: self.clock.now().since(Millis(0)),
            process: ProcessFigures::read(),
        })
    }
}

impl Snapshot {
    /// The figures of the shards that have answered.
    pub(super) fn answered(&self) -> impl Iterator<Item = &Figures> {
        self.shards.iter().flatten().map(|figures| &**figures)
    }

    /// The apps as a shard has them; `None` if no shard has answered.
    pub(super) fn apps(&self) -> Option<&Arc<Apps>> {
        self.answered().next().map(|figures| &figures.apps)
    }

    /// The sum of a count over the shards that have answered.
    pub(super) fn sum(&self, count: impl Fn(&Figures) -> u64) -> u64 {
        self.answered().map(count).sum()
    }
}
