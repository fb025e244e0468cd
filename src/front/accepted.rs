//! A connection that was just accepted.

use super::address::Peer;
use super::client_admission::ClientAdmission;
use crate::time::Millis;

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

/// A connection from which nothing has come yet.
pub(super) struct Arrival {
    /// The other end of the socket, as far as the kernel knows.
    pub(super) peer: Peer,
    pub(super) opening: Opening,
    /// The admission of its clients. `None` until its header of the PROXY protocol has come.
    pub(super) clients: Option<ClientAdmission>,
    /// The time of the accept.
    pub(super) at: Millis,
}
