//! Floor 4. Accept, HTTP/1.1, the HTTP API and the WebSocket upgrade of one shard.
//!
//! All sockets are the plane's, from their first byte to their last. The [`Reception`] has it
//! accept them, and opens a WebSocket whose handshake comes whole in place. All other connections
//! have a task each, whose transport is two buffers. It answers a publish that comes whole in place
//! as well, and leaves every other request to hyper, so that this part is written for correctness.
//! Everything that a peer can make the server hold or wait for has a bound in [`Settings`] or in
//! the app's limits. The front reaches the rest of the server through [`Gateway`] alone.
//!
//! A WebSocket leaves the front with [`GatewayCommand::Adopt`]. The 101 and the bytes that the
//! client sent behind its handshake travel along.

mod accepted;
mod accepting;
pub(crate) mod address;
mod address_limits;
mod api;
mod body;
mod client_admission;
mod clock;
mod connection;
mod deadlines;
mod framing;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
pub(crate) mod gateway;
mod headers;
mod in_place;
mod listener;
mod pace;
mod permits;
mod pipe;
mod proxy_header;
mod reception;
mod refused;
mod request_id;
mod response;
mod route;
mod service;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod stand;
mod state;
mod tasks;
#[cfg(test)]
mod tests;
mod upgrade;
mod upgrade_outcome;

pub(crate) use accepted::Opening;
pub(crate) use address_limits::{AddressLimits, AddressTable};
pub use gateway::{Gateway, GatewayCommand};
#[cfg(feature = "testing")]
pub(crate) use listener::Door;
pub use listener::Listeners;
pub(crate) use listener::Listening;
pub(crate) use reception::Reception;
pub(crate) use settings::CONNECTION_BYTES;
pub use settings::{CurrentSettings, Settings};
