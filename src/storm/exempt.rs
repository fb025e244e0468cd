//! The messages that no subscriber is owed, although they have numbers: the server refused them,
//! or left them without a response. A subscriber asks only when it misses something.
//!
//! A publisher exempts a message before it sends the next one of the same sender, so a subscriber
//! that sees a gap in front of a message finds it explained already. Only a gap within one batch
//! can be seen before the batch has failed; [`OpenGaps`](crate::gaps::OpenGaps) keeps it until
//! then.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The exempt messages of all senders.
#[derive(Debug, Default)]
pub(crate) struct ExemptMessages {
    /// By [`sender_index`](crate::plan::StormPlan::sender_index), ascending ranges of numbers that
    /// do not touch. A sender without any has no entry.
    senders: Mutex<HashMap<usize, Vec<Range<u32>>>>,
}

impl ExemptMessages {
    /// Exempts a message. The numbers of a sender come in ascending order.
    pub(crate) fn add(&self, sender: usize, number: u32) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges = senders.entry(sender).or_default();
        match ranges.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => ranges.push(number..number + 1),
        }
    }

    /// The number of exempt messages among these of a sender.
    pub(crate) fn count(&self, sender: usize, numbers: Range<u32>) -> u32 {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges = senders.get(&sender).map_or(&[][..], Vec::as_slice);
        let first = ranges.partition_point(|range| range.end <= numbers.start);
        let common = ranges.iter().skip(first).take_while(|range| range.start < numbers.end);
        common.map(|range| range.end.min(numbers.end) - range.start.max(numbers.start)).sum()
    }

    /// Whether a message is exempt.
    pub(crate) fn contains(&self, sender: usize, number: u32) -> bool {
        self.count(sender, number..number.saturating_add(1)) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exempt_messages_are_counted_within_any_range_of_their_sender() {
        let exempt = ExemptMessages::default();
        for number in [3, 4, 5, 9, 12] {
            exempt.add(7, number);
        }
        for (numbers, count) in
            [(0..20, 5), (0..3, 0), (4..5, 1), (5..10, 2), (6..9, 0), (12..13, 1), (13..20, 0)]
        {
            assert_eq!(exempt.count(7, numbers.clone()), count, "{numbers:?}");
        }
        assert!(exempt.contains(7, 9) && !exempt.contains(7, 10));
        assert!(!exempt.contains(8, 9), "another sender");
    }
}
