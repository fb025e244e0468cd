//! The client of a refusal, as the log names it.

use std::fmt;
use std::net::IpAddr;

use tracing::field::{DisplayValue, display};

use crate::id::SocketId;

/// The client that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedClient {
    /// The client at this address; `None` for one that came over a unix socket and has no address.
    Address(Option<IpAddr>),
    /// The client of an open WebSocket.
    Socket(SocketId),
    /// The client is not known, or the host caused the refusal.
    Unknown,
}

impl fmt::Display for RefusedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(Some(address)) => address.fmt(f),
            Self::Address(None) => f.write_str("a peer of the unix socket"),
            Self::Socket(id) => id.fmt(f),
            Self::Unknown => f.write_str("an unknown client"),
        }
    }
}

impl RefusedClient {
    /// The value of the log field `client`.
    pub(super) fn client_field(self) -> Option<DisplayValue<Self>> {
        matches!(self, Self::Address(_)).then(|| display(self))
    }

    /// The value of the log field `socket_id`.
    pub(super) fn socket_id_field(self) -> Option<DisplayValue<Self>> {
        matches!(self, Self::Socket(_)).then(|| display(self))
    }
}
