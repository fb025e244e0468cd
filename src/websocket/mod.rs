//! Floor 1. RFC 6455 as pure functions, the server's side of it: no socket, no clock, no random.
//!
//! - [`encode`] turns messages of the server into [`Frame`](crate::frame::Frame)s, ready to share.
//!
//! No extension is spoken, so every reserved bit is an error (RFC 6455 section 5.2). Nothing that
//! a client sends panics, waits, or makes this floor hold more than the limits allow.

pub mod encode;
