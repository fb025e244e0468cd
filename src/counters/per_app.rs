//! One set of counters for each app, up to a bound.

use crate::id::AppIndex;

/// The apps that have counters of their own: those that were configured first. Each takes about a
/// kilobyte per shard, which a scrape copies, and some 200 lines of its answer.
pub(crate) const APPS_MAX: usize = 100;

/// A set of counters for each app. Apps beyond [`APPS_MAX`] share the last set.
#[derive(Clone, Debug)]
pub(crate) struct PerApp<T> {
    /// By index of the app, as far as the highest index that was counted.
    sets: Vec<T>,
}

impl<T> Default for PerApp<T> {
    fn default() -> Self {
        Self { sets: Vec::new() }
    }
}

impl<T: Clone + Default> PerApp<T> {
    /// The counters of an app. Its first use makes room for them, which is when its first
    /// connection opens or its first request comes.
    pub(crate) fn of(&mut self, app: AppIndex) -> &mut T {
        let index = usize::from(app.0).min(APPS_MAX);
        if index >= self.sets.len() {
            self.sets.resize(index + 1, T::default());
        }
        &mut self.sets[index]
    }

    /// The counters of the app with this index, or for [`APPS_MAX`] those of all other apps.
    /// `None` if nothing was counted.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.sets.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_beyond_the_bound_are_counted_together() {
        let mut counts: PerApp<u64> = PerApp::default();
        for index in [0, 99, 100, 101, u16::MAX] {
            *counts.of(AppIndex(index)) += 1;
        }
        assert_eq!((counts.get(99), counts.get(APPS_MAX)), (Some(&1), Some(&3)));
        assert_eq!((counts.get(1), counts.get(APPS_MAX + 1)), (Some(&0), None));
    }
}
