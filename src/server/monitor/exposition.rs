//! A page of metrics: the text format of OpenMetrics, metric by metric.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use crate::counters::DurationHistogram;

/// The labels of a sample.
pub(super) type Labels<'v> = Vec<(&'static str, Cow<'v, str>)>;

/// The text under way. Names are without the prefix, and those of counters without `_total`.
#[derive(Debug)]
pub(super) struct Page<'e> {
    /// Writes the text.
    pub(super) encoder: DescriptorEncoder<'e>,
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
    pub(super) fn histograms<'v, const LOWEST: u32>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'v>, &'v DurationHistogram<LOWEST>)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in samples {
            metric.encode_family(&labels).and_then(|sample| write_histogram(sample, histogram))?;
        }
        Ok(())
    }

    /// Writes a histogram of durations.
    pub(super) fn histogram<const LOWEST: u32>(
        &mut self,
        name: &str,
        help: &str,
        histogram: &DurationHistogram<LOWEST>,
    ) -> fmt::Result {
        let metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        write_histogram(metric, histogram)
    }
}

fn write_histogram<const LOWEST: u32>(
    mut sample: MetricEncoder<'_>,
    histogram: &DurationHistogram<LOWEST>,
) -> fmt::Result {
    let buckets = histogram.buckets();
    let buckets = buckets.map(|(bound, count)| (bound.map_or(f64::INFINITY, seconds), count));
    let buckets: Vec<(f64, u64)> = buckets.collect();
    let count = buckets.iter().map(|&(_, count)| count).sum();
    sample.encode_histogram::<NoLabelSet>(seconds(histogram.sum_ns), count, &buckets, None)
}

/// Nanoseconds as seconds. Past 104 days, a float is less exact than a nanosecond.
#[allow(clippy::cast_precision_loss, reason = "metrics are floats in the end")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
