//! Open WebSockets that the server closes for a reason that an operator can do something about.

use std::fmt;

use super::cause::Cause;

/// The reason for which an open WebSocket is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClosedWebSocket {
    /// Its app is switched off, or was removed.
    Disabled,
    /// It sent a message that is too long.
    MessageTooLong {
        /// The longest message that is taken, in bytes.
        most: usize,
    },
    /// It broke RFC 6455. The number is the close code.
    Frames(u16),
    /// It reads too slowly.
    SlowReader {
        /// The bytes that may wait for one connection.
        most: usize,
    },
    /// It sent no valid signature within this many seconds.
    AuthenticationTimeout(u64),
    /// Unfinished messages took too much memory, and it sent more of one.
    Unfinished {
        /// The bytes that all unfinished messages of a shard may take.
        most: usize,
    },
    /// Memory is nearly spent, and it holds the most of its shard.
    Memory {
        /// The number of its subscriptions.
        subscriptions: usize,
        /// The bytes that its subscriptions hold.
        bytes: usize,
    },
}

impl ClosedWebSocket {
    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::Disabled => Cause::Disabled,
            Self::MessageTooLong { .. } => Cause::MessageTooLong,
            Self::Frames(_) => Cause::Frames,
            Self::SlowReader { .. } => Cause::SlowReader,
            Self::AuthenticationTimeout(_) => Cause::AuthenticationTimeout,
            Self::Unfinished { .. } => Cause::Unfinished,
            Self::Memory { .. } => Cause::Heaviest,
        }
    }
}

impl fmt::Display for ClosedWebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str(
                "connection closed with 4003: its app is switched off, or no longer configured",
            ),
            Self::MessageTooLong { most } => write!(
                f,
                "connection closed with 1009: a message is longer than {most} bytes: raise \
                 app.max_message_size (REVERB_APP_MAX_MESSAGE_SIZE)"
            ),
            Self::Frames(code) => write!(
                f,
                "connection closed with {code}: the client's frames violate RFC 6455: find out \
                 which client sends them"
            ),
            Self::SlowReader { most } => write!(
                f,
                "connection closed with 4101: the client reads too slowly: more than {most} bytes \
                 waited for it (server.backlog_per_connection), or those of all clients exceeded \
                 server.backlog_per_shard"
            ),
            Self::AuthenticationTimeout(seconds) => write!(
                f,
                "connection closed with 4009: it neither signed in nor subscribed with a signature \
                 within {seconds} s (app.user_authentication_timeout)"
            ),
            Self::Unfinished { most } => write!(
                f,
                "connection closed with 4100: unfinished messages take more than {most} bytes, and \
                 this client's grew: find out which clients send them, or raise \
                 server.memory_limit"
            ),
            Self::Memory { subscriptions, bytes } => write!(
                f,
                "connection closed with 4100: memory is nearly spent, and its {subscriptions} \
                 subscriptions hold {bytes} bytes, more than those of any other: lower \
                 app.max_channels_per_connection, or raise server.memory_limit"
            ),
        }
    }
}
