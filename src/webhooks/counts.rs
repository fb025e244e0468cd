//! How often a channel's number of subscribers is told: at every change up to a hundred, above that
//! at most every five seconds, the last number always (Pusher's `subscription_count`).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::id::AppIndex;
use crate::protocol::names::ChannelName;
use crate::time::Millis;

use super::{Notice, What};

/// A channel with more subscribers is large.
const LARGE: u32 = 100;

/// The time between two numbers of a large channel.
const PAUSE: Duration = Duration::from_secs(5);

/// Most large channels whose pause is kept; others are told of at every change.
const PAUSES_MAX: usize = 100_000;

/// Large channels that were told of in the last five seconds.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// What is to be told at the end of the pause, if anything.
    pausing: HashMap<Key, Option<Notice>>,
    /// The ends of the pauses, in their order; one for each in `pausing`.
    ends: VecDeque<(Millis, Key)>,
}

type Key = (AppIndex, ChannelName);

impl Counts {
    /// Takes what happened; returns what is to be told now.
    pub(super) fn take(&mut self, notice: Notice, now: Millis) -> Option<Notice> {
        let What::SubscriptionCount(count) = notice.what else { return Some(notice) };
        let key = (notice.app, notice.channel.clone());
        let pause = self.pausing.get_mut(&key);
        if count <= LARGE {
            if let Some(later) = pause {
                *later = None;
            }
            return Some(notice);
        }
        if let Some(later) = pause {
            *later = Some(notice);
            return None;
        }
        if self.pausing.len() < PAUSES_MAX {
            self.pause(key, now);
        }
        Some(notice)
    }

    /// The next number whose pause is over.
    pub(super) fn due(&mut self, now: Millis) -> Option<Notice> {
        while self.next_due().is_some_and(|end| end <= now) {
            let (_, key) = self.ends.pop_front()?;
            if let Some(Some(notice)) = self.pausing.remove(&key) {
                self.pause(key, now);
                return Some(notice);
            }
        }
        None
    }

    /// The next number, due or not, at the end.
    pub(super) fn rest(&mut self) -> Option<Notice> {
        while let Some((_, key)) = self.ends.pop_front() {
            if let Some(Some(notice)) = self.pausing.remove(&key) {
                return Some(notice);
            }
        }
        None
    }

    /// When [`due`](Self::due) has to be asked again.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.ends.front().map(|(end, _)| *end)
    }

    fn pause(&mut self, key: Key, now: Millis) {
        self.ends.push_back((now + PAUSE, key.clone()));
        self.pausing.insert(key, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice;
    use super::*;

    fn count(counts: &mut Counts, count: u32, now: u64) -> Option<u32> {
        let told = counts.take(notice("a", What::SubscriptionCount(count)), Millis(now));
        told.map(|notice| number(&notice))
    }

    fn number(notice: &Notice) -> u32 {
        let What::SubscriptionCount(count) = notice.what else { unreachable!() };
        count
    }

    #[test]
    fn small_channels_are_told_of_at_every_change() {
        let mut counts = Counts::default();
        assert!((1..=100).all(|n| count(&mut counts, n, 0) == Some(n)));
        assert!(counts.next_due().is_none());
        assert!(counts.take(notice("a", What::CacheMiss), Millis(0)).is_some());
    }

    #[test]
    fn large_channels_are_told_of_every_five_seconds_with_the_last_number() {
        let mut counts = Counts::default();
        assert_eq!(count(&mut counts, 101, 0), Some(101));
        assert!((102..200).all(|n| count(&mut counts, n, 1000).is_none()));
        assert!(counts.due(Millis(4999)).is_none());
        assert_eq!(counts.due(Millis(5000)).map(|of| number(&of)), Some(199));
        assert!(count(&mut counts, 201, 5001).is_none());
        assert_eq!(counts.due(Millis(10_000)).map(|of| number(&of)), Some(201));
        assert!(counts.due(Millis(15_000)).is_none());
        assert!(counts.pausing.is_empty() && counts.next_due().is_none());
        assert_eq!(count(&mut counts, 202, 15_001), Some(202));
    }

    #[test]
    fn a_channel_that_became_small_is_not_called_large_later() {
        let mut counts = Counts::default();
        assert_eq!(count(&mut counts, 101, 0), Some(101));
        assert!(count(&mut counts, 102, 1).is_none());
        assert_eq!(count(&mut counts, 100, 2), Some(100));
        assert!(counts.due(Millis(5000)).is_none());
    }

    #[test]
    fn at_the_end_the_last_number_is_told() {
        let mut counts = Counts::default();
        assert_eq!(count(&mut counts, 101, 0), Some(101));
        assert!(count(&mut counts, 102, 1).is_none());
        assert_eq!(counts.rest().map(|of| number(&of)), Some(102));
        assert!(counts.rest().is_none());
    }
}
