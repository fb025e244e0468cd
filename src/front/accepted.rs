//! An accepted connection, as the accept loops hand it over.

use super::address::Peer;
use super::stream::Stream;

/// The first bytes that a connection has to send. Configured per listener, never detected, because
/// a client that could choose would forge its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Opening {
    /// HTTP from the first byte.
    #[default]
    Http,
    /// A header of the PROXY protocol, then HTTP.
    ProxyHeader,
}

/// A new connection.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// The other end of the socket, as far as the kernel knows.
    pub(super) peer: Peer,
    pub(super) opening: Opening,
}
