//! How much memory is left, asked the more often the less it is. A gateway that is ended for want
//! of memory drops everyone at once, and they all return at once: it takes nobody new while there
//! is still some left, and keeps those who are there.

use std::fs;
use std::time::Duration;

use crate::bus::Outside;
use crate::config::MemoryLimit;
use crate::front::gateway::Headroom;
use crate::shard::Message;

use super::limits::{self, MemoryGroup};

/// How often somebody looks at most and at least: the files of a group cost 30 us.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Bytes that a storm of 20,000 handshakes per second takes in a second, the kernel's included.
const STORM_PER_S: u64 = 100 << 20;

/// The reserve is a twentieth of the limit, and no more than this: what is to come until the next
/// look does not grow with the host.
const RESERVE_MAX: u64 = 1 << 30;

/// What is measured, and against what.
#[derive(Debug)]
pub(super) enum Gauge {
    /// The control group against its limit.
    Group(MemoryGroup),
    /// The host against what it has.
    Host,
    /// This process against so many bytes.
    Process(u64),
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    used: u64,
    limit: u64,
}

impl Reading {
    const fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// What is kept for those who are connected.
    fn reserve(self) -> u64 {
        (self.limit / 20).min(RESERVE_MAX)
    }

    /// How soon a storm could be at the reserve; in it, the shortest interval.
    fn lasts(self) -> Duration {
        let free = self.left().saturating_sub(self.reserve());
        let (shortest, longest) = INTERVALS;
        Duration::from_millis(free * 1000 / STORM_PER_S).clamp(shortest, longest)
    }
}

impl Gauge {
    /// None when nobody is to look.
    pub(super) fn of(limit: MemoryLimit) -> Option<Self> {
        match limit {
            MemoryLimit::None => None,
            MemoryLimit::Bytes(bytes) => Some(Self::Process(bytes)),
            MemoryLimit::OfHost => Some(limits::memory_group().map_or(Self::Host, Self::Group)),
        }
    }

    /// Tells all shards when it changes how much is left, for as long as the process lives.
    pub(super) async fn watch(self, bus: Outside<Message>) {
        let mut headroom = Headroom::Enough;
        let mut interval = INTERVALS.0;
        let mut left = None;
        loop {
            tokio::time::sleep(interval).await;
            // A shard that hangs must not hold up the control thread: it is told when it can be.
            left.iter_mut().for_each(|left| bus.offer_again(left));
            // What cannot be read at the moment is as it was.
            let Some(reading) = self.read() else { continue };
            interval = reading.lasts();
            let now = headroom_at(headroom, reading);
            if now != headroom {
                log(headroom, now, reading);
                left = Some(bus.offer(|| Message::Memory(now)));
                headroom = now;
            }
        }
    }

    fn read(&self) -> Option<Reading> {
        match self {
            Self::Group(group) => {
                let host = host(&fs::read_to_string("/proc/meminfo").ok()?)?;
                let group = Reading { used: group.used()?, limit: group.limit };
                // A group may be allowed more than there is.
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

/// `/proc/meminfo` (proc(5)), in which what is available counts what the kernel can let go of.
fn host(meminfo: &str) -> Option<Reading> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let (limit, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    Some(Reading { used: limit.saturating_sub(available), limit })
}

/// Short with less than the reserve left, spent with less than two fifths of it (95 % and 98 %).
/// It is over only with twice as much left, so that it does not begin anew with each connection.
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

fn log(before: Headroom, now: Headroom, Reading { used, limit }: Reading) {
    let [used, limit] = [used, limit].map(|bytes| limits::size(Some(bytes)));
    match (before, now) {
        (_, Headroom::Enough) => {
            tracing::info!(%used, %limit, "there is enough memory again: everybody is let in");
        }
        (Headroom::Enough, Headroom::Short) => {
            tracing::warn!(%used, %limit, "memory is short: new connections are refused with 4100");
        }
        (_, Headroom::Spent) => {
            let what = "memory is nearly spent: new connections are refused with 4100, and \
                        publishes with 503";
            tracing::error!(%used, %limit, "{what}");
        }
        (_, Headroom::Short) => {
            tracing::warn!(%used, %limit, "memory is short: publishes are taken again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(steps(1000, &used), expected);
    }

    #[test]
    fn the_reserve_of_a_large_host_is_a_gibibyte() {
        let gib = |count: u64| count << 30;
        assert_eq!(steps(gib(256), &[gib(254), gib(255) + 1]), [Headroom::Enough, Headroom::Short]);
    }

    #[test]
    fn it_looks_again_before_a_storm_can_be_at_the_reserve() {
        let lasts_ms = |limit_mib: u64, used_mib: u64| {
            Reading { used: used_mib << 20, limit: limit_mib << 20 }.lasts().as_millis()
        };
        assert_eq!(lasts_ms(8000, 1000), 1000);
        assert_eq!(lasts_ms(100, 45), 500);
        assert_eq!(lasts_ms(100, 94), 10);
        assert_eq!(lasts_ms(100, 200), 10);
    }

    #[test]
    fn a_host_uses_what_is_not_available() {
        let meminfo = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n";
        assert_eq!(host(meminfo), Some(Reading { used: 600 * 1024, limit: 1000 * 1024 }));
        assert_eq!(host("MemTotal: 1000 kB\n"), None);
    }

    #[test]
    fn every_gauge_can_be_read_on_this_host() {
        for limit in [MemoryLimit::OfHost, MemoryLimit::Bytes(1 << 40)] {
            let reading = Gauge::of(limit).unwrap().read().unwrap();
            assert!(reading.used > 0 && reading.limit > 0, "{limit:?}: {reading:?}");
        }
        assert!(Gauge::of(MemoryLimit::None).is_none());
    }
}
