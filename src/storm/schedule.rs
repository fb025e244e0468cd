//! Schedules with an even rate, which several can share.

use crate::clock::NS_PER_S;

/// The times `start + (first + k * step) / rate` for k = 0, 1, 2, ... Each is computed from its
/// number, so that no rounding error adds up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    /// The rate of all that share it, per second.
    rate: f64,
    /// The number of the next time among all times of the rate.
    next: u64,
    /// The number of those that share it.
    step: u64,
}

impl Schedule {
    /// The schedule of number `index` of `of` that share `rate` per second. With a rate of zero
    /// everything is due at the start.
    pub(crate) const fn new(start_ns: u64, rate: f64, index: u32, of: u32) -> Self {
        Self { start_ns, rate, next: index as u64, step: of as u64 }
    }

    /// The next time.
    pub(crate) fn due_ns(&self) -> u64 {
        if self.rate > 0.0 {
            self.start_ns + (self.next as f64 / self.rate * NS_PER_S as f64) as u64
        } else {
            self.start_ns
        }
    }

    /// The number of times that are left before this one. There is no such number without a rate.
    pub(crate) fn left_before(mut self, until_ns: u64) -> u64 {
        let mut left = 0;
        while self.rate > 0.0 && self.due_ns() < until_ns {
            self.advance();
            left += 1;
        }
        left
    }

    /// Goes on to the time after it.
    pub(crate) const fn advance(&mut self) {
        self.next += self.step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_share_a_rate_evenly_and_no_error_adds_up() {
        let mut all: Vec<u64> = Vec::new();
        for index in 0..3 {
            let mut schedule = Schedule::new(5, 30.0, index, 3);
            for _ in 0..1000 {
                all.push(schedule.due_ns());
                schedule.advance();
            }
        }
        all.sort_unstable();
        assert_eq!(all[0], 5);
        assert_eq!(all[30], 5 + NS_PER_S);
        assert_eq!(all[2970], 5 + 99 * NS_PER_S);
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] <= NS_PER_S / 30 + 1));
    }

    #[test]
    fn the_times_of_all_that_share_a_rate_are_as_many_as_the_rate_says() {
        let left = |until_ns| -> u64 {
            let of = |index| Schedule::new(5, 30.0, index, 4).left_before(until_ns);
            (0..4).map(of).sum()
        };
        assert_eq!([5, 6, 5 + NS_PER_S, 6 + NS_PER_S].map(left), [0, 1, 30, 31]);
    }

    #[test]
    fn without_a_rate_everything_is_due_at_the_start() {
        let mut schedule = Schedule::new(7, 0.0, 2, 4);
        schedule.advance();
        assert_eq!(schedule.due_ns(), 7);
    }
}
