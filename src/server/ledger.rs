//! The ledger of memory: all memory that the network can make the process hold, with the bound of
//! each part, and whether the sum fits into the limit.
//!
//! There are two kinds of parts. Connections, subscriptions, members and users have no bound of
//! their own that would fit into a small limit, so new ones are refused when memory is short. The
//! others hold data in transit. Each gets a share of what the limit leaves, or its setting if that
//! is less, so that all of them together leave a quarter to the first kind.

use std::fmt;

use crate::apps::Apps;
use crate::channels::{CacheBounds, subscription_bytes};
use crate::config::{self, ServerConfig};
use crate::front;
use crate::memory::{self, Bound};
use crate::plane;
use crate::shard::{CACHE_BOUNDS, UNFINISHED_BYTES_MAX};
use crate::webhooks;

use super::limits::size;
use super::logging;

/// The bounds on the parts of memory that hold data in transit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// Bounds on the cached events of a shard.
    pub(super) cache: CacheBounds,
    /// Bytes of the bodies of requests that a shard reads, and as many bytes of events that wait
    /// for its next turn.
    pub(super) bodies: usize,
    /// Connections of a shard that are accepted at a time while memory is short.
    pub(super) connections_when_short: usize,
    /// Bytes of unfinished messages of a shard's clients.
    pub(super) unfinished: usize,
    /// Bytes that wait for slow readers of a shard.
    pub(super) backlogs: usize,
    /// Bytes of notices that wait for the webhook thread.
    pub(super) notices: usize,
    /// Bytes of events that wait for one webhook endpoint.
    pub(super) queue: usize,
}

/// Parts of [`ClientBudget`], in 32nds. What they leave is reserved for connections, subscriptions,
/// members and users.
const CACHE_PARTS: u64 = 4;
const BODIES_PARTS: u64 = 3;
const UNFINISHED_PARTS: u64 = 2;
const BACKLOG_PARTS: u64 = 6;
const NOTICES_PARTS: u64 = 2;
const QUEUES_PARTS: u64 = 4;
const ALL_PARTS: u64 = 32;

/// Memory that a cached event takes beside its bytes: its channel with a name, and its entries in
/// the order of expiry.
const CACHED_EVENT_BYTES: usize = 512;

impl Shares {
    /// The shares by these settings on this host.
    pub(super) fn of_settings(server: &ServerConfig, apps: &Apps) -> Self {
        Self::of(super::limits::memory_in_force(server.memory_limit), server, apps)
    }

    /// The shares under this limit, in bytes; `None` is no limit.
    pub(super) fn of(limit: Option<u64>, server: &ServerConfig, apps: &Apps) -> Self {
        let shares = ClientBudget::of(limit, server.shards);
        let (shards, endpoints) = (server.shards.max(1), endpoints(apps).max(1));
        let cache = shares.part(CACHE_PARTS, shards) / 2;
        let largest_body = apps.iter().map(|app| app.rules.limits.max_request_size).max();
        Self {
            cache: CacheBounds {
                events: (cache / CACHED_EVENT_BYTES).min(CACHE_BOUNDS.events),
                bytes: cache.min(CACHE_BOUNDS.bytes),
            },
            // A request of the largest allowed size has to find room if there is no other.
            bodies: shares
                .part(BODIES_PARTS, shards)
                .min(front::Settings::default().bodies_bytes_max)
                .max(largest_body.unwrap_or_default()),
            connections_when_short: limit.map_or(CONNECTIONS_WHEN_SHORT.1, |limit| {
                // An eighth of the reserve, over all shards. The rest is for clients that are
                // connected already.
                let most = memory::reserve(limit) / 8 / front::CONNECTION_BYTES as u64;
                // Saturates, and is clamped below.
                let most = usize::try_from(most).unwrap_or(usize::MAX) / shards;
                most.clamp(CONNECTIONS_WHEN_SHORT.0, CONNECTIONS_WHEN_SHORT.1)
            }),
            unfinished: shares
                .part(UNFINISHED_PARTS, shards)
                .min(UNFINISHED_BYTES_MAX)
                .max(2 * apps.max_message_size()),
            backlogs: shares.part(BACKLOG_PARTS, shards).min(server.backlog_per_shard),
            notices: shares.part(NOTICES_PARTS, 1).min(webhooks::WAITING_BYTES_MAX),
            queue: shares
                .part(QUEUES_PARTS, endpoints)
                .max(QUEUE_BYTES_MIN)
                .min(server.webhook_queue),
        }
    }
}

