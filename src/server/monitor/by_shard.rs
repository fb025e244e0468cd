//! The metrics of shards.

use std::borrow::Cow;
use std::fmt;

use crate::shard::Figures;

use super::exposition::{Labels, Page};
use super::snapshot::Snapshot;

/// A value for each shard that has answered.
fn each<'s, V>(
    snapshot: &'s Snapshot,
    value: impl Fn(&'s Figures) -> V + 's,
) -> impl Iterator<Item = (Labels<'s>, V)> {
    let shards = snapshot.shards.iter().enumerate();
    shards.filter_map(move |(number, figures)| {
        let figures = figures.as_deref()?;
        Some((vec![("shard", Cow::Owned(number.to_string()))], value(figures)))
    })
}

/// Writes the metrics of shards.
pub(super) fn write(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let of = snapshot;
    page.gauges("shard_connections", "Open WebSockets.", each(of, |it| it.open as u64))?;
    page.counters(
        "shard_busy_seconds",
        "Time that the processor has worked for the thread; its rate is the share of busy time.",
        each(of, |it| it.busy.as_secs_f64()),
    )?;
    page.histograms(
        "shard_turn_seconds",
        "Turns of the shard's loop, from what came in to what goes out, without the sleep.",
        each(of, |it| &it.turns),
    )?;
    page.gauges(
        "shard_mailbox_messages",
        "Messages of other threads that wait for the shard.",
        each(of, |it| it.mailbox as u64),
    )?;
    page.counters(
        "shard_spills",
        "Messages to other shards that had to wait for room in a mailbox.",
        each(of, |it| it.spills),
    )?;
    page.gauges(
        "shard_cached_events",
        "Last events of cache channels that are kept.",
        each(of, |it| it.cached_events as u64),
    )?;
    page.gauges(
        "shard_backlog_bytes",
        "Bytes that are held for slow readers.",
        each(of, |it| it.backlog_bytes as u64),
    )?;
    write_sockets(page, snapshot)
}

/// Writes what the rings of the shards have done.
fn write_sockets(page: &mut Page<'_>, of: &Snapshot) -> fmt::Result {
    page.counters(
        "shard_slow_closes",
        "WebSockets that were closed because they read too slowly.",
        each(of, |it| it.plane.too_slow),
    )?;
    page.counters(
        "shard_sends",
        "Sends: at most one for each connection and turn.",
        each(of, |it| it.plane.sends),
    )?;
    page.counters(
        "shard_sent_bytes",
        "Bytes of these sends, without those that joined a backlog at once.",
        each(of, |it| it.plane.sent_bytes),
    )?;
    page.counters(
        "shard_short_sends",
        "Sends that did not fit into the socket at once, because its reader is slow.",
        each(of, |it| it.plane.short_sends),
    )?;
    page.counters(
        "shard_fruitless_receives",
        "Receives that found nothing, or no free buffer.",
        each(of, |it| it.plane.fruitless),
    )
}
