//! Gaps in front of messages whose request has no response yet. Whether the missing messages are
//! owed is known when the request ends: a server that accepted only a part of a batch, or whose
//! response was lost, owes nothing of it.

use std::ops::Range;

use crate::exempt::ExemptMessages;

/// The gaps that the subscribers of one thread have seen within requests under way.
#[derive(Debug, Default)]
pub(crate) struct OpenGaps {
    gaps: Vec<OpenGap>,
    /// The number of gaps above which those of requests that have ended are worth looking for.
    crowd: usize,
}

/// A gap in one sequence.
#[derive(Debug)]
struct OpenGap {
    /// The number of the sequence among those of the thread.
    sequence: usize,
    /// The [`sender_index`](crate::plan::StormPlan::sender_index) of the messages.
    sender: usize,
    numbers: Range<u32>,
    /// Those that have arrived since.
    late: Vec<u32>,
}

/// The messages of gaps whose requests have ended, as far as they are owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SettledGaps {
    /// They have not arrived.
    pub(crate) missing: u64,
    /// They have arrived behind later ones.
    pub(crate) reordered: u64,
}

impl OpenGaps {
    /// Notes that a sequence misses these messages of a sender. All of them belong to the request
    /// that is under way.
    pub(crate) fn add(&mut self, sequence: usize, sender: usize, numbers: Range<u32>) {
        self.gaps.push(OpenGap { sequence, sender, numbers, late: Vec::new() });
    }

    /// Notes a message that arrived late. Returns whether it belongs to one of these gaps.
    pub(crate) fn fill(&mut self, sequence: usize, number: u32) -> bool {
        let is_in = |gap: &&mut OpenGap| gap.sequence == sequence && gap.numbers.contains(&number);
        let gap = self.gaps.iter_mut().find(is_in);
        gap.map(|gap| gap.late.push(number)).is_some()
    }

    /// Whether there are so many gaps that [`settle`](Self::settle) is worth its time.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.gaps.len() > self.crowd
    }

    /// Takes out the gaps of requests that have ended. `open_from` tells the first number of a
    /// sender's request under way.
    pub(crate) fn settle(
        &mut self,
        open_from: impl Fn(usize) -> u32,
        exempt: &ExemptMessages,
    ) -> SettledGaps {
        let mut settled = SettledGaps::default();
        let ended = |gap: &mut OpenGap| open_from(gap.sender) >= gap.numbers.end;
        for OpenGap { sender, numbers, late, .. } in self.gaps.extract_if(.., ended) {
            let owed = numbers.len() as u64 - u64::from(exempt.count(sender, numbers));
            let late = late.iter().filter(|number| !exempt.contains(sender, **number)).count();
            settled.missing += owed.saturating_sub(late as u64);
            settled.reordered += late as u64;
        }
        self.crowd = CROWD_MIN.max(2 * self.gaps.len());
        settled
    }
}

/// Few enough gaps to keep whatever becomes of them.
const CROWD_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: usize = 7;

    /// The open gaps after two subscribers have seen message 14 of the batch 10..15, one of them
    /// without 10, 11 and 13, of which 11 came later.
    fn seen() -> OpenGaps {
        let mut gaps = OpenGaps::default();
        gaps.add(0, SENDER, 10..12);
        gaps.add(0, SENDER, 13..14);
        assert!(gaps.fill(0, 11));
        assert!(!gaps.fill(0, 12) && !gaps.fill(1, 11), "they are in no gap");
        gaps
    }

    #[test]
    fn a_gap_within_a_batch_is_a_loss_only_if_the_batch_was_accepted() {
        let exempt = ExemptMessages::default();
        let mut gaps = seen();
        let none = SettledGaps::default();
        assert_eq!(gaps.settle(|_| 10, &exempt), none, "the request is under way");
        let lost = SettledGaps { missing: 2, reordered: 1 };
        assert_eq!(gaps.settle(|_| 15, &exempt), lost, "a later one is");
        assert_eq!(gaps.settle(|_| u32::MAX, &exempt), none, "each gap counts once");

        let mut gaps = seen();
        (10..15).for_each(|number| exempt.add(SENDER, number));
        assert_eq!(gaps.settle(|_| u32::MAX, &exempt), none);
    }

    #[test]
    fn gaps_are_settled_before_they_fill_the_memory() {
        let (mut gaps, exempt) = (OpenGaps::default(), ExemptMessages::default());
        for number in 0..10_000 {
            gaps.add(0, SENDER, number..number + 1);
            if gaps.is_crowded() {
                gaps.settle(|_| number, &exempt);
            }
            assert!(gaps.gaps.len() <= CROWD_MIN + 1);
        }
    }
}
