//! A conversion that can fail only because of a defect in this program.

/// A length or a position that fits into 32 bits by construction; `reason` says why. If it does
/// not, a test or a simulation ends with a panic, and a server logs the defect and goes on with the
/// largest number.
#[inline]
pub(crate) fn to_u32(value: usize, reason: &'static str) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| {
        debug_assert!(false, "{value} does not fit into 32 bits: {reason}");
        tracing::error!(value, reason, "a defect of the ring: a number is too large");
        u32::MAX
    })
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "4294967296 does not fit into 32 bits: there are few")]
    fn a_number_that_does_not_fit_ends_the_test() {
        assert_eq!(to_u32(u32::MAX as usize, "it is the largest"), u32::MAX);
        to_u32(1 << 32, "there are few");
    }
}
