//! Floor 1. All reasons to refuse a client or its messages, each with its code, its text, and
//! whether it ends the connection.
//!
//! Contract: the code decides what client libraries do, so no code may be sent by accident.
//! pusher-js acts on close codes alone: on 4000-4099 it gives up, on 4100-4199 it reconnects after
//! a second, on 4200-4299 at once, and from 4300 on it gives up. A `pusher:error` message alone
//! never closes a connection.

use std::fmt;

use crate::frame::Frame;

use super::auth::AuthError;
use super::names::NameError;
use super::outbound;

/// The reason why a connection or one of its messages was refused. The texts are Reverb's if it has
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// No app has the key of the URL.
    UnknownApp,
    /// The app is switched off, or was removed while the connection was open.
    AppDisabled,
    /// The app has as many connections as it may.
    OverQuota,
    /// The cluster cannot tell whether the app may have one more connection.
    QuotaUnknown,
    /// The URL asks for a protocol version that the server does not support.
    UnsupportedVersion,
    /// The page's origin is not allowed.
    OriginRefused,
    /// The app has terminated all connections of this user. Clients do not reconnect by themselves.
    Terminated,
    /// The connection has not shown a signature of the app in time.
    AuthenticationTimeout,
    /// The client is not authorised for the channel, or for the sign-in.
    Unauthorised(AuthError),
    /// A channel's name is not acceptable.
    ChannelName(NameError),
    /// The sender of a client event is not subscribed to its channel.
    NotMember,
    /// This node takes no more connections.
    OverCapacity,
    /// Memory is short, and the message asked for something that would take more of it. The
    /// connection goes on.
    MemoryShort,
    /// The client's address has as many connections as it may.
    AddressOverConnections,
    /// The client's address connects more often than it may.
    AddressOverRate,
    /// The client does not read its messages fast enough.
    SlowConsumer,
    /// The message does not follow the protocol.
    Malformed,
    /// This node is about to stop, and another process takes its clients at once.
    ShuttingDown,
    /// 4200: the cluster lost messages of this node, perhaps some of the connection's channels.
    MessagesLost,
    /// This node is about to stop, and no process listens until it has been started again.
    Restarting,
    /// The client was silent and did not answer a ping.
    PongTimeout,
    /// The connection is subscribed to as many channels as it may.
    TooManyChannels,
    /// A presence channel has as many members as it may.
    TooManyMembers,
    /// The connection sends more messages or client events per time than the app allows.
    RateLimited,
    /// The watchlist has more users than it may. Only the first ones are watched.
    WatchlistTooLong,
    /// The app accepts no client events.
    ClientEventsOff,
    /// The client event is for a channel that anyone can join.
    ClientEventOnPublic,
    /// The name of the client event is too long or has control characters.
    ClientEventName,
    /// The data of the client event is larger than the app allows.
    ClientEventTooLarge,
}

impl ProtocolError {
    /// The code in `pusher:error`.
    #[must_use]
    pub(crate) const fn code(self) -> u16 {
        self.code_and_text().0
    }

