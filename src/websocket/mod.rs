//! Floor 1. The server's reading side of RFC 6455 as pure functions: no socket, no clock, no random
//! numbers. The writing side is [`Frame`](crate::frame::Frame).
//!
//! - [`handshake`] judges the head of an upgrade request.
//! - [`read`] turns the bytes of a client, which arrive in pieces of any size, into messages.
//!
//! No extension is supported, so every reserved bit is an error (RFC 6455 section 5.2). Nothing
//! that a client sends can panic, wait, or make this module hold more than the limits allow.

pub(crate) mod handshake;
pub(crate) mod read;

pub(crate) use read::Stop;
pub use read::{Message, ReadLimits, Reader};
