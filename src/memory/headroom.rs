//! Measurements of the memory in use, and the steps by which the process takes on less.

/// The result of a measurement of the memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The bytes in use.
    pub(crate) used: u64,
    /// The most bytes that may be in use.
    pub(crate) limit: u64,
}

impl Reading {
    /// The bytes that are not in use.
    #[must_use]
    pub(crate) const fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// The bytes that are kept for the clients that are connected.
    #[must_use]
    pub(crate) fn reserve(self) -> u64 {
        reserve(self.limit)
    }

    /// The bytes that may be taken for new clients and new state.
    #[must_use]
    pub(crate) fn free(self) -> u64 {
        self.left().saturating_sub(self.reserve())
    }
}

/// The reserve of a limit: a twentieth, but at least 8 MiB and at most 1 GiB, because the memory
/// that the kernel takes for sockets in a burst neither shrinks with the limit nor grows with the
/// host. For a very small limit it is an eighth.
#[must_use]
pub(crate) fn reserve(limit: u64) -> u64 {
    let least = RESERVE_MIN.min(limit / 8);
    (limit / 20).clamp(least, RESERVE_MAX)
}

const RESERVE_MIN: u64 = 8 << 20;
const RESERVE_MAX: u64 = 1 << 30;

/// The memory that is left, in the steps by which the process takes on less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Headroom {
    /// Enough memory is left.
    #[default]
    Enough,
    /// New WebSockets, subscriptions, members and sign-ins are refused with 4100. Fewer bytes are
    /// held for slow readers and for cached events.
    Short,
    /// Requests with a body are refused as well: publishes are answered 503 with `Retry-After: 1`.
    /// The connections that hold the most are closed with 4100.
    Spent,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_is_a_twentieth_with_a_floor_for_small_limits_and_a_cap_for_large_ones() {
        let mib = |limit| reserve(limit * MIB) / MIB;
        assert_eq!([32, 64, 128, 512].map(mib), [4, 8, 8, 25]);
        assert_eq!([4096, 20_480, 262_144].map(mib), [204, 1024, 1024]);
    }
}
