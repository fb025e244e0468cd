//! Floor 4. Accept, HTTP/1.1, the HTTP API and the WebSocket upgrade of one shard.
//!
//! Asynchronous tasks on the shard's own tokio-uring runtime, one per connection, none of them
//! `Send`. Cold per connection, so written for correctness: hyper speaks HTTP, and everything that
//! a peer can make us hold or wait for has a bound in [`Settings`] or in the app's limits. The rest
//! of the gateway is reached through [`Gateway`] alone.
//!
//! A WebSocket ends its life here with [`Command::Adopt`]: no operation of the front is in flight
//! on its socket, and the 101 and whatever the client sent behind its handshake travel along.

pub(crate) mod address;
mod api;
mod body;
mod clock;
mod connection;
pub(crate) mod door;
mod framing;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
pub(crate) mod gateway;
mod listener;
mod pace;
mod permits;
mod proxy_header;
mod refused;
mod reply;
mod route;
mod service;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod upgrade;
mod visitor;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::refusals::Refusals;

use address::TrustedProxies;
pub(crate) use door::{AddressLimits, Door};
pub use gateway::{Command, Gateway};
pub use listener::{Listeners, serve};
pub(crate) use listener::{Listening, Opening};

/// Bytes that a connection is charged with when it is accepted: a head of the largest size, its
/// task and the socket of the kernel. An idle WebSocket keeps a sixth of it.
pub(crate) const CONNECTION_BYTES: usize = 32 << 10;

/// The operator's decisions about HTTP, and its bounds. Each request is served by those that are in
/// force when it begins, except for the two bounds that the front is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The path that all routes also answer under, such as `/ws`; empty for none. With a leading
    /// and without a trailing slash.
    pub path_prefix: String,
    /// Most connections of this shard that are accepted and not yet handed over, at a time. At the
    /// bound those that have idled longest are closed; while none idles, the shard accepts no more
    /// until one ends: new ones wait in the kernel's queue or go to other shards. Each can have two
    /// operations in flight, so that the ring's submission queue should have at least twice as many
    /// entries. Fixed when the front begins to serve.
    pub connections_max: u32,
    /// From the first byte of a request to the end of its head; then the connection closes.
    pub head_timeout: Duration,
    /// The same at a stop, from the accept to the end of the first head. A client that has just
    /// connected sends it a round trip later; browsers also open connections in advance, which
    /// never say anything.
    pub head_timeout_at_stop: Duration,
    /// From the end of a head to the end of the body; then 408.
    pub body_timeout: Duration,
    /// From a response to the next request; then the connection closes.
    pub idle_timeout: Duration,
    /// Bytes of bodies that this shard holds at a time, and of events that wait for its turn; then
    /// 503. The former is fixed when the front begins to serve.
    pub bodies_bytes_max: usize,
    /// Connections of this shard at a time that are accepted while memory is short, to be told so.
    pub connections_when_short: usize,
    /// Proxies that are believed when they tell a client's address.
    pub proxies: TrustedProxies,
    /// Limits of each client's address.
    pub limits: AddressLimits,
    /// The table of what each address has, over the fronts of all shards.
    pub door: Arc<Door>,
    /// Where what is refused is noted for the log.
    pub refusals: Arc<Refusals>,
}

impl Default for Settings {
    /// No prefix, 16,384 connections, 10 s for a head and 250 ms at a stop, 30 s for a body (an
    /// HTTP publisher of Pusher waits that long in all), 75 s idle (as nginx), 64 MiB of bodies,
    /// nobody trusted, and no limits of addresses.
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
            door: Arc::default(),
            refusals: Arc::default(),
        }
    }
}

/// The settings in force, shared by the front and the loop that drives its shard: the loop replaces
/// them after a reload, the front reads them anew for each connection and each request.
#[derive(Clone, Debug)]
pub struct CurrentSettings(Rc<RefCell<Rc<Settings>>>);

impl CurrentSettings {
    /// These, until they are replaced.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Rc::new(RefCell::new(Rc::new(settings))))
    }

    /// Others from now on. Requests that are being served keep those that they began with.
    pub(crate) fn replace(&self, settings: Settings) {
        *self.0.borrow_mut() = Rc::new(settings);
    }

    /// Those in force now.
    fn get(&self) -> Rc<Settings> {
        Rc::clone(&self.0.borrow())
    }
}

/// The state that all connections of one shard share.
struct Front<G> {
    gateway: G,
    settings: CurrentSettings,
    bodies: body::Budget,
    permits: permits::Permits,
    /// Open connections that came while memory was short.
    guests: Rc<Cell<usize>>,
}

/// Largest head of a request in bytes. Browsers send an origin's cookies along with a WebSocket
/// handshake; nginx takes 4 lines of 8 KiB, and usual heads have less than 1 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
