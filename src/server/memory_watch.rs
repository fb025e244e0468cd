//! Measures how much memory is left, more often the less there is. If the kernel kills the gateway
//! for lack of memory, all clients are dropped and return at once. Therefore it takes nothing new
//! while there is still some memory left, and keeps its connections.
//!
//! Shards measure as well, whenever they have taken as much as was free at the last measurement
//! ([`Allowance`]), because clients can ask for memory faster than any interval. The measurements
//! here cover all other changes: memory that is freed, that the kernel takes for sockets, or that
//! other processes of the group take. All shards get the result. The kernel's memory for TCP has a
//! limit of its own, over which no socket of the host sends or receives; it is treated like memory.

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::bus::Outside;
use crate::config::MemoryLimit;
use crate::memory::{Allowance, Gauge, Headroom, Reading};
use crate::shard::ShardMessage;

use super::limits::{self, MemoryGroup};
use super::tcp_memory::TcpMemory;

/// The shortest and the longest time between two measurements. Reading the files of a group takes
/// 30 us.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The most bytes per second that memory can grow by without being charged to the allowance of
/// shards: those that the kernel queues for sockets, as fast as two cores fill them over the
/// loopback.
const UNCHARGED_PER_S: u64 = 400 << 20;

/// Makes the allowance measure against this limit.
pub(super) fn measure(limit: MemoryLimit, allowance: &Allowance) {
    let gauge = Measure::of(limit).map(|measure| -> Gauge { Arc::new(move || measure.read()) });
    allowance.measure_by(gauge);
}

/// Tells all shards, and `told`, how much memory is left whenever that changes, by the limit in
/// force, until the sender of limits is gone.
pub(super) async fn watch(
    mut limit: watch::Receiver<MemoryLimit>,
    allowance: Arc<Allowance>,
    told: Arc<watch::Sender<Headroom>>,
    bus: Outside<ShardMessage>,
) {
    let mut headroom = Headroom::Enough;
    loop {
        let in_force = *limit.borrow_and_update();
        measure(in_force, &allowance);
        let limited = in_force != MemoryLimit::None;
        if !limited && headroom != Headroom::Enough {
            tracing::info!("memory is not limited any more: everything is admitted");
            headroom = Headroom::Enough;
            told.send_replace(Headroom::Enough);
            bus.broadcast(|| ShardMessage::Memory(Headroom::Enough));
        }
        let watching = async {
            match limited {
                true => look_on(&allowance, &mut headroom, &told, &bus).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = limit.changed() => if changed.is_err() { return },
            never = watching => match never {},
        }
    }
}

/// Tells all shards whenever the headroom changes. Does not end by itself.
async fn look_on(
    allowance: &Allowance,
    headroom: &mut Headroom,
    told: &watch::Sender<Headroom>,
    bus: &Outside<ShardMessage>,
) -> Infallible {
    let mut interval = INTERVALS.0;
    let (mut of_memory, mut of_sockets) = (*headroom, Headroom::Enough);
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = allowance.used_up() => {}
        }
        // A value that cannot be read at the moment counts as unchanged.
        let Some(reading) = allowance.look() else { continue };
        interval = lasts(reading);
        of_memory = headroom_at(of_memory, reading);
        let mut measured = ("memory", reading);
        if let Some(TcpMemory { used, limit }) = TcpMemory::read() {
            let sockets = Reading { used, limit };
            interval = interval.min(lasts(sockets));
            of_sockets = headroom_at(of_sockets, sockets);
            if of_sockets > of_memory {
                measured = ("net.ipv4.tcp_mem", sockets);
            }
        }
        let now = of_memory.max(of_sockets);
        if now != *headroom {
            log(*headroom, now, measured);
            told.send_replace(now);
            bus.broadcast(|| ShardMessage::Memory(now));
            *headroom = now;
        }
    }
}

