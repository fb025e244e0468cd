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
//! - [`sign_in`]: the proof that a connection belongs to a user
//! - [`origin`]: which web pages may connect
//! - [`rate`]: how often something may happen
//! - [`signing`]: signatures of the HTTP API
//! - [`message`]: what clients say
//! - [`outbound`]: what the server says
//! - [`close`]: what clients are refused, and with which code
//! - [`session`]: one connection
//! - [`webhook`]: what of an app goes to its own servers, and where to

pub(crate) mod app;
pub(crate) mod auth;
pub(crate) mod close;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod origin;
pub(crate) mod outbound;
pub(crate) mod rate;
pub(crate) mod session;
pub(crate) mod sign_in;
pub(crate) mod signing;
pub(crate) mod webhook;
