//! Floor 0. The unit of fan-out: one encoded WebSocket frame, or several that follow each other.

use bytes::Bytes;

/// Bytes that are ready for any number of sockets: header and payload of one or more unmasked
/// server frames (behind the 101 of the handshake, for the first of a connection). Encoded once,
/// then shared by reference count; cloning copies no payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// Takes bytes that are whole WebSocket frames.
    #[must_use]
    pub(crate) const fn from_encoded(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes as they go on the wire.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes themselves.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Length on the wire in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a frame has a header, it is never empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }
}