/// The memory that is measured, and the limit that it is compared with.
#[derive(Debug)]
enum Measure {
    /// The memory of the control group, and its limit.
    Group(MemoryGroup),
    /// The memory of the host, and all of it.
    Host,
    /// The memory of this process, and this many bytes.
    Process(u64),
}

/// The time in which uncharged memory could reach the reserve; the shortest interval if it has
/// already.
fn lasts(reading: Reading) -> Duration {
    let (shortest, longest) = INTERVALS;
    Duration::from_millis(reading.free() * 1000 / UNCHARGED_PER_S).clamp(shortest, longest)
}

impl Measure {
    /// `None` if memory is not to be measured.
    fn of(limit: MemoryLimit) -> Option<Self> {
        match limit {
            MemoryLimit::None => None,
            MemoryLimit::Bytes(bytes) => Some(Self::Process(bytes)),
            MemoryLimit::OfHost => Some(limits::memory_group().map_or(Self::Host, Self::Group)),
        }
    }

    fn read(&self) -> Option<Reading> {
        match self {
            Self::Group(group) => {
                let host = host(&fs::read_to_string("/proc/meminfo").ok()?)?;
                let group = Reading { used: group.used()?, limit: group.limit };
                // The limit of a group may be larger than the host's memory.
                Some(if group.limit < host.limit { group } else { host })
            }
            Self::Host => host(&fs::read_to_string("/proc/meminfo").ok()?),
            Self::Process(limit) => {
                let statm = fs::read_to_string("/proc/self/statm").ok()?;
                let pages = statm.split_whitespace().nth(1)?.parse::<u64>().ok()?;
                let page = rustix::param::page_size() as u64;
                Some(Reading { used: pages.saturating_mul(page), limit: *limit })
            }
        }
    }
}

/// Parses `/proc/meminfo` (proc(5)). Available memory includes caches that the kernel can drop.
fn host(meminfo: &str) -> Option<Reading> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let (limit, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    Some(Reading { used: limit.saturating_sub(available), limit })
}

/// The headroom is short with less than the reserve left, and spent with less than two fifths of it
/// (95 % and 98 % of most limits). It recovers only when twice as much is left, so that it does not
/// change with each connection.
fn headroom_at(before: Headroom, reading: Reading) -> Headroom {
    let (left, reserve) = (reading.left(), reading.reserve());
    let spent = reserve / 5 * 2;
    match before {
        _ if left < spent => Headroom::Spent,
        Headroom::Spent if left < 2 * spent => Headroom::Spent,
        _ if left < reserve => Headroom::Short,
        Headroom::Short | Headroom::Spent if left < 2 * reserve => Headroom::Short,
        _ => Headroom::Enough,
    }
}

