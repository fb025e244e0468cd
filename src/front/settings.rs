//! The settings of the front, and its fixed bounds.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::refusals::Refusals;
use crate::time::Clock;

use super::address::TrustedProxies;
use super::address_limits::{AddressLimits, AddressTable};

/// The bytes that a connection is charged with when it is accepted: a head of the largest size, its
/// task and the socket of the kernel. An idle WebSocket keeps a sixth of them.
pub(crate) const CONNECTION_BYTES: usize = 32 << 10;

/// The largest head of a request, in bytes. Browsers send an origin's cookies along with a
/// WebSocket handshake; nginx takes 4 lines of 8 KiB, and usual heads have less than 1 KiB.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The operator's settings for HTTP, and its bounds. Each request is served by the settings that
/// are in force when it begins, except for the two bounds that are fixed when the front starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path prefix under which all routes answer too, such as `/ws`; empty for none. It has a
    /// leading and no trailing slash.
    pub path_prefix: String,
    /// The most connections of this shard at a time that are accepted and not yet handed over. At
    /// the bound the connections that have idled longest are closed; while none idles, the shard
    /// accepts no more until one ends, and new ones wait in the kernel's queue or go to other
    /// shards. Fixed when the front starts.
    pub connections_max: u32,
    /// The time from the first byte of a request to the end of its head; after it the connection
    /// closes.
    pub head_timeout: Duration,
    /// The time from the accept to the end of the first head while the server stops. A client that
    /// has just connected sends its head a round trip later; browsers also open connections in
    /// advance, on which they never send anything.
    pub head_timeout_at_stop: Duration,
    /// The time from the end of a head to the end of the body; after it the answer is 408.
    pub body_timeout: Duration,
    /// The time from a response to the next request; after it the connection closes.
    pub idle_timeout: Duration,
    /// The most bytes of bodies that this shard holds at a time, and of events that wait for its
    /// turn; past it the answer is 503. The bound on bodies is fixed when the front starts.
    pub bodies_bytes_max: usize,
    /// The most connections of this shard at a time that are accepted while memory is short, so
    /// that their clients are told.
    pub connections_when_short: usize,
    /// The proxies whose word on a client's address is trusted.
    pub proxies: TrustedProxies,
    /// The limits of each client's address.
    pub limits: AddressLimits,
    /// The counts of each address, which the fronts of all shards share.
    pub(crate) addresses: Arc<AddressTable>,
    /// The counts and the log of refusals.
    pub refusals: Arc<Refusals>,
    /// The clock by which the rates of addresses and apps are counted: one for all shards.
    pub(crate) clock: Clock,
}

impl Default for Settings {
    /// No prefix, 16,384 connections, 10 s for a head and 250 ms at a stop, 30 s for a body (an
    /// HTTP publisher of Pusher waits that long in all), 75 s idle (as nginx), 64 MiB of bodies,
    /// no trusted proxies, no limits of addresses, and a clock of its own.
    fn default() -> Self {
        Self {
            path_prefix: String::new(),
            connections_max: 16_384,
            head_timeout: Duration::from_secs(10),
            head_timeout_at_stop: Duration::from_millis(250),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            bodies_bytes_max: 64 * 1024 * 1024,
            connections_when_short: 64,
            proxies: TrustedProxies::default(),
            limits: AddressLimits::default(),
            addresses: Arc::default(),
            refusals: Arc::default(),
            clock: Clock::start(),
        }
    }
}

/// The settings in force, shared by the front and the loop that drives its shard. The loop replaces
/// them after a reload; the front reads them anew for each connection and each request.
#[derive(Clone, Debug)]
pub struct CurrentSettings(Rc<RefCell<Rc<Settings>>>);

impl CurrentSettings {
    /// Starts with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Rc::new(RefCell::new(Rc::new(settings))))
    }

    /// Replaces the settings. Requests that are being served keep those that they began with.
    pub(crate) fn replace(&self, settings: Settings) {
        *self.0.borrow_mut() = Rc::new(settings);
    }

    /// The settings that are in force now.
    pub(super) fn get(&self) -> Rc<Settings> {
        Rc::clone(&self.0.borrow())
    }
}
