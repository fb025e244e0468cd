//! The counters of the HTTP API.

/// Declares the routes, each with its name.
macro_rules! routes {
    ($($(#[$doc:meta])* $route:ident = $name:literal;)+) => {
        /// An endpoint of an app's HTTP API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ApiRoute {
            $($(#[$doc])* $route,)+
        }

        impl ApiRoute {
            /// All of them, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$route,)+];

            /// The name: the last part of the path that is the same for all requests.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$route => $name,)+
                }
            }
        }
    };
}

routes! {
    /// Publish one event.
    Events = "events";
    /// Publish several events.
    BatchEvents = "batch_events";
    /// List the channels.
    Channels = "channels";
    /// Describe a channel.
    Channel = "channel";
    /// List the users of a channel.
    Users = "users";
    /// Close the connections of a user.
    Terminate = "terminate_connections";
    /// Count the connections.
    Connections = "connections";
}

/// The status codes that are counted by themselves: all that the API answers with.
pub(crate) const STATUSES: [u16; 11] = [200, 400, 401, 403, 404, 405, 408, 413, 422, 429, 503];

/// The codes with which handshakes are refused.
pub(crate) const HANDSHAKE_CODES: [u16; 8] = [4001, 4003, 4004, 4007, 4009, 4100, 4102, 4200];

/// The counters of one app's requests on a shard, handshakes included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestCounters {
    /// Answers by route, then by status in the order of [`STATUSES`], with all others at the end.
    pub(crate) answers: [[u64; STATUSES.len() + 1]; ApiRoute::ALL.len()],
    /// Handshakes that were refused, by code in the order of [`HANDSHAKE_CODES`].
    pub(crate) refused: [u64; HANDSHAKE_CODES.len()],
    /// Events that were published by `events`, once per channel.
    pub(crate) events: u64,
    /// Events that were published by `batch_events`.
    pub(crate) batch_events: u64,
}

impl RequestCounters {
    /// Counts an answer.
    pub(crate) fn answered(&mut self, route: ApiRoute, status: u16) {
        let known = STATUSES.iter().position(|&known| known == status);
        self.answers[route as usize][known.unwrap_or(STATUSES.len())] += 1;
    }

    /// Counts a handshake that was refused.
    pub(crate) fn refused(&mut self, code: u16) {
        if let Some(position) = HANDSHAKE_CODES.iter().position(|&known| known == code) {
            self.refused[position] += 1;
        }
    }

    /// Counts events that were published.
    pub(crate) fn published(&mut self, route: ApiRoute, events: usize) {
        let count = match route {
            ApiRoute::BatchEvents => &mut self.batch_events,
            _ => &mut self.events,
        };
        *count += events as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close::ProtocolError as Reason;

    #[test]
    fn every_refusal_of_a_handshake_is_counted_by_its_code() {
        let reasons = [
            Reason::UnknownApp,
            Reason::AppDisabled,
            Reason::OverQuota,
            Reason::QuotaUnknown,
            Reason::UnsupportedVersion,
            Reason::OriginRefused,
            Reason::OverCapacity,
            Reason::AddressOverConnections,
            Reason::AddressOverRate,
            Reason::Restarting,
            Reason::ShuttingDown,
        ];
        let mut counters = RequestCounters::default();
        reasons.iter().for_each(|reason| counters.refused(reason.code()));
        assert_eq!(counters.refused, [1, 1, 1, 1, 1, 4, 1, 1]);
    }

    #[test]
    fn answers_are_counted_by_route_and_status() {
        let mut counters = RequestCounters::default();
        counters.answered(ApiRoute::Users, 404);
        counters.answered(ApiRoute::Users, 599);
        let of_users = counters.answers[ApiRoute::Users as usize];
        assert_eq!((of_users[4], of_users[STATUSES.len()]), (1, 1));
        assert_eq!(counters.answers.iter().flatten().sum::<u64>(), 2);
        assert!(ApiRoute::ALL.iter().enumerate().all(|(at, &route)| route as usize == at));
    }
}
