//! The figures of the webhook thread, for metrics.

use crate::counters::LongDurations;

/// The figures of the webhook thread. The thread writes them, the control thread reads them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WebhookFigures {
    /// Events that wait or are in flight.
    pub(crate) waiting: u64,
    /// Events whose request was answered with success.
    pub(crate) delivered: u64,
    /// Requests that were answered with success.
    pub(crate) requests_answered: u64,
    /// Requests that failed.
    pub(crate) requests_failed: u64,
    /// Events that found the queue of their endpoint full, as far as they are logged.
    pub(crate) overflowed: u64,
    /// Events that were tried for five minutes, as far as they are logged.
    pub(crate) given_up: u64,
    /// Events that happened faster than they could be queued, as far as they are logged.
    pub(crate) unqueued: u64,
    /// The times from the first event of a batch to its delivery.
    pub(crate) delays: LongDurations,
}
