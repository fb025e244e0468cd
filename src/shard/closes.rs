//! Closes that are spread over a time, so that not all of their clients return in one moment.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::id::ConnKey;
use crate::time::Millis;

/// Closes per second of an automatic window: half of a core's time for closing, and as much for the
/// clients that return.
const CLOSES_PER_SECOND: u64 = 20_000;

/// The longest automatic window. The busiest servers close faster than that.
const WINDOW_MAX: Duration = Duration::from_secs(5);

/// The interval at which connections that are due are closed: 400 at a rate of 20,000 per second.
pub(super) const CLOSES_TICK: Duration = Duration::from_millis(20);

/// The time over which this many closes of a process are spread: the setting, or a time that grows
/// with their number.
#[must_use]
pub(crate) fn closing_window(setting: Option<Duration>, connections: u64) -> Duration {
    let by_rate = Duration::from_millis(connections.saturating_mul(1000) / CLOSES_PER_SECOND);
    setting.unwrap_or_else(|| by_rate.min(WINDOW_MAX))
}

/// The number of closes, out of `count`, that are due after `elapsed` if they are spread evenly.
pub(super) fn evenly(count: usize, elapsed: Duration, window: Duration) -> usize {
    let (elapsed, window) = (elapsed.as_millis(), window.as_millis().max(1));
    let due = count as u128 * elapsed.min(window) / window;
    usize::try_from(due).unwrap_or(count)
}

/// The connections of a shard that are to be closed, spread over a window.
#[derive(Debug, Default)]
pub(super) struct SpreadCloses {
    /// `server.shutdown_window` of the configuration in force; `None`: by the number of closes.
    pub(super) setting: Option<Duration>,
    /// The connections, the next one first.
    marked: VecDeque<ConnKey>,
    /// The time at which the last ones were marked.
    since: Millis,
    /// The number of connections that were marked then.
    count: usize,
    /// The time over which they are closed.
    window: Duration,
    /// The time at which connections were last closed. `None` before the first ones.
    looked: Option<Millis>,
}

impl SpreadCloses {
    /// No closes, to be spread as the setting says.
    pub(super) fn new(setting: Option<Duration>) -> Self {
        Self { setting, ..Self::default() }
    }

    /// Whether no connection is to be closed.
    pub(super) fn is_empty(&self) -> bool {
        self.marked.is_empty()
    }

    /// Marks connections. The rest of those that were marked before is spread anew with them.
    /// Other shards are taken to have as many.
    pub(super) fn mark(&mut self, keys: impl Iterator<Item = ConnKey>, shards: usize, now: Millis) {
        // A connection may subscribe to channels of several partitions.
        let known: HashSet<ConnKey> = self.marked.iter().copied().collect();
        self.marked.extend(keys.filter(|key| !known.contains(key)));
        let closes = self.marked.len().saturating_mul(shards);
        (self.since, self.count, self.looked) = (now, self.marked.len(), None);
        self.window = closing_window(self.setting, u64::try_from(closes).unwrap_or(u64::MAX));
    }

    /// Takes out the connections that are due by now.
    pub(super) fn due(&mut self, now: Millis) -> Vec<ConnKey> {
        if self.looked.is_some_and(|looked| now.since(looked) < CLOSES_TICK) {
            return Vec::new();
        }
        self.looked = Some(now);
        let elapsed = now.since(self.since) + CLOSES_TICK;
        let left = self.count - evenly(self.count, elapsed, self.window);
        let due: Vec<_> = self.marked.drain(..self.marked.len().saturating_sub(left)).collect();
        if self.marked.is_empty() {
            self.marked = VecDeque::new();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn keys(slots: std::ops::Range<u32>) -> impl Iterator<Item = ConnKey> {
        slots.map(|slot| ConnKey { slot, generation: 1 })
    }

    #[test]
    fn the_window_grows_with_the_connections_from_nothing_to_five_seconds() {
        let auto =
            [0, 10, 2000, 20_000, 100_000, 1_000_000].map(|count| closing_window(None, count));
        assert_eq!(auto, [ms(0), ms(0), ms(100), ms(1000), ms(5000), ms(5000)]);
        assert_eq!(closing_window(Some(ms(7000)), 3), ms(7000), "as set");
    }

    #[test]
    fn closes_are_spread_over_the_window_and_those_that_come_later_with_the_rest() {
        let mut closes = SpreadCloses::new(Some(ms(2000)));
        let start = Millis(5000);
        closes.mark(keys(0..100), 4, start);
        closes.mark(keys(50..200), 4, start);
        assert_eq!(closes.due(start).len(), 2, "each connection once");
        assert_eq!(closes.due(start + Duration::from_millis(19)).len(), 0);
        assert_eq!(closes.due(start + Duration::from_secs(1)).len(), 100);
        let later = start + Duration::from_millis(1500);
        closes.mark(keys(300..302), 4, later);
        assert_eq!(closes.due(later).len(), 1);
        assert_eq!(closes.due(later + Duration::from_secs(1)).len(), 50);
        assert_eq!(closes.due(later + Duration::from_secs(2)).len(), 49);
        assert!(closes.is_empty());
    }

    #[test]
    fn without_a_setting_all_shards_together_close_as_fast_as_in_a_stop() {
        let mut closes = SpreadCloses::new(None);
        closes.mark(keys(0..10_000), 4, Millis(0));
        assert_eq!(closes.due(Millis(980)).len(), 5000, "40,000 of four shards in two seconds");
    }
}
