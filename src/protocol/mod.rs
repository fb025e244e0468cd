//! Floor 1. The Pusher protocol, version 7, as Reverb speaks it: messages in, values and encoded
//! frames out.
//!
//! Contract: pure and deterministic. Nothing here knows a socket, a clock, a random number or a
//! shard, and nothing here is shared and changes: a function that decides by time or by an app's
//! settings is handed `now` and the [`AppRules`]. Nothing that a peer sends can panic, recurse or
//! allocate beyond a small multiple of its own size.
//!
//! - [`rules`]: the settings of an app by which all of this decides
//! - [`secret`]: the secret of an app, which signs and verifies
//! - [`names`]: channel and event names
//! - [`auth`]: the proof that a connection may join a channel
//! - [`sign_in`]: the proof that a connection belongs to a user
//! - [`origin`]: which web pages may connect
//! - [`signing`]: signatures of the HTTP API
//! - [`message`]: the messages of clients
//! - [`outbound`]: the messages of the server
//! - [`close`]: the reasons to refuse a client, each with its code
//! - [`session`]: one connection

pub(crate) mod auth;
pub(crate) mod close;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod origin;
pub(crate) mod outbound;
pub(crate) mod rules;
pub(crate) mod secret;
pub(crate) mod session;
pub(crate) mod sign_in;
pub(crate) mod signing;

pub(crate) use rules::{AppRules, ClientEvents, Limits, Standing};
