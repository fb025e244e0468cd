//! The listener for operators (`admin.listen`): metrics for Prometheus, and health checks for load
//! balancers.
//!
//! | path | answer |
//! |---|---|
//! | `/up` | 200, because the process runs |
//! | `/ready` | 200 if the node takes clients, otherwise 503 with the reason |
//! | `/metrics` | the metrics in the text format of OpenMetrics 1.0 |
//!
//! The control thread serves it beside its other work. A scrape asks each shard for a copy of its
//! counters, and encodes them here, so that it costs a shard some microseconds.

mod access;
mod by_app;
mod by_shard;
mod exposition;
mod listener;
mod of_process;
mod of_webhooks;
mod process_figures;
mod readiness;
mod report;
mod snapshot;
mod sources;

pub(super) use listener::{MonitorError, MonitorListener};
pub(super) use readiness::Phase;
pub(super) use sources::Sources;