    /// The text in `pusher:error`, which is the reason of the close frame too.
    #[must_use]
    pub(crate) const fn text(self) -> &'static str {
        self.code_and_text().1
    }

    /// The code of the close frame. It is the code of the message, unless that would stop a client
    /// from reconnecting that should do so a little later.
    #[must_use]
    pub(crate) const fn close_code(self) -> u16 {
        match self.code() {
            4300.. => 4100,
            code => code,
        }
    }

    const fn code_and_text(self) -> (u16, &'static str) {
        match self {
            Self::UnknownApp => (4001, "Application does not exist"),
            Self::AppDisabled => (4003, "Application is disabled"),
            Self::OverQuota => (4004, "Application is over connection quota"),
            Self::UnsupportedVersion => (4007, "Unsupported protocol version"),
            Self::OriginRefused => (4009, "Origin not allowed"),
            Self::Terminated => (4009, "Connection terminated by the application"),
            Self::AuthenticationTimeout => (4009, "Connection not authorized within timeout"),
            Self::Unauthorised(_) => (4009, "Connection is unauthorized"),
            Self::ChannelName(NameError::Empty) => (4009, "The channel name is empty."),
            Self::ChannelName(NameError::TooLong { .. }) => (4009, "The channel name is too long."),
            Self::ChannelName(NameError::Alphabet) => {
                (4009, "The channel name has a character that is not allowed.")
            }
            Self::NotMember => (4009, "The client is not a member of the specified channel."),
            Self::OverCapacity | Self::QuotaUnknown => {
                (4100, "Server is over capacity. Please reconnect later.")
            }
            Self::MemoryShort => (4100, "Server is over capacity. Please try again later."),
            Self::AddressOverConnections => {
                (4100, "Too many connections from your address. Please reconnect later.")
            }
            Self::AddressOverRate => {
                (4100, "Too many requests from your address. Please reconnect later.")
            }
            Self::SlowConsumer => (4101, "The client reads too slowly."),
            Self::Restarting => (4102, "Server is restarting. Please reconnect in a second."),
            Self::Malformed => (4200, "Invalid message format"),
            Self::ShuttingDown => (4200, "Server is shutting down. Please reconnect."),
            Self::MessagesLost => (4200, "Messages may be missing. Please reconnect."),
            Self::PongTimeout => (4201, "Pong reply not received in time"),
            Self::TooManyChannels => {
                (4300, "The connection is subscribed to as many channels as it may.")
            }
            Self::TooManyMembers => (4300, "The channel has as many members as it may."),
            Self::RateLimited => (4301, "Rate limit exceeded"),
            Self::ClientEventsOff => (4301, "The app does not have client messaging enabled."),
            Self::ClientEventOnPublic => {
                (4301, "Client events are for private and presence channels only.")
            }
            Self::ClientEventName => (4301, "The name of the client event is not valid."),
            Self::ClientEventTooLarge => (4301, "The data of the client event is too large."),
            Self::WatchlistTooLong => {
                (4302, "The watchlist is too long. The first of its users are watched.")
            }
        }
    }
}

