//! Floor 1. RFC 6455 as pure functions, the server's side of it: no socket, no clock, no random.
//!
//! - [`handshake`] judges the head of an upgrade request.
//! - [`read`] turns the bytes of a client, cut anywhere and glued anyhow, into messages.
//! - [`encode`] turns messages of the server into [`Frame`](crate::frame::Frame)s, ready to share.
//!
//! No extension is spoken, so every reserved bit is an error (RFC 6455 section 5.2). Nothing that
//! a client sends can panic, wait, or make this floor hold more than the limits allow.

pub(crate) mod encode;
pub(crate) mod handshake;
pub(crate) mod read;

pub(crate) use read::Stop;
pub use read::{Message, ReadLimits, Reader};
