//! Floor 2. The Pusher protocol, version 7, as Reverb speaks it: messages in, values and encoded
//! frames out.
//!
//! Contract: pure and deterministic. Nothing here knows a socket, a clock, a random number or a
//! shard; who decides by time is handed `now`. Nothing that a peer sends can panic, recurse or
//! allocate beyond a small multiple of its own size.
//!
//! - [`app`]: an app's credentials and limits
//! - [`names`]: channel and event names
//! - [`auth`]: the app's secret, and the proof that a connection may join a channel
//! - [`origin`]: which web pages may connect
//! - [`signing`]: signatures of the HTTP API
//! - [`message`]: what clients say
//! - [`outbound`]: what the server says

pub mod app;
pub mod auth;
pub mod message;
pub mod names;
pub mod origin;
pub mod outbound;
pub mod signing;