/// Connections of a shard that are accepted at a time while memory is short: at least and at most.
/// If there were none, neither clients nor publishers would get an answer.
const CONNECTIONS_WHEN_SHORT: (usize, usize) = (4, 64);

/// The least share of an endpoint, even if it is one of thousands: the smallest value of
/// `server.webhook_queue`.
const QUEUE_BYTES_MIN: usize = 64 << 10;

/// The memory in bytes that is left for what clients ask for; `None` is no limit.
#[derive(Clone, Copy)]
struct ClientBudget(Option<u64>);

impl ClientBudget {
    fn of(limit: Option<u64>, shards: usize) -> Self {
        Self(limit.map(|limit| {
            let fixed = config::needed(shards).saturating_add(logging::BACKLOG_BYTES_MAX as u64);
            limit.saturating_sub(memory::reserve(limit)).saturating_sub(fixed)
        }))
    }

    /// A share of this many 32nds, divided among this many.
    fn part(self, parts: u64, among: usize) -> usize {
        self.0.map_or(usize::MAX, |room| {
            let part = room / ALL_PARTS * parts / among as u64;
            // Saturates: every share is cut to a bound of its own.
            usize::try_from(part).unwrap_or(usize::MAX)
        })
    }
}

fn endpoints(apps: &Apps) -> usize {
    apps.iter().map(|app| app.webhooks.iter().count()).sum()
}

/// The ledger of a configuration. `Display` is a table of all parts, and their sum against the
/// limit.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    limit: Option<u64>,
    bounds: Vec<Bound>,
    notes: Vec<String>,
}

impl Ledger {
    /// The ledger of these settings on this host.
    #[must_use]
    pub(crate) fn of(server: &ServerConfig, apps: &Apps) -> Self {
        Self::within(super::limits::memory_in_force(server.memory_limit), server, apps)
    }

    fn within(limit: Option<u64>, server: &ServerConfig, apps: &Apps) -> Self {
        let shares = Shares::of(limit, server, apps);
        let mut bounds = fixed(server);
        bounds.extend(passing(server, apps, &shares));
        bounds.extend(kernel(server));
        bounds.extend(as_memory_allows(apps));
        let notes = notes(limit, server, apps, &shares);
        Self { limit, bounds, notes }
    }

    /// Notes for the operator about settings that do not fit into the limit.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    fn sum(&self) -> u64 {
        self.bounds.iter().filter_map(|bound| bound.total).sum()
    }
}

/// The parts that are held with or without clients, or are so small that they count as such.
fn fixed(server: &ServerConfig) -> Vec<Bound> {
    let bound = |name, each: u64, total, by| Bound { name, each: shown(each), total, by };
    let needed = config::needed(server.shards);
    let log = logging::BACKLOG_BYTES_MAX as u64;
    vec![
        bound("process, rings, mailboxes", needed, Some(needed), "server.shards"),
        bound("log lines that wait", log, Some(log), "fixed"),
    ]
}

/// The parts that hold data in transit.
fn passing(server: &ServerConfig, apps: &Apps, shares: &Shares) -> Vec<Bound> {
    let shards = server.shards as u64;
    let bound = |name, each: usize, count: u64, by| {
        let total = Some((each as u64).saturating_mul(count));
        Bound { name, each: shown(each as u64), total, by }
    };
    let cache = shares.cache.bytes + shares.cache.events * CACHED_EVENT_BYTES;
    let endpoints = endpoints(apps) as u64;
    vec![
        bound("backlogs of slow readers", shares.backlogs, shards, "server.backlog_per_shard"),
        bound("cached events", cache, shards, "the limit"),
        bound("unfinished messages", shares.unfinished, shards, "the limit"),
        bound("input of throttled clients", plane::HELD_MAX, shards, "fixed"),
        bound("bodies of requests, and their events", shares.bodies, 2 * shards, "the limit"),
        bound("notices for webhooks", shares.notices, u64::from(endpoints > 0), "the limit"),
        bound("queues of webhooks", shares.queue, endpoints, "server.webhook_queue"),
    ]
}

