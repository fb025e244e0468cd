//! The rate at which a channel's subscriber count is published: at every change up to a hundred,
//! above that at most every five seconds. The last count is always published (Pusher's
//! `subscription_count`).
//!
//! The same rule holds for subscribers and for webhooks. Only large channels are remembered, and
//! only while they pause, so that small channels cost nothing here.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::memory::Trim;
use crate::time::Millis;

/// A channel with more subscribers than this is large.
const LARGE: u32 = 100;

/// The time between two counts of a large channel.
const PAUSE: Duration = Duration::from_secs(5);

/// The most large channels whose pause is kept. The counts of others are published at every change.
const PAUSES_MAX: usize = 100_000;

/// The large channels whose count was published in the last five seconds, by a key that identifies
/// them.
///
/// Every new count goes to [`take`](Self::take), which returns whether to publish it at once.
/// [`due`](Self::due) returns the counts whose pause is over, and [`rest`](Self::rest) those that
/// are left at the end.
#[derive(Debug)]
pub(crate) struct CountThrottle<K> {
    /// The count to publish at the end of the pause, by channel. `None` if it has not changed
    /// since.
    pausing: HashMap<K, Option<u32>>,
    /// The ends of the pauses, in their order; one for each entry of `pausing`.
    ends: VecDeque<(Millis, K)>,
}

impl<K> Default for CountThrottle<K> {
    fn default() -> Self {
        Self { pausing: HashMap::new(), ends: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash> CountThrottle<K> {
    /// Takes a channel's new count. Returns whether to publish it at once; otherwise
    /// [`due`](Self::due) will return it, or a later one.
    #[must_use]
    pub(crate) fn take(&mut self, channel: &K, count: u32, now: Millis) -> bool {
        let pause = self.pausing.get_mut(channel);
        if count <= LARGE {
            if let Some(later) = pause {
                *later = None;
            }
            return true;
        }
        if let Some(later) = pause {
            *later = Some(count);
            return false;
        }
        if self.pausing.len() < PAUSES_MAX {
            self.pause(channel.clone(), now);
        }
        true
    }

    /// The next count whose pause is over.
    pub(crate) fn due(&mut self, now: Millis) -> Option<(K, u32)> {
        while self.next_due().is_some_and(|end| end <= now) {
            let (_, channel) = self.ends.pop_front()?;
            if let Some(Some(count)) = self.pausing.remove(&channel) {
                self.pause(channel.clone(), now);
                return Some((channel, count));
            }
        }
        None
    }

    /// The next count, whether its pause is over or not, for the end of the throttle.
    pub(crate) fn rest(&mut self) -> Option<(K, u32)> {
        while let Some((_, channel)) = self.ends.pop_front() {
            if let Some(Some(count)) = self.pausing.remove(&channel) {
                return Some((channel, count));
            }
        }
        None
    }

    /// The time at which [`due`](Self::due) has to be called again. `None` if no channel pauses.
    #[must_use]
    pub(crate) fn next_due(&self) -> Option<Millis> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Gives memory back that a burst of large channels has left.
    pub(super) fn trim(&mut self) {
        self.ends.trim();
        if self.pausing.is_empty() {
            self.pausing = HashMap::new();
        }
    }

    /// Bytes that it holds, in use or not.
    #[cfg(feature = "testing")]
    pub(super) fn room(&self) -> usize {
        self.ends.room() + self.pausing.capacity() * size_of::<(K, Option<u32>)>()
    }

    fn pause(&mut self, channel: K, now: Millis) {
        self.ends.push_back((now + PAUSE, channel.clone()));
        self.pausing.insert(channel, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_channels_are_told_of_at_every_change_and_are_not_remembered() {
        let mut counts = CountThrottle::default();
        assert!((0..=100).all(|n| counts.take(&"a", n, Millis(0))));
        assert_eq!((counts.next_due(), counts.room()), (None, 0));
    }

    #[test]
    fn large_channels_are_told_of_every_five_seconds_with_the_last_number() {
        let mut counts = CountThrottle::default();
        assert!(counts.take(&"a", 101, Millis(0)));
        assert!((102..200).all(|n| !counts.take(&"a", n, Millis(1000))));
        assert_eq!(counts.due(Millis(4999)), None);
        assert_eq!(counts.due(Millis(5000)), Some(("a", 199)));
        assert!(!counts.take(&"a", 201, Millis(5001)));
        assert_eq!(counts.due(Millis(10_000)), Some(("a", 201)));
        assert_eq!(counts.due(Millis(15_000)), None);
        assert!(counts.pausing.is_empty() && counts.next_due().is_none());
        assert!(counts.take(&"a", 202, Millis(15_001)));
    }

    #[test]
    fn one_channel_does_not_pause_for_another() {
        let mut counts = CountThrottle::default();
        assert!(counts.take(&"a", 101, Millis(0)) && counts.take(&"b", 101, Millis(1)));
        assert!(!counts.take(&"b", 102, Millis(2)) && !counts.take(&"a", 103, Millis(3)));
        assert_eq!(counts.due(Millis(5000)), Some(("a", 103)));
        assert_eq!(counts.due(Millis(5000)), None);
        assert_eq!(counts.due(Millis(5001)), Some(("b", 102)));
    }

    #[test]
    fn a_channel_that_became_small_is_not_called_large_later() {
        let mut counts = CountThrottle::default();
        assert!(counts.take(&"a", 101, Millis(0)));
        assert!(!counts.take(&"a", 102, Millis(1)));
        assert!(counts.take(&"a", 100, Millis(2)));
        assert_eq!(counts.due(Millis(5000)), None);
    }

    #[test]
    fn at_the_end_the_last_number_is_told() {
        let mut counts = CountThrottle::default();
        assert!(counts.take(&"a", 101, Millis(0)));
        assert!(!counts.take(&"a", 102, Millis(1)));
        assert_eq!(counts.rest(), Some(("a", 102)));
        assert_eq!(counts.rest(), None);
    }

    #[test]
    fn past_the_bound_large_channels_are_told_of_at_every_change() {
        let mut counts = CountThrottle::default();
        for channel in 0..PAUSES_MAX {
            assert!(counts.take(&channel, 101, Millis(0)));
        }
        for _ in 0..3 {
            assert!(counts.take(&PAUSES_MAX, 101, Millis(1)));
        }
        assert!(!counts.take(&0, 102, Millis(1)));
        assert_eq!(counts.due(Millis(5000)), Some((0, 102)));
        assert_eq!(counts.due(Millis(5000)), None);
        assert_eq!(counts.due(Millis(10_000)), None);
        counts.trim();
        assert!(counts.room() < 10_000, "{} bytes", counts.room());
    }
}
