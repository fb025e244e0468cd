//! A refusal of any kind, with its cause and its sentence for the log.

use std::fmt;

use super::cause::Cause;
use super::closed::ClosedWebSocket;
use super::connection::RefusedConnection;
use super::handshake::RefusedHandshake;
use super::message::RefusedMessage;
use super::request::RefusedRequest;

/// A refusal, with everything that its sentence needs. It borrows, so that making one costs nothing
/// when it is only counted.
///
/// `Display` is one sentence: what came, what was expected, what to do.
#[derive(Debug)]
pub(crate) enum Refusal<'a> {
    /// A connection, by its first bytes or before them.
    Connection(RefusedConnection<'a>),
    /// A WebSocket handshake.
    Handshake(RefusedHandshake<'a>),
    /// An HTTP request.
    Request {
        /// The reason.
        refused: RefusedRequest<'a>,
        /// The id that the request came with.
        id: Option<&'a str>,
    },
    /// A message of an open WebSocket.
    Message(RefusedMessage<'a>),
    /// An open WebSocket as a whole.
    Closed(ClosedWebSocket),
}

impl Refusal<'_> {
    /// Whether a client gets no connection by it.
    pub(super) const fn is_of_connection(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Handshake(_))
    }

    /// The value of the log field `request_id`.
    pub(super) const fn request_id_field(&self) -> Option<&str> {
        match self {
            Self::Request { id, .. } => *id,
            _ => None,
        }
    }

    /// The cause that this refusal is counted under.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Connection(refused) => refused.cause(),
            Self::Handshake(refused) => refused.cause(),
            Self::Request { refused, .. } => refused.cause(),
            Self::Message(refused) => refused.cause(),
            Self::Closed(closed) => closed.cause(),
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(refused) => refused.fmt(f),
            Self::Handshake(refused) => refused.fmt(f),
            Self::Request { refused, .. } => refused.fmt(f),
            Self::Message(refused) => refused.fmt(f),
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}