/// The memory that the kernel holds for sockets.
fn kernel(server: &ServerConfig) -> Vec<Bound> {
    let bound = |name, each, by| Bound { name, each, total: None, by };
    let idle = "connections; counted by control groups of version 2";
    let slow = "server.send_buffer; net.ipv4.tcp_mem: 4100 when it is short";
    let queue = server
        .send_buffer
        .map_or_else(|| "as net.ipv4.tcp_wmem".to_owned(), |bytes| shown(bytes as u64));
    vec![
        bound("kernel: an idle socket", "4.8 KiB".to_owned(), idle),
        bound("kernel: the queue of a client that does not read", queue, slow),
    ]
}

/// The parts of which new ones are refused when memory is short.
fn as_memory_allows(apps: &Apps) -> Vec<Bound> {
    let names = apps.iter().map(|app| app.rules.limits.max_channel_name).max().unwrap_or_default();
    let bound = |name, bytes: usize, by| Bound { name, each: shown(bytes as u64), total: None, by };
    let member = |text: usize| crate::protocol::auth::Member {
        user_id: "".into(),
        id_json: "".into(),
        user_info: Some(" ".repeat(text).into()),
    };
    let message =
        apps.iter().map(|app| app.rules.limits.max_message_size).max().unwrap_or_default();
    vec![
        bound("connections", front::CONNECTION_BYTES, "memory: 4100 when it is short"),
        bound(
            "subscriptions, with a channel of the longest name",
            subscription_bytes(names, None),
            "memory; app.max_channels_per_connection",
        ),
        bound(
            "members, with the largest user data",
            subscription_bytes(names, Some(&member(message))),
            "memory; app.max_presence_members, app.max_presence_user_info",
        ),
        bound("users, with their watchlist", 2 * message, "memory; app.max_watchlist"),
    ]
}

/// Notes about settings that are larger than twice their share, and so have no effect.
fn notes(limit: Option<u64>, server: &ServerConfig, apps: &Apps, shares: &Shares) -> Vec<String> {
    let Some(limit) = limit else { return Vec::new() };
    let cut = |name: &str, asked: usize, share: usize, of: &str| {
        (share < asked / 2).then(|| {
            format!(
                "{name} is {}, but only {} per {of} fit into the memory limit of {}, so that is \
                 in force. Set it to {}, or raise the limit (MemoryMax=, --memory, \
                 server.memory_limit).",
                shown(asked as u64),
                shown(share as u64),
                size(Some(limit)),
                setting(share),
            )
        })
    };
    let backlog =
        cut("server.backlog_per_shard", server.backlog_per_shard, shares.backlogs, "shard");
    let queue = (endpoints(apps) > 0)
        .then(|| cut("server.webhook_queue", server.webhook_queue, shares.queue, "endpoint"));
    backlog.into_iter().chain(queue.flatten()).collect()
}

fn shown(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        _ => size(Some(bytes)),
    }
}

