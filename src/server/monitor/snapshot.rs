//! Everything that a scrape reports, at one moment.

use std::sync::Arc;
use std::time::Duration;

use crate::apps::Apps;
use crate::cluster::ClusterStatus;
use crate::memory::{Headroom, Reading};
use crate::refusals::Refusals;
use crate::shard::Figures;
use crate::webhooks::WebhookFigures;

use super::process_figures::ProcessFigures;

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
    /// The figures of webhooks.
    pub(super) webhooks: WebhookFigures,
    /// The time since the process began.
    pub(super) uptime: Duration,
    /// The figures that the kernel has of the process.
    pub(super) process: ProcessFigures,
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
