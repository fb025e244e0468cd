//! Floor 0. Invariants: conditions that this program makes true by construction.
//!
//! Contract: code that has a value for the impossible case anyway calls [`broken`] before it uses
//! that value. A test or a simulation ends there with a panic. A server has clients that did
//! nothing wrong: it goes on, and the operator finds the defect in the log, with its place and the
//! count.

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of times that an invariant was found broken since the start of the process.
static BROKEN: AtomicU64 = AtomicU64::new(0);

/// Reports that an invariant does not hold; `what` names it. The log has every power of two of
/// them, so that a defect in a loop does not fill it.
///
/// # Panics
/// In builds with debug assertions.
#[cold]
#[track_caller]
pub(crate) fn broken(what: &str) {
    debug_assert!(false, "{what}");
    let count = BROKEN.fetch_add(1, Ordering::Relaxed) + 1;
    if count.is_power_of_two() {
        let place = Location::caller();
        tracing::error!(%place, count, "a defect of Ringwave: {what}; please report it");
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    #[test]
    #[should_panic(expected = "more members than connections")]
    fn a_broken_invariant_ends_a_test() {
        super::broken("more members than connections");
    }
}
