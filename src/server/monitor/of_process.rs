//! The metrics of the process as a whole, and of its cluster.

use std::fmt;

use crate::cluster::ClusterState;
use crate::memory::Headroom;
use crate::version;

use super::exposition::Page;
use super::snapshot::Snapshot;

/// Writes the metrics of the process and of its cluster.
pub(super) fn write(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let Snapshot { unready, uptime, shards, .. } = snapshot;
    page.info(
        "build",
        "The version of the running program, and the commit that it was built from.",
        &[("version", version::NUMBER), ("commit", version::COMMIT.unwrap_or_default())],
    )?;
    let uptime_s = uptime.as_secs_f64();
    page.gauge("uptime_seconds", "The time since the process began.", Some(uptime_s))?;
    let ready = u64::from(unready.is_none());
    page.gauge("ready", "1 if the node takes clients, as /ready has it, else 0.", Some(ready))?;
    page.gauge("shards", "The threads that serve connections.", Some(shards.len() as u64))?;
    let unanswered = shards.iter().filter(|shard| shard.is_none()).count() as u64;
    page.gauge(
        "shards_unanswered",
        "Shards that did not answer this scrape in time, and are missing in it.",
        Some(unanswered),
    )?;
    write_memory(page, snapshot)?;
    write_cluster(page, snapshot)
}

fn write_memory(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let Snapshot { headroom, memory, process, .. } = snapshot;
    page.gauge("resident_memory_bytes", "Memory of the process.", process.resident_bytes)?;
    page.gauge(
        "limited_memory_bytes",
        "Memory that is compared with the limit: of the control group, the host or the process.",
        memory.map(|memory| memory.used),
    )?;
    page.gauge(
        "memory_limit_bytes",
        "The limit of that memory (server.memory_limit).",
        memory.map(|memory| memory.limit),
    )?;
    let shortage = match headroom {
        Headroom::Enough => 0_u64,
        Headroom::Short => 1,
        Headroom::Spent => 2,
    };
    page.gauge(
        "memory_shortage",
        "0 if there is enough memory, 1 if nothing new is let in, 2 if it is nearly spent.",
        Some(shortage),
    )?;
    page.gauge("open_files", "Open files of the process.", process.open_files)?;
    page.gauge("open_files_max", "The limit of open files.", process.open_files_max)
}

fn write_cluster(page: &mut Page<'_>, snapshot: &Snapshot) -> fmt::Result {
    let of = snapshot.cluster.as_ref();
    let serving = of.map(|of| u64::from(of.state == ClusterState::Serving));
    page.gauge("cluster_redis_up", "1 if commands reach Redis, else 0.", serving)?;
    let nodes = of.map(|of| of.nodes.len() as u64);
    page.gauge("cluster_nodes", "Nodes of the cluster that this one sees, with itself.", nodes)?;
    let backlog = of.map(|of| of.backlog_bytes as u64);
    page.gauge("cluster_backlog_bytes", "Bytes of commands that wait for Redis.", backlog)?;
    let repeated = of.map(|of| of.repeated_calls);
    page.counter(
        "cluster_repeated_calls",
        "Calls that were sent again, because Redis may not have executed them.",
        repeated,
    )?;
    let unreadable = of.map(|of| of.unreadable);
    page.counter("cluster_unreadable", "Entries that could not be read.", unreadable)
}