/// Bytes in the form of a setting, rounded down.
fn setting(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{}K", (bytes >> 10).max(1)),
        mebibytes => format!("{mebibytes}M"),
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ("held for clients at most", "each".to_owned(), "in all".to_owned(), "bound");
        let total = |bound: &Bound| bound.total.map_or_else(|| "as left".to_owned(), shown);
        let rows = self.bounds.iter();
        let rows = rows.map(|bound| (bound.name, bound.each.clone(), total(bound), bound.by));
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let width = rows.iter().map(|row| row.0.len()).max().unwrap_or_default();
        for (name, each, total, by) in &rows {
            writeln!(f, "{name:width$}  {each:>12}  {total:>9}  {by}")?;
        }
        let sum = shown(self.sum());
        let Some(limit) = self.limit else {
            return writeln!(f, "\nThe bounds add up to {sum}. Memory is not limited.");
        };
        let reserve = memory::reserve(limit);
        let left = limit.saturating_sub(reserve).saturating_sub(self.sum());
        writeln!(
            f,
            "\nThe bounds add up to {sum} of the limit of {}, of which {} are a reserve: {} are \
             left for connections,\nsubscriptions and members, whatever else is held.",
            size(Some(limit)),
            size(Some(reserve)),
            shown(left),
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "warn: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn server(shards: usize) -> ServerConfig {
        let flags = config::Flags { dev: true, ..config::Flags::default() };
        let directory = std::env::temp_dir().join("ringwave-has-no-configuration-here");
        let inputs =
            config::ConfigInputs { flags, environment: config::Environment::default(), directory };
        ServerConfig { shards, ..inputs.load().unwrap().server }
    }

    #[test]
    fn the_bounds_leave_room_for_connections_under_every_limit() {
        for (limit, shards) in [(64, 1), (64, 2), (128, 2), (512, 2), (4096, 8), (65_536, 64)] {
            let ledger = Ledger::within(Some(limit * MIB), &server(shards), &Apps::new(Vec::new()));
            let needed = config::needed(shards) + memory::reserve(limit * MIB);
            let room = limit * MIB - needed;
            let left = (limit * MIB).saturating_sub(memory::reserve(limit * MIB) + ledger.sum());
            assert!(left >= room / 4, "{limit} MiB, {shards} shards: {left} B left of {room}");
        }
    }

    #[test]
    fn a_large_host_has_what_the_settings_say_and_nothing_is_noted() {
        let (server, apps) = (server(2), Apps::new(Vec::new()));
        for limit in [None, Some(64 << 30)] {
            let shares = Shares::of(limit, &server, &apps);
            assert_eq!(shares.backlogs, server.backlog_per_shard);
            assert_eq!((shares.cache.events, shares.cache.bytes), (100_000, 64 << 20));
            assert_eq!((shares.bodies, shares.notices), (64 << 20, 32 << 20));
            assert_eq!(shares.queue, server.webhook_queue);
            assert_eq!(Ledger::within(limit, &server, &apps).notes().count(), 0);
        }
    }

    #[test]
    fn a_setting_that_does_not_fit_is_named_with_a_value_that_does() {
        let (mut server, apps) = (server(2), Apps::new(Vec::new()));
        let limit = Some(128 * MIB);
        let notes: Vec<_> =
            Ledger::within(limit, &server, &apps).notes().map(str::to_owned).collect();
        let [note] = &notes[..] else { panic!("{notes:?}") };
        assert!(note.starts_with("server.backlog_per_shard is 64 MiB, but only 9"), "{note}");
        assert!(note.contains("Set it to 9M, or raise the limit"), "{note}");
        server.backlog_per_shard = 9 << 20;
        assert_eq!(Ledger::within(limit, &server, &apps).notes().count(), 0);
    }

    #[test]
    fn no_share_is_so_small_that_one_request_finds_no_room() {
        let shares = Shares::of(Some(1), &server(64), &Apps::new(Vec::new()));
        assert_eq!((shares.cache.events, shares.backlogs), (0, 0));
        assert_eq!(shares.connections_when_short, CONNECTIONS_WHEN_SHORT.0);
        assert!(shares.queue >= QUEUE_BYTES_MIN);
    }

    #[test]
    fn the_table_names_every_part_and_the_sum() {
        let ledger = Ledger::within(Some(64 * MIB), &server(1), &Apps::new(Vec::new()));
        let text = ledger.to_string();
        for part in [
            "backlogs of slow readers",
            "cached events",
            "bodies of requests",
            "subscriptions,",
            "members,",
            "users,",
            "connections ",
            "kernel:",
            "queues of webhooks",
            "log lines",
            "of the limit of 64 MiB, of which 8 MiB are a reserve",
            "\nwarn: server.backlog",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
