//! The sequence of messages that a subscriber got from one sender. It counts messages that are
//! missing, arrive twice, or arrive out of order.

use std::ops::Range;

/// The messages of one sender as one subscriber sees them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sequence {
    /// The first number that has to arrive. Earlier ones may arrive or not.
    start: u32,
    /// One past the highest number that arrived, or `start`.
    next: u32,
    /// Bit `i` says whether number `next - 1 - i` arrived.
    window: u64,
}

/// The meaning of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is the next one.
    InOrder,
    /// This number of messages that were sent before it have not arrived.
    AfterGap(u32),
    /// It was missing, because later ones arrived before it.
    Late,
    /// It arrived before, or is too old to tell.
    Duplicate,
    /// It was sent before the subscription began.
    BeforeStart,
}

impl Sequence {
    /// A sequence in which everything from number `start` on has to arrive.
    pub(crate) const fn starting(start: u32) -> Self {
        Self { start, next: start, window: 0 }
    }

    /// Notes an arrival.
    pub(crate) fn arrive(&mut self, number: u32) -> Arrival {
        if number < self.start {
            return Arrival::BeforeStart;
        }
        if number >= self.next {
            let gap = number - self.next;
            self.window = if gap < 63 { (self.window << (gap + 1)) | 1 } else { 1 };
            self.next = number + 1;
            return if gap == 0 { Arrival::InOrder } else { Arrival::AfterGap(gap) };
        }
        let bit = 1u64.checked_shl(self.next - 1 - number).unwrap_or(0);
        if bit == 0 || self.window & bit != 0 {
            return Arrival::Duplicate;
        }
        self.window |= bit;
        Arrival::Late
    }

    /// The messages among the first `sent` that have still to arrive behind the last one.
    pub(crate) const fn behind(&self, sent: u32) -> Range<u32> {
        self.next..if sent > self.next { sent } else { self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses, duplicates and late ones of a whole history, as the storm sums them up.
    fn sums(arrivals: &[u32], start: u32, sent: u32) -> (i64, u32, u32) {
        let mut sequence = Sequence::starting(start);
        let (mut lost, mut twice, mut late) = (0, 0, 0);
        for number in arrivals {
            match sequence.arrive(*number) {
                Arrival::AfterGap(gap) => lost += i64::from(gap),
                Arrival::Late => {
                    lost -= 1;
                    late += 1;
                }
                Arrival::Duplicate => twice += 1,
                Arrival::InOrder | Arrival::BeforeStart => {}
            }
        }
        (lost + sequence.behind(sent).len() as i64, twice, late)
    }

    #[test]
    fn each_lost_duplicated_and_reordered_message_is_counted_once() {
        assert_eq!(sums(&[0, 1, 2], 0, 3), (0, 0, 0));
        assert_eq!(sums(&[0, 2], 0, 3), (1, 0, 0), "one in the middle");
        assert_eq!(sums(&[0, 1], 0, 5), (3, 0, 0), "three at the end");
        assert_eq!(sums(&[], 0, 4), (4, 0, 0), "all");
        assert_eq!(sums(&[0, 2, 1], 0, 3), (0, 0, 1), "overtaken, not lost");
        assert_eq!(sums(&[0, 1, 1, 2, 0], 0, 3), (0, 2, 0));
        assert_eq!(sums(&[0, 2, 1, 1], 0, 3), (0, 1, 1), "late, then again");
    }

    #[test]
    fn messages_under_way_at_the_start_are_neither_owed_nor_missed() {
        assert_eq!(sums(&[8, 9, 10, 11], 10, 12), (0, 0, 0));
        assert_eq!(sums(&[10, 11], 10, 12), (0, 0, 0));
        assert_eq!(sums(&[11], 10, 12), (1, 0, 0));
    }

    #[test]
    fn gaps_of_any_length_keep_the_window_right() {
        for gap in [1, 2, 62, 63, 64, 65, 1000] {
            let mut sequence = Sequence::starting(0);
            assert_eq!(sequence.arrive(0), Arrival::InOrder);
            assert_eq!(sequence.arrive(gap + 1), Arrival::AfterGap(gap));
            assert_eq!(sequence.arrive(gap + 1), Arrival::Duplicate);
            assert_eq!(sequence.arrive(gap), Arrival::Late);
            assert_eq!(sequence.arrive(gap), Arrival::Duplicate);
            assert_eq!(sequence.arrive(0), Arrival::Duplicate);
        }
    }
}
