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
    /// Connections that were cut, return by `--failover`, and are not subscribed again yet.
    Away,
    /// Connects and handshakes that failed and were begun again at the next address.
    Retried,
    /// Messages that connections missed while they were away, each counted once per subscriber.
    MissedAway,
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
    /// API requests that the server refused for the time being (429 or 503).
    Refused,
    /// Messages that the server refused, and that were not accepted later.
    Unpublished,
    /// Messages that were handed over on a connection that ended before the response, so that the
    /// server may have accepted them.
    Unknown,
    /// Messages that were due and were never handed over to a server.
    Unsent,
    /// Client events that were sent.
    Whispered,
    /// Pings that were sent.
    Pings,
    /// Messages that have still to arrive, up to 100 ms old, or publishers that have still to send;
    /// 1 until the stage `Drain` begins.
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
