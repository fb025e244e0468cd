//! Floor 4. Accept, HTTP/1.1, the HTTP API and the WebSocket upgrade of one shard.
//!
//! The front runs one asynchronous task per connection on the shard's own tokio-uring runtime. It
//! is cold per connection, so it is written for correctness: hyper speaks HTTP, and everything that
//! a peer can make the server hold or wait for has a bound in [`Settings`] or in the app's limits.
//! The front reaches the rest of the server through [`Gateway`] alone.
//!
//! A WebSocket leaves the front with [`GatewayCommand::Adopt`]: by then no operation of the
//! front is in flight on its socket. The 101 and the bytes that the client sent behind its
//! handshake travel along.

mod accepted;
pub(crate) mod address;
mod address_limits;
mod api;
mod body;
mod client_admission;
mod clock;
mod connection;
mod framing;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
pub(crate) mod gateway;
mod headers;
mod listener;
mod pace;
mod permits;
mod proxy_header;
mod refused;
mod response;
mod route;
mod service;
mod settings;
mod state;
mod stop;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
mod upgrade;
mod upgrade_outcome;

pub(crate) use accepted::Opening;
pub(crate) use address_limits::{AddressLimits, AddressTable};
pub use gateway::{Gateway, GatewayCommand};
pub(crate) use listener::Listening;
pub use listener::{Listeners, serve};
pub(crate) use settings::CONNECTION_BYTES;
pub use settings::{CurrentSettings, Settings};
