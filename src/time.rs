//! Floor 0. Time as values: code that decides by time is handed `now`, and no code below the shard
//! asks a clock.

use std::num::NonZeroU32;
use std::ops::Add;
use std::time::Duration;

/// Milliseconds on a monotonic clock that starts with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// How long ago `earlier` was; zero when it is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Millis {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Nanoseconds on the host's monotonic clock, which is one for all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(pub(crate) u64);

/// A time to a tenth of a second, never later than it was, in four bytes that an `Option` does not
/// add to: for records of which there are many. Lasts for 13 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// Milliseconds of a tick.
    pub(crate) const MS: u64 = 100;
}

impl From<Millis> for Tick {
    fn from(time: Millis) -> Self {
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
    fn a_tick_is_the_time_to_a_tenth_of_a_second() {
        for (time, tick) in [(0, 0), (99, 0), (100, 100), (86_400_123, 86_400_100)] {
            assert_eq!(Millis::from(Tick::from(Millis(time))), Millis(tick));
        }
        assert_eq!(size_of::<Option<Tick>>(), 4);
    }
}
