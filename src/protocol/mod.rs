//! Floor 1. The Pusher protocol, version 7, as Reverb speaks it: messages in, values and encoded
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

pub mod app;
pub mod auth;
pub mod close;
pub mod message;
pub mod names;
pub mod origin;
pub mod outbound;
pub mod rate;
pub mod session;
pub mod sign_in;
pub mod signing;
pub mod webhook;

pub use app::{Admission, App, Apps};
pub use auth::{Authorised, Member};
pub use close::ProtocolError;
pub use names::{ChannelKind, ChannelName};
pub use session::{Action, ClientEvent, Session};
pub use sign_in::SignedIn;
