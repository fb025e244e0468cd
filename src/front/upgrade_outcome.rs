//! The outcome of a handshake that was answered with 101.

use std::net::IpAddr;

use crate::apps::Admission;
use crate::protocol::close::ProtocolError;

use super::address_limits::ConnectionPermit;
use super::gateway::Reservation;

/// What becomes of the socket behind its 101.
#[derive(Debug)]
pub(super) enum UpgradeOutcome {
    /// The shard takes it.
    Admitted(Admitted),
    /// The client is told why not, as Pusher clients understand it: an error message and a close
    /// frame on the open WebSocket.
    Refused(ProtocolError),
}

/// Everything that a WebSocket holds from its first moment on.
#[derive(Debug)]
pub(super) struct Admitted {
    /// `None`: it is only held.
    pub(super) admission: Option<Admission>,
    pub(super) reservation: Reservation,
    pub(super) permit: Option<ConnectionPermit>,
    pub(super) client: Option<IpAddr>,
}