/// Logs a change. `of` names the memory that was measured.
fn log(before: Headroom, now: Headroom, (of, reading): (&str, Reading)) {
    let Reading { used, limit } = reading;
    let [used, limit] = [used, limit].map(|bytes| limits::size(Some(bytes)));
    match (before, now) {
        (_, Headroom::Enough) => {
            let what = "there is enough memory again: everything is admitted";
            tracing::info!(%used, %limit, of, "{what}");
        }
        (Headroom::Enough, Headroom::Short) => {
            let what = "memory is short: new connections, subscriptions, members and sign-ins are \
                        refused with 4100, and less is held for slow readers and cached events";
            tracing::warn!(%used, %limit, of, "{what}");
        }
        (_, Headroom::Spent) => {
            let what = "memory is nearly spent: new connections, subscriptions, members and \
                        sign-ins are refused with 4100, publishes with 503, and the connections \
                        that hold the most are closed with 4100";
            tracing::error!(%used, %limit, of, "{what}");
        }
        (_, Headroom::Short) => {
            let what = "memory is short: publishes are taken again, and no more connections are \
                        closed";
            tracing::warn!(%used, %limit, of, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{self, Port};
    use crate::id::ShardId;

    fn steps(limit: u64, used: &[u64]) -> Vec<Headroom> {
        let mut headroom = Headroom::Enough;
        let step = |&used: &u64| {
            headroom = headroom_at(headroom, Reading { used, limit });
            headroom
        };
        used.iter().map(step).collect()
    }

    #[test]
    fn it_begins_at_95_and_at_98_percent_and_ends_only_well_below() {
        use Headroom::{Enough, Short, Spent};
        let used = [500, 949, 951, 949, 901, 899, 960, 981, 979, 961, 959, 901, 899, 999, 1200, 0];
        let expected = [
            Enough, Enough, Short, Short, Short, Enough, Short, Spent, Spent, Spent, Short, Short,
            Enough, Spent, Spent, Enough,
        ];
        assert_eq!(steps(1000 << 20, &used.map(|mib| mib << 20)), expected);
    }

    #[test]
    fn the_reserve_of_a_large_host_is_a_gibibyte() {
        let gib = |count: u64| count << 30;
        assert_eq!(steps(gib(256), &[gib(254), gib(255) + 1]), [Headroom::Enough, Headroom::Short]);
    }

    #[test]
    fn it_looks_again_before_the_kernel_can_be_at_the_reserve() {
        let lasts_ms = |limit_mib: u64, used_mib: u64| {
            lasts(Reading { used: used_mib << 20, limit: limit_mib << 20 }).as_millis()
        };
        assert_eq!(lasts_ms(8000, 1000), 1000);
        assert_eq!(lasts_ms(400, 180), 500);
        assert_eq!(lasts_ms(100, 91), 10);
        assert_eq!(lasts_ms(100, 200), 10);
    }

    #[test]
    fn a_host_uses_what_is_not_available() {
        let meminfo = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n";
        assert_eq!(host(meminfo), Some(Reading { used: 600 * 1024, limit: 1000 * 1024 }));
        assert_eq!(host("MemTotal: 1000 kB\n"), None);
    }

    fn headroom_sent(port: &mut Port<ShardMessage>) -> Option<Headroom> {
        match port.receive() {
            Some(ShardMessage::Memory(headroom)) => Some(headroom),
            _ => None,
        }
    }

    // Paused time: it looks again as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_limit_that_changes_is_measured_against_at_once_and_a_shard_that_stands_still_waits()
    {
        let mut ports = bus::connect::<ShardMessage>(2, 1).unwrap();
        let outside = ports[0].outside();
        let (limits, limit) = watch::channel(MemoryLimit::Bytes(1 << 20));
        let watching = tokio::spawn(watch(limit, Arc::default(), Arc::default(), outside.clone()));
        // The second shard takes nothing all along.
        for (limit, headroom) in [
            (MemoryLimit::Bytes(1 << 20), Headroom::Spent),
            (MemoryLimit::Bytes(1 << 50), Headroom::Enough),
            (MemoryLimit::Bytes(1 << 20), Headroom::Spent),
            (MemoryLimit::None, Headroom::Enough),
        ] {
            limits.send(limit).unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(headroom_sent(&mut ports[0]), Some(headroom), "{limit:?}");
            assert!(headroom_sent(&mut ports[0]).is_none());
        }
        assert_eq!(outside.flush(), [ShardId(1)]);
        let heard: Vec<_> = std::iter::from_fn(|| {
            let headroom = headroom_sent(&mut ports[1]);
            outside.flush();
            headroom
        })
        .collect();
        assert_eq!(heard, [Headroom::Spent, Headroom::Enough], "the first and the newest");
        drop(limits);
        watching.await.unwrap();
    }

    #[test]
    fn every_gauge_can_be_read_on_this_host() {
        for limit in [MemoryLimit::OfHost, MemoryLimit::Bytes(1 << 40)] {
            let reading = Measure::of(limit).unwrap().read().unwrap();
            assert!(reading.used > 0 && reading.limit > 0, "{limit:?}: {reading:?}");
        }
        assert!(Measure::of(MemoryLimit::None).is_none());
    }
}
