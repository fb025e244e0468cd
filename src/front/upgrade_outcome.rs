//! The outcome of a handshake that was answered with 101.

use std::net::IpAddr;

use crate::apps::Admission;
use crate::protocol::close::ProtocolError;

use super::address_limits::ConnectionPermit;
use super::gateway::Reservation;

/// The outcome of a handshake: what the connection does with its socket after the 101.
#[derive(Debug)]
pub(super) enum UpgradeOutcome {
    /// The client is admitted, and the shard takes the socket.
    Admitted(Admitted),
    /// The client is refused as Pusher clients understand it: with an error message and a close
    /// frame on the open WebSocket.
    Refused(ProtocolError),
}

/// The permits that a WebSocket holds from its start to its end.
#[derive(Debug)]
pub(super) struct Admitted {
    /// The place at the app. `None` if the WebSocket is only held until the process ends.
    pub(super) admission: Option<Admission>,
    pub(super) reservation: Reservation,
    pub(super) permit: Option<ConnectionPermit>,
    pub(super) client: Option<IpAddr>,
}
