//! The order of the metrics in a scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::exposition::Page;
use super::snapshot::Snapshot;
use super::{by_app, by_shard, of_process, of_webhooks};

/// The first part of all names.
const PREFIX: &str = "ringwave";

/// Encodes the metrics.
///
/// # Errors
/// The encoder fails, which writing to memory does not.
pub(super) fn encode(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        of_process::write(&mut page, self)?;
        by_app::write(&mut page, self)?;
        by_shard::write(&mut page, self)?;
        of_webhooks::write(&mut page, &self.webhooks)
    }
}
