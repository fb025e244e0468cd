//! The metrics of apps.
//!
//! The only label that is not a word of ours is the id of an app, which only the configuration can
//! make: the first [`APPS_MAX`] apps have their own, all others have one together.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::counters::{
    APPS_MAX, ApiRoute, ChannelCounters, CloseCause, ConnectionCounters, HANDSHAKE_CODES, KINDS,
    RequestCounters, STATUSES,
};
use crate::id::AppIndex;

use super::exposition::{Labels, Page};
use super::snapshot::Snapshot;

/// The apps that have metrics, by the position of their counters, with their labels.
struct AppLabels(BTreeMap<usize, String>);

impl AppLabels {
    fn of(snapshot: &Snapshot) -> Self {
        let mut labels = BTreeMap::new();
        let apps = snapshot.apps().into_iter().flat_map(|apps| apps.iter());
        let mut others = false;
        for app in apps {
            match usize::from(app.index.0) {
                index @ 0..APPS_MAX => drop(labels.insert(index, app.id.clone())),
                _ => others = true,
            }
        }
        if others {
            // An app may be called so, too.
            let mut rest = "other".to_owned();
            while labels.values().any(|label| *label == rest) {
                rest.insert(0, '_');
            }
            labels.insert(APPS_MAX, rest);
        }
        Self(labels)
    }

    /// A value for each app, as `value` has it of the position of the app's counters.
    fn each<'l, V>(
        &'l self,
        value: impl Fn(usize) -> V + 'l,
    ) -> impl Iterator<Item = (Labels<'l>, V)> {
        self.0.iter().map(move |(&at, label)| (labels(label, []), value(at)))
    }

    /// A value for each app and each value of a further label, by its position in `words`.
    fn each_of<'l, V>(
        &'l self,
        name: &'static str,
        words: &'l [&'static str],
        value: impl Fn(usize, usize) -> V + Copy + 'l,
    ) -> impl Iterator<Item = (Labels<'l>, V)> {
        self.0.iter().flat_map(move |(&at, label)| {
            words.iter().enumerate().map(move |(position, &word)| {
                (labels(label, [(name, Cow::Borrowed(word))]), value(at, position))
            })
        })
    }
}

fn labels<'l, const N: usize>(app: &'l str, more: [(&'static str, Cow<'l, str>); N]) -> Labels<'l> {
    std::iter::once(("app", Cow::Borrowed(app))).chain(more).collect()
}

/// Writes the metrics of apps.
pub(super) fn write(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let apps = &AppLabels::of(snapshot);
    write_connections(page, snapshot, apps)?;
    write_channels(page, snapshot, apps)?;
    write_messages(page, snapshot, apps)?;
    write_requests(page, snapshot, apps)?;
    write_refusals(page, snapshot, apps)
}

fn write_connections(page: &mut Page<'_>, snapshot: &Snapshot, apps: &AppLabels) -> fmt::Result {
    page.gauges("connections", "Open WebSockets.", apps.each(|at| open(snapshot, at)))?;
    let opened = apps.each(|at| connections(snapshot, at, |of| of.opened));
    page.counters("connections_opened", "WebSockets that were opened.", opened)?;
    let causes = CloseCause::ALL.iter().enumerate();
    let closed = apps.0.iter().flat_map(|(&at, label)| {
        causes.clone().map(move |(position, cause)| {
            let (cause, code) = cause.name_and_code();
            let more = [("cause", Cow::Borrowed(cause)), ("code", Cow::Borrowed(code))];
            (labels(label, more), connections(snapshot, at, |of| of.closed[position]))
        })
    });
    page.counters(
        "connections_closed",
        "WebSockets that have ended, by cause, with the close code if the cause has one.",
        closed,
    )?;
    let codes = HANDSHAKE_CODES.iter().enumerate();
    let refused = apps.0.iter().flat_map(|(&at, label)| {
        codes.clone().map(move |(position, code)| {
            let more = [("code", Cow::Owned(code.to_string()))];
            (labels(label, more), requests(snapshot, at, |of| of.refused[position]))
        })
    });
    let strangers = snapshot.sum(|shard| shard.front.strangers);
    let strangers = (labels("", [("code", Cow::Borrowed("4001"))]), strangers);
    page.counters(
        "connections_refused",
        "WebSockets that were refused, by code; `app` is empty if no app has the key.",
        refused.chain([strangers]),
    )
}

