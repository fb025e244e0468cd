//! The counters that the threads of a storm keep.

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Counter {
    /// Connections that are subscribed now.
    Held,
    /// Handshakes that led to a subscription.
    Subscribed,
    /// Handshakes that did not lead to a subscription.
    Failed,
    /// Subscribed connections that the server or the network ended.
    Cut,
    /// Connections that stopped reading and were closed by the server.
    SlowClosed,
    /// Connections that stopped reading.
    Slow,
    /// Messages that arrived, each counted once per subscriber.
    Delivered,
    /// Bytes that arrived.
    Bytes,
    /// Messages that were skipped and have not arrived since.
    Missing,
    /// Messages that arrived again.
    Duplicated,
    /// Messages that arrived behind later ones.
    Reordered,
    /// Stamped messages of another storm.
    Foreign,
    /// Messages that the server accepted through the API.
    Published,
    /// API requests that the server answered.
    Requests,
    /// API requests that the server refused as overloaded; they were sent again.
    Refused,
    /// Messages that the server did not accept at all.
    Unpublished,
    /// API requests that have no response yet.
    Outstanding,
    /// Client events that were sent.
    Whispered,
    /// Pings that were sent.
    Pings,
    /// Messages that have still to arrive, up to 100 ms old; 1 until the stage `Drain` begins.
    Owed,
}

/// The number of counters.
pub(crate) const COUNTERS: usize = Counter::Owed as usize + 1;

/// The counters of one thread, or the sums over all threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally(pub(crate) [u64; COUNTERS]);

impl Tally {
    pub(crate) const fn add(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] += n;
    }

    pub(crate) const fn subtract(&mut self, counter: Counter, n: u64) {
        let value = &mut self.0[counter as usize];
        debug_assert!(*value >= n, "a counter of the storm fell below zero");
        *value = value.saturating_sub(n);
    }

    pub(crate) const fn set(&mut self, counter: Counter, n: u64) {
        self.0[counter as usize] = n;
    }

    pub(crate) const fn of(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}
