//! Floor 0. Times as values, and the one clock that makes them. Code that decides by time is handed
//! `now`; only the threads' own loops (floor 4 and above) hold a [`Clock`].

use std::num::NonZeroU32;
use std::ops::Add;
use std::time::{Duration, Instant};

/// The monotonic clock of the process. It is made once at the start and copied into every thread,
/// so that their times compare. It does not depend on the host's date, which an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The time 0 of [`Millis`] and [`Nanos`].
    start: Instant,
}

impl Clock {
    /// Makes a clock that shows 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time in milliseconds.
    #[must_use]
    pub(crate) fn now(self) -> Millis {
        Millis::default() + self.start.elapsed()
    }

    /// The time in nanoseconds, for rates of requests.
    #[must_use]
    pub(crate) fn now_nanos(self) -> Nanos {
        // 64 bits last for 584 years.
        Nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Milliseconds on the [`Clock`] of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// The time that has passed since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Millis {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        // A deadline further away than 584 million years is as good as none.
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Nanoseconds on the [`Clock`] of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(pub(crate) u64);

impl Nanos {
    /// The time that has passed since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Nanos> for Millis {
    fn from(time: Nanos) -> Self {
        Self(time.0 / 1_000_000)
    }
}

/// A time rounded down to a tenth of a second, for records of which there are many. It takes four
/// bytes, also in an `Option`, and lasts for 13 years, after which it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// The length of a tick in milliseconds.
    pub(crate) const MS: u64 = 100;
}

impl From<Millis> for Tick {
    fn from(time: Millis) -> Self {
        // Saturates after 13 years, as the type says.
        let ticks = u32::try_from(time.0 / Self::MS).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(ticks))
    }
}

impl From<Tick> for Millis {
    fn from(tick: Tick) -> Self {
        Self(u64::from(tick.0.get() - 1) * Tick::MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_clock_show_one_time() {
        let clock = Clock::start();
        let before = clock.now();
        let elsewhere = std::thread::spawn(move || clock.now()).join().unwrap();
        assert!(before <= elsewhere && elsewhere <= clock.now());
        assert!(clock.now_nanos().0 / 1_000_000 >= elsewhere.0);
    }

    #[test]
    fn a_tick_is_the_time_to_a_tenth_of_a_second() {
        for (time, tick) in [(0, 0), (99, 0), (100, 100), (86_400_123, 86_400_100)] {
            assert_eq!(Millis::from(Tick::from(Millis(time))), Millis(tick));
        }
        assert_eq!(size_of::<Option<Tick>>(), 4);
    }
}
