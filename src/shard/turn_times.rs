//! The durations of the turns of a shard, by the clock readings that turns need anyway.
//!
//! A turn lasts from its beginning until its thread sleeps, or until the next turn begins. If the
//! system call that submits its last sends also sleeps, that call is not part of the turn.

use crate::counters::ShortDurations;
use crate::time::Nanos;

/// The durations of turns.
#[derive(Debug, Default)]
pub(super) struct TurnTimes {
    /// The beginning of the turn that has not ended.
    began: Option<Nanos>,
    /// The time at which that turn was last about to sleep.
    awake_until: Nanos,
    durations: ShortDurations,
}

impl TurnTimes {
    /// A turn begins, which ends the one before if it has not slept.
    pub(super) fn begin(&mut self, now: Nanos) {
        self.end(now);
        self.began = Some(now);
    }

    /// The thread may be about to sleep.
    pub(super) const fn about_to_sleep(&mut self, now: Nanos) {
        self.awake_until = now;
    }

    /// The thread sleeps, or has slept, since it was last about to.
    pub(super) fn slept(&mut self) {
        self.end(self.awake_until);
    }

    /// The durations so far.
    pub(super) const fn durations(&self) -> &ShortDurations {
        &self.durations
    }

    fn end(&mut self, now: Nanos) {
        if let Some(began) = self.began.take() {
            self.durations.add(now.since(began));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Nanos {
        Nanos(us * 1000)
    }

    #[test]
    fn a_turn_lasts_until_its_thread_sleeps_or_the_next_turn_begins() {
        let mut times = TurnTimes::default();
        times.begin(us(100));
        times.about_to_sleep(us(110));
        times.slept();
        times.begin(us(500));
        times.about_to_sleep(us(510));
        // The flush left work to do, so the thread did not sleep.
        times.begin(us(540));
        let durations = *times.durations();
        assert_eq!(durations.sum_ns, 50_000, "10 us and 40 us");
        assert_eq!(durations.buckets().map(|(_, count)| count).sum::<u64>(), 2);
    }
}
