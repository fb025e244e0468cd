//! The sizes of rings and tables, and the number of connections that the host's limits allow.

use crate::bus;
use crate::config::Config;
use crate::memory::{Holder, Per};
use crate::ring::UringSizes;
use crate::shard::ShardMessage;

use super::limits;
use super::preflight::HostSurvey;

/// Entries of a shard's submission queue, which one system call submits. The fan-out of a larger
/// channel takes several calls; a larger queue no longer lowers the cost per send.
const SUBMISSIONS: u32 = 4096;

/// Receive buffers per shard. A buffer is held within a turn only, so a few hundred serve any
/// number of connections: a connection that finds none is received from in the next turn. The
/// kernel cycles through all of them however few are in use, so that a shard soon holds them all: 1
/// MiB.
const RECEIVE_BUFFERS: u16 = 512;

/// Bytes of a receive buffer. Nearly every message of a client is smaller, header included, and so
/// is handled in place.
const RECEIVE_BUFFER_SIZE: u16 = 2048;

/// Bytes of an entry of a ring of buffers (`struct io_uring_buf`).
const RING_ENTRY: usize = 16;
/// Bytes of a submission (`struct io_uring_sqe`) with its index.
const SUBMISSION: usize = 64 + 4;
/// Bytes of a completion (`struct io_uring_cqe`).
const COMPLETION: usize = 16;

/// The memory that a shard holds with or without connections, with rings of the usual size.
#[must_use]
pub(crate) fn budget() -> Vec<Holder> {
    let holder = |name, bytes| Holder { name, bytes, per: Per::Shard };
    vec![
        holder(
            "receive buffers",
            usize::from(RECEIVE_BUFFERS) * (usize::from(RECEIVE_BUFFER_SIZE) + RING_ENTRY),
        ),
        holder("ring", SUBMISSIONS as usize * (SUBMISSION + 4 * COMPLETION)),
        holder("mailbox", bus::MAILBOX_MESSAGES * (size_of::<ShardMessage>() + size_of::<usize>())),
    ]
}

/// The sizes of a shard's ring on this host.
pub(super) fn ring_sizes(config: &Config, host: &HostSurvey) -> UringSizes {
    let places = websockets(config, host);
    let slots = match direct_descriptors(config, host) {
        true => limits::table_len(host.nofile.soft, places),
        false => places + http_connections(config, host),
    };
    UringSizes {
        slots,
        submissions: SUBMISSIONS,
        buffers: RECEIVE_BUFFERS,
        buffer_size: RECEIVE_BUFFER_SIZE,
        direct_descriptors: direct_descriptors(config, host),
    }
}

/// The number of WebSockets that each shard may have at a time.
pub(super) fn websockets(config: &Config, host: &HostSurvey) -> u32 {
    let wanted = config.server.max_connections_per_shard;
    let places = limits::places_per_shard(host.nofile.soft, wanted);
    match direct_descriptors(config, host) {
        true => places,
        false => limits::plain_slots(descriptors(config, host), places),
    }
}

/// The number of HTTP connections that each shard may have at a time.
pub(super) fn http_connections(config: &Config, host: &HostSurvey) -> u32 {
    let (descriptors, wanted) = (descriptors(config, host), config.server.max_http_connections);
    limits::http_connections(descriptors, direct_descriptors(config, host), wanted)
}

/// Whether sockets live in the tables of the rings.
fn direct_descriptors(config: &Config, host: &HostSurvey) -> bool {
    config.server.direct_descriptors && host.direct_descriptors()
}

/// The number of descriptors that each shard may have for its connections.
fn descriptors(config: &Config, host: &HostSurvey) -> u64 {
    let endpoints = config.apps.iter().map(|app| app.webhooks.iter().count()).sum();
    limits::descriptors_per_shard(host.nofile.soft, config.server.shards, endpoints)
}
