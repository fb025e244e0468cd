//! The faults of the simulated kernel, and the random numbers that decide when they happen.

/// The probability of each fault, in thousandths per opportunity.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A send takes only a part of its bytes, cut anywhere.
    pub short_send: u32,
    /// A wait ends although there is nothing to receive.
    pub spurious: u32,
    /// A receive does not say that the socket has more.
    pub unknown_left: u32,
    /// An operation ends with EAGAIN, EINTR, ENOMEM or ENOBUFS without a reason.
    pub stray_again: u32,
    /// A receive ends with ENOBUFS although there are buffers.
    pub no_buffers: u32,
    /// The peer resets the connection.
    pub reset: u32,
    /// A completion of an earlier user of the slot turns up.
    pub stale: u32,
    /// The kernel takes only a part of the queue.
    pub busy: u32,
    /// An operation that could make progress now does so later.
    pub delay: u32,
    /// An accept fails.
    pub accept: u32,
}

impl Faults {
    /// No faults.
    pub const NONE: Self = Self {
        short_send: 0,
        spurious: 0,
        unknown_left: 0,
        stray_again: 0,
        no_buffers: 0,
        reset: 0,
        stale: 0,
        busy: 0,
        delay: 0,
        accept: 0,
    };
}

/// A small deterministic generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    #[allow(clippy::cast_possible_truncation, reason = "below a usize")]
    pub const fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    /// True in `thousandths` of all cases.
    pub fn chance(&mut self, thousandths: u32) -> bool {
        self.roll() % 1000 < u64::from(thousandths)
    }

    /// One of several choices.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Brings a list into any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for left in (2..=list.len()).rev() {
            list.swap(left - 1, self.below(left));
        }
    }
}
