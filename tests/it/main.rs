//! All tests that start the process or open real sockets: one binary, a module per subject.

#![allow(unreachable_pub, reason = "modules of one binary have no public surface")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint table excepts test functions, this excepts what they call"
)]

/// Completions and manual pages.
mod command_line;
/// Files and variables that the configuration comes from.
mod environment;
/// Hosts that keep the process from running, and the messages about it.
mod host;
/// `ringwave import`.
mod import;
/// Secrets in files of their own.
mod secret_files;
/// Start, configuration, refusals to start, and the log.
mod start;

/// The Pusher protocol as one client sees it: handshake, messages, subscriptions, errors.
mod protocol;

/// Cache channels: the event that a new subscriber gets, and how long it is kept.
mod cache;
/// The number of subscribers of a channel, as they are told.
mod counts;
/// Presence channels: their members, joins and leaves.
mod presence;
/// Users who sign in: their channel, watchlist and end; and connections that never sign in.
mod users;
/// Client events: the clients that may send them, and the events that the others get.
mod whisper;

/// Order and completeness of the events that subscribers get.
mod order;
/// The order in which the messages of one connection take effect.
mod sequence;

/// RFC 6455 as a server has to keep it, byte by byte.
mod rfc6455;

/// The HTTP API: every endpoint, every refusal.
mod api;
/// Requests of apps, proxies and libraries that Reverb or hosted Pusher takes.
mod drop_in;
/// Requests whose boundaries two readers could see in different places.
mod smuggling;
/// HTTP/1.1 on the wire: keep-alive, pipelining, chunks, upgrades, unix sockets.
mod wire;

/// Several apps on one gateway, which share nothing.
mod apps;
/// Webhooks: the events that an app's own server gets.
mod webhooks;

/// Unix sockets: the users that may connect.
mod unix_socket;

/// The admission of clients and requests: from which addresses, how many, how fast.
mod admission;
/// The limits of an app, a connection and a shard, and the effects of exceeding them.
mod limits;
/// Silent clients: pinged, then dropped.
mod liveness;
/// A limit of memory by the kernel, and a storm that would take more.
mod memory_group;
/// The PROXY protocol: a balancer in front that passes bytes on.
mod proxy_protocol;
/// Readers that do not read.
mod slow;

/// The log for a developer beside a browser.
mod debug;
/// The filter of the log, at the start and while the server runs.
mod log_filter;
/// Refusals, and the lines of the log about them.
mod refusals;

/// Sequences that would steer a terminal, wherever clients can put text.
mod terminal;

/// The effect of each setting of the server that a reload changes.
mod live_settings;
/// Reloads of the configuration.
mod reload;
/// One shard that stands still beside others that go on.
mod standstill;

/// The listener for operators: metrics and health checks.
mod metrics;
/// The answers of `ringwave status` and `--version`.
mod status;

/// The end of the process: signals, the drain, the next start.
mod shutdown;

/// Bugs that other servers really had: one test each.
mod regression;

/// Several nodes over Redis.
mod cluster;

/// The load generator, against the gateway.
mod storm;

/// `scripts/test`: its time limits, and its count of the tests that were left out.
mod scripts;

/// Steps that tests of one gateway and of several nodes share.
mod steps;

// The gateways and receivers that the tests start, and the clients that talk to them.
#[allow(dead_code, reason = "shared with the tests of `hostile`, which use the rest")]
#[path = "../support/mod.rs"]
mod support;

use support::{
    client, cluster as nodes, gateway, http, left_out, memory_limit_group, proxy, raw, receiver,
    redis as redis_server, sign,
};
