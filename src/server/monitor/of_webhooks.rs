//! The metrics of webhooks.

use std::borrow::Cow;
use std::fmt;

use crate::webhooks::WebhookFigures;

use super::exposition::Page;

/// Writes the metrics of webhooks.
pub(super) fn write(page: &mut Page<'_>, figures: &WebhookFigures) -> fmt::Result {
    let with = |name: &'static str, word: &'static str, count: u64| {
        (vec![(name, Cow::Borrowed(word))], count)
    };
    page.gauge(
        "webhook_events_waiting",
        "Webhook events that wait or are in flight.",
        Some(figures.waiting),
    )?;
    page.counter(
        "webhook_events_delivered",
        "Webhook events whose request was answered with success.",
        Some(figures.delivered),
    )?;
    page.counters(
        "webhook_events_lost",
        "Webhook events that were lost, by cause, a few seconds after the loss.",
        [
            with("cause", "queue_full", figures.overflowed),
            with("cause", "given_up", figures.given_up),
            with("cause", "too_fast", figures.unqueued),
        ],
    )?;
    page.counters(
        "webhook_requests",
        "Requests to endpoints, by result; those that failed are repeated.",
        [
            with("result", "success", figures.requests_answered),
            with("result", "failure", figures.requests_failed),
        ],
    )?;
    page.histogram(
        "webhook_delay_seconds",
        "The time from the first event of a batch to its delivery.",
        &figures.delays,
    )
}
