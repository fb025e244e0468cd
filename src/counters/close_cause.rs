//! The causes of the ends of connections.

use crate::protocol::close::ProtocolError;

/// Declares the causes, each with its name and the code of the Close frame.
macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident = $name:literal, $code:literal;)+) => {
        /// The cause of the end of a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum CloseCause {
            $($(#[$doc])* $cause,)+
        }

        impl CloseCause {
            /// All of them, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$cause,)+];

            /// The name, and the code of the Close frame that the client was sent; empty if it was
            /// sent none, or one of several.
            #[must_use]
            pub(crate) const fn name_and_code(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$cause => ($name, $code),)+
                }
            }
        }
    };
}

causes! {
    /// The client sent a Close frame.
    Client = "client", "";
    /// The client ended the stream without a Close frame.
    Left = "left", "";
    /// The socket failed.
    Network = "network", "";
    /// The client broke RFC 6455.
    Frames = "frames", "";
    /// The client read too slowly.
    SlowReader = "slow_reader", "4101";
    /// The client did not answer a ping.
    PongTimeout = "pong_timeout", "4201";
    /// The app has terminated the connections of the user.
    Terminated = "terminated", "4009";
    /// The client did not show a signature of the app in time.
    AuthenticationTimeout = "authentication_timeout", "4009";
    /// The app was switched off or removed.
    AppDisabled = "app_disabled", "4003";
    /// Memory was nearly spent.
    Memory = "memory", "4100";
    /// The cluster lost messages of the connection.
    MessagesLost = "messages_lost", "4200";
    /// The server stops.
    Stop = "stop", "";
    /// The protocol was not followed, or any other reason of the server.
    Protocol = "protocol", "";
}

impl CloseCause {
    /// The cause of a close by the server for this reason.
    pub(crate) const fn of(reason: ProtocolError) -> Self {
        match reason {
            ProtocolError::PongTimeout => Self::PongTimeout,
            ProtocolError::Terminated => Self::Terminated,
            ProtocolError::AuthenticationTimeout => Self::AuthenticationTimeout,
            ProtocolError::AppDisabled => Self::AppDisabled,
            ProtocolError::OverCapacity => Self::Memory,
            ProtocolError::MessagesLost => Self::MessagesLost,
            ProtocolError::SlowConsumer => Self::SlowReader,
            ProtocolError::Restarting | ProtocolError::ShuttingDown => Self::Stop,
            _ => Self::Protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_by_its_number() {
        let all = CloseCause::ALL.iter().enumerate();
        assert!(all.clone().all(|(number, &cause)| cause as usize == number));
    }

    #[test]
    fn the_code_of_a_reason_is_the_one_that_its_cause_names() {
        use ProtocolError as Reason;
        let reasons = [
            Reason::PongTimeout,
            Reason::Terminated,
            Reason::AuthenticationTimeout,
            Reason::AppDisabled,
            Reason::OverCapacity,
            Reason::MessagesLost,
            Reason::SlowConsumer,
        ];
        for reason in reasons {
            let (_, code) = CloseCause::of(reason).name_and_code();
            assert_eq!(code, reason.close_code().to_string(), "{reason:?}");
        }
    }
}
