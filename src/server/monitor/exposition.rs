//! The metrics as text, in the format of OpenMetrics.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::counters::{DurationHistogram, UPPER_BOUNDS_NS};

use super::snapshot::Snapshot;
use super::{by_app, by_shard, of_process};

/// The first part of all names.
const PREFIX: &str = "ringwave";

/// The labels of a sample.
pub(super) type Labels<'v> = Vec<(&'static str, Cow<'v, str>)>;

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
        by_shard::write(&mut page, self)
    }
}

/// The text under way. Names are without the prefix, and those of counters without `_total`.
#[derive(Debug)]
pub(super) struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_> {
    /// Writes a metric whose labels are its value.
    pub(super) fn info(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&'static str, &str)],
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        metric.encode_info(&labels)
    }

    /// Writes a metric with one value, which may be unknown.
    pub(super) fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        value: Option<V>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| metric.encode_gauge(&value))
    }

    /// Writes a count that only grows, which may be unknown.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: Option<u64>) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        value.map_or(Ok(()), |value| metric.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    /// Writes a metric with a value for each set of labels.
    pub(super) fn gauges<'v, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'v>, V)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Writes a count for each set of labels.
    pub(super) fn counters<'v, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'v>, V)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            let mut sample = metric.encode_family(&labels)?;
            sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Writes a histogram of durations for each set of labels.
    pub(super) fn histograms<'v>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'v>, &'v DurationHistogram)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let bounds = UPPER_BOUNDS_NS.iter().map(|&bound| seconds(bound)).chain([f64::INFINITY]);
        let bounds: Vec<f64> = bounds.collect();
        for (labels, histogram) in samples {
            let counts = histogram.buckets;
            let buckets: Vec<(f64, u64)> = bounds.iter().copied().zip(counts).collect();
            let (sum, count) = (seconds(histogram.sum_ns), counts.iter().sum());
            let mut sample = metric.encode_family(&labels)?;
            sample.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Nanoseconds as seconds. Past 104 days, a float is less exact than a nanosecond.
#[allow(clippy::cast_precision_loss, reason = "metrics are floats in the end")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
