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

pub mod auth;
pub mod close;
pub mod message;
pub mod names;
pub mod origin;
pub mod outbound;
pub mod rules;
pub mod secret;
pub mod session;
pub mod sign_in;
pub mod signing;

pub use auth::{Authorised, Member};
pub use close::ProtocolError;
pub use names::{ChannelKind, ChannelName};
pub use rules::{AppRules, ClientEvents, KeyPair, Limits, RateLimit, Standing};
pub use secret::Secret;
pub use session::{Action, ClientEvent, Session};
pub use sign_in::SignedIn;