/// Shows the error for the log, with the reason that clients are not told.
impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.text())?;
        match self {
            Self::Unauthorised(reason) => write!(f, ": {reason}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// The `pusher:error` message.
#[must_use]
pub(crate) fn error_frame(error: ProtocolError) -> Frame {
    outbound::error(error.code(), error.text())
}

/// The last frames of a connection: the `pusher:error` message, which Reverb's users know, and the
/// close frame, on which client libraries act.
#[must_use]
pub(crate) fn refusal_frames(error: ProtocolError) -> Frame {
    let close = Frame::close(error.close_code(), error.text());
    joined(&[error_frame(error), close])
}

/// The answer to a subscribe that was refused: the `pusher:error` message, and behind it, if the
/// app wants it, `pusher:subscription_error` on the channel.
#[must_use]
pub(crate) fn subscribe_refusal(
    error: ProtocolError,
    channel: &str,
    also_on_channel: bool,
) -> Frame {
    if !also_on_channel {
        return error_frame(error);
    }
    // The types, the text and the status are those of other servers of the protocol.
    let on_channel = match error {
        ProtocolError::Unauthorised(_) => outbound::subscription_error(
            channel,
            AUTH_ERROR,
            "The connection is unauthorized.",
            401,
        ),
        ProtocolError::TooManyChannels | ProtocolError::TooManyMembers => {
            outbound::subscription_error(channel, "LimitReached", error.text(), 4009)
        }
        ProtocolError::MemoryShort => {
            outbound::subscription_error(channel, "LimitReached", error.text(), 4100)
        }
        _ => outbound::subscription_error(channel, AUTH_ERROR, error.text(), 400),
    };
    joined(&[error_frame(error), on_channel])
}

/// Joins frames into one.
pub(super) fn joined(frames: &[Frame]) -> Frame {
    let bytes: Vec<&[u8]> = frames.iter().map(|frame| frame.bytes().as_ref()).collect();
    Frame::from_encoded(bytes.concat().into())
}

const AUTH_ERROR: &str = "AuthError";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ProtocolError; 30] = [
        ProtocolError::UnknownApp,
        ProtocolError::AppDisabled,
        ProtocolError::OverQuota,
        ProtocolError::UnsupportedVersion,
        ProtocolError::OriginRefused,
        ProtocolError::Terminated,
        ProtocolError::AuthenticationTimeout,
        ProtocolError::Unauthorised(AuthError::Signature),
        ProtocolError::ChannelName(NameError::Empty),
        ProtocolError::ChannelName(NameError::TooLong { max_len: 200 }),
        ProtocolError::ChannelName(NameError::Alphabet),
        ProtocolError::NotMember,
        ProtocolError::OverCapacity,
        ProtocolError::MemoryShort,
        ProtocolError::AddressOverConnections,
        ProtocolError::AddressOverRate,
        ProtocolError::SlowConsumer,
        ProtocolError::Malformed,
        ProtocolError::ShuttingDown,
        ProtocolError::MessagesLost,
        ProtocolError::Restarting,
        ProtocolError::PongTimeout,
        ProtocolError::TooManyChannels,
        ProtocolError::TooManyMembers,
        ProtocolError::RateLimited,
        ProtocolError::ClientEventsOff,
        ProtocolError::ClientEventOnPublic,
        ProtocolError::ClientEventName,
        ProtocolError::ClientEventTooLarge,
        ProtocolError::WatchlistTooLong,
    ];

    #[test]
    fn refusals_are_the_message_and_then_the_close_frame() {
        let frames = refusal_frames(ProtocolError::UnknownApp);
        let expected = concat!(
            r#"{"event":"pusher:error","#,
            r#""data":"{\"code\":4001,\"message\":\"Application does not exist\"}"}"#,
        );
        let header = [0x81, u8::try_from(expected.len()).unwrap()];
        let close = [&[0x88, 28, 0x0f, 0xa1], &b"Application does not exist"[..]].concat();
        assert_eq!(frames.bytes()[..], [&header, expected.as_bytes(), &close].concat());
    }

    #[test]
    fn every_reason_fits_a_close_frame() {
        for error in ALL {
            assert!(error.text().len() <= crate::frame::CLOSE_REASON_MAX, "{error:?}");
        }
    }

    #[test]
    fn clients_give_up_only_where_returning_is_no_use() {
        for error in ALL {
            let gives_up = !(4100..4300).contains(&error.close_code());
            let no_use = error.code() < 4100;
            assert_eq!(gives_up, no_use, "{error:?}");
        }
        assert_eq!(ProtocolError::RateLimited.close_code(), 4100);
        assert_eq!(ProtocolError::ShuttingDown.close_code(), 4200);
        // At once they would find the port closed, and pusher-js then stays away for 15 s.
        assert_eq!(ProtocolError::Restarting.close_code(), 4102);
    }

    #[test]
    fn a_refused_subscribe_is_told_on_the_channel_if_wanted() {
        let error = ProtocolError::Unauthorised(AuthError::Missing);
        let plain = subscribe_refusal(error, "private-x", false);
        assert_eq!(plain, error_frame(error));
        let both = subscribe_refusal(error, "private-x", true);
        let on_channel = both.bytes().strip_prefix(plain.bytes().as_ref()).unwrap();
        let expected = concat!(
            r#"{"event":"pusher:subscription_error","channel":"private-x","data":"#,
            r#"{"type":"AuthError","error":"The connection is unauthorized.","status":401}}"#,
        );
        assert!(on_channel.ends_with(expected.as_bytes()));
        let limit = subscribe_refusal(ProtocolError::TooManyMembers, "presence-x", true);
        assert!(limit.bytes().ends_with(br#"","status":4009}}"#));
        let short = subscribe_refusal(ProtocolError::MemoryShort, "presence-x", true);
        assert!(short.bytes().ends_with(br#"","status":4100}}"#));
    }

    #[test]
    fn the_log_is_told_more_than_the_client() {
        let error = ProtocolError::Unauthorised(AuthError::WrongKey);
        assert_eq!(
            error.to_string(),
            "4009 Connection is unauthorized: the signature names another key"
        );
        assert!(!String::from_utf8_lossy(error_frame(error).bytes()).contains("another"));
    }
}