fn write_channels(page: &mut Page<'_>, snapshot: &Snapshot, apps: &AppLabels) -> fmt::Result {
    let kinds = KINDS.map(|(_, name)| name);
    let subscriptions = |at, kind: usize| {
        let of_shard = |subscriptions: &[_; KINDS.len()]| subscriptions[kind];
        snapshot.sum(|shard| shard.subscriptions.get(at).map_or(0, of_shard))
    };
    page.gauges(
        "subscriptions",
        "Subscriptions of open WebSockets, by kind of channel.",
        apps.each_of("kind", &kinds, subscriptions),
    )?;
    let occupied = |at, kind: usize| channels(snapshot, at, |of| of.occupied[kind]);
    page.gauges(
        "channels",
        "Channels with a subscriber on this node, by kind.",
        apps.each_of("kind", &kinds, occupied),
    )?;
    let members = apps.each(|at| channels(snapshot, at, |of| of.members));
    page.gauges(
        "presence_members",
        "Users who are present in channels with subscribers on this node, once for each channel.",
        members,
    )
}

fn write_messages(page: &mut Page<'_>, snapshot: &Snapshot, apps: &AppLabels) -> fmt::Result {
    let received = apps.each(|at| connections(snapshot, at, |of| of.messages));
    page.counters("messages_received", "Messages of clients.", received)?;
    let bytes = apps.each(|at| connections(snapshot, at, |of| of.message_bytes));
    page.counters("messages_received_bytes", "Bytes of the messages of clients.", bytes)?;
    let published = |at, way| match way {
        0 => requests(snapshot, at, |of| of.events),
        1 => requests(snapshot, at, |of| of.batch_events),
        _ => connections(snapshot, at, |of| of.client_events),
    };
    page.counters(
        "events_published",
        "Events, once for each of their channels, by the way in which they were published.",
        apps.each_of("way", &["api", "batch", "client"], published),
    )?;
    let deliveries = apps.each(|at| connections(snapshot, at, |of| of.deliveries));
    page.counters("deliveries", "Messages of channels, once for each subscriber.", deliveries)?;
    let bytes = apps.each(|at| connections(snapshot, at, |of| of.delivered_bytes));
    page.counters("deliveries_bytes", "Bytes of these messages, with their headers.", bytes)
}

fn write_requests(page: &mut Page<'_>, snapshot: &Snapshot, apps: &AppLabels) -> fmt::Result {
    let statuses: Vec<_> = STATUSES.iter().map(u16::to_string).chain(["other".into()]).collect();
    let answers = apps.0.iter().flat_map(|(&at, label)| {
        let statuses = &statuses;
        ApiRoute::ALL.iter().flat_map(move |&route| {
            statuses.iter().enumerate().filter_map(move |(position, status)| {
                let count = requests(snapshot, at, |of| of.answers[route as usize][position]);
                let more = [
                    ("route", Cow::Borrowed(route.name())),
                    ("status", Cow::Owned(status.clone())),
                ];
                // Most pairs never occur.
                (count > 0).then(|| (labels(label, more), count))
            })
        })
    });
    page.counters(
        "api_requests",
        "Requests of the HTTP API by route and status, without those that have not occurred.",
        answers,
    )
}

fn write_refusals(page: &mut Page<'_>, snapshot: &Snapshot, apps: &AppLabels) -> fmt::Result {
    // Apps that share their counters also share their refusals.
    let mut refusals = BTreeMap::new();
    for (app, cause, count) in snapshot.refusals.totals() {
        let app = match app.map(|AppIndex(index)| usize::from(index).min(APPS_MAX)) {
            None => "",
            Some(at) => match apps.0.get(&at) {
                Some(label) => label,
                None => continue,
            },
        };
        *refusals.entry((app, cause)).or_insert(0) += count;
    }
    let refusals = refusals.into_iter().map(|((app, cause), count): (_, u64)| {
        (labels(app, [("cause", Cow::Borrowed(cause))]), count)
    });
    page.counters(
        "refusals",
        "Connections, requests and messages that were refused, by the cause as the log names it, \
         without those that have not occurred; `app` is empty if no app is known.",
        refusals,
    )
}

/// The open WebSockets of an app. They are not counted by shards, because the quota needs them.
fn open(snapshot: &Snapshot, at: usize) -> u64 {
    let apps = snapshot.apps().into_iter().flat_map(|apps| apps.iter());
    let of_label = apps.filter(|app| usize::from(app.index.0).min(APPS_MAX) == at);
    of_label.map(|app| u64::from(app.counters.connections())).sum()
}

fn connections(snapshot: &Snapshot, at: usize, count: impl Fn(&ConnectionCounters) -> u64) -> u64 {
    snapshot.sum(|shard| shard.connections.get(at).map_or(0, &count))
}

fn channels(snapshot: &Snapshot, at: usize, count: impl Fn(&ChannelCounters) -> u64) -> u64 {
    snapshot.sum(|shard| shard.channels.get(at).map_or(0, &count))
}

fn requests(snapshot: &Snapshot, at: usize, count: impl Fn(&RequestCounters) -> u64) -> u64 {
    snapshot.sum(|shard| shard.front.requests.get(at).map_or(0, &count))
}
