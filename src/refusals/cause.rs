//! The causes that refusals are counted under.

/// Declares the causes, each with its words in the log.
macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident = $words:literal,)+) => {
        /// The cause of a refusal: refusals of one cause and app are counted together.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Cause {
            $($(#[$doc])* $cause,)+
        }

        impl Cause {
            /// All of them, in the order of their numbers.
            pub(super) const ALL: &[Self] = &[$(Self::$cause,)+];

            /// Its place in a list by cause, which is below the length of `ALL`.
            pub(super) const fn index(self) -> usize {
                // A test asserts that the numbers count up from 0.
                let (number, last) = (self as usize, Self::ALL.len() - 1);
                if number < last { number } else { last }
            }

            /// Its words in the log.
            pub(super) const fn words(self) -> &'static str {
                match self {
                    $(Self::$cause => $words,)+
                }
            }
        }
    };
}

causes! {
    // Connections, at their first bytes.
    /// A TLS handshake on a plain port.
    Tls = "TLS on a plain port",
    /// HTTP/2 on a port of HTTP/1.1.
    Http2 = "HTTP/2 on a port of HTTP/1.1",
    /// A PROXY protocol header on a listener that does not expect one.
    ProxyHeader = "unexpected header of the PROXY protocol",
    /// No PROXY protocol header on a listener that requires one.
    NoProxyHeader = "no header of the PROXY protocol",
    /// Bytes that are no HTTP request.
    NotHttp = "no HTTP",
    /// A head of a request that is too large.
    HeadTooLarge = "head of a request too large",
    /// A head of a request that does not end in time.
    SlowHead = "head of a request too late",
    /// Idle connections, closed to make room for others.
    Crowded = "idle HTTP connections closed for new ones",
    /// Connections that the kernel does not accept, or sockets that its ring does not take.
    Kernel = "the kernel refuses a connection",
    // The limits of one address.
    /// An address with its maximum of connections.
    AddressConnections = "too many connections of one address",
    /// An address that sends more handshakes and requests than it may.
    AddressRate = "too many requests of one address",
    /// Connections that are closed without an answer.
    AddressFlood = "connections of one address closed without an answer",
    // Handshakes.
    /// A key that no app has.
    UnknownKey = "unknown key",
    /// An app that is switched off or was removed.
    Disabled = "app switched off",
    /// A version of the protocol that is not supported.
    Version = "unsupported protocol version",
    /// A page whose origin is not allowed.
    Origin = "origin not allowed",
    /// An app with its maximum of connections.
    Quota = "over the app's connection quota",
    /// An app whose connections cannot be counted without Redis.
    QuotaUnknown = "the app's connection quota not known without Redis",
    /// Too little memory.
    Memory = "out of memory",
    /// No room in the table of a shard.
    NoSlot = "no free slot",
    /// A message of an open WebSocket that would take memory which is short.
    MemoryOfMessages = "subscription or sign-in without memory for it",
    // Requests.
    /// A path that is not served.
    NoRoute = "unknown path",
    /// A method that is not served.
    Method = "method not allowed",
    /// Not exactly one `Host`.
    Host = "not exactly one Host header",
    /// Both headers that give the length of a body.
    TwoLengths = "both Transfer-Encoding and Content-Length",
    /// A request for a WebSocket that is no handshake.
    NotWebSocket = "no WebSocket handshake",
    /// An id that no app has.
    UnknownAppId = "unknown app id",
    /// A key that is not the app's.
    RequestKey = "request signed with another key",
    /// A wrong signature.
    RequestSignature = "wrong request signature",
    /// A clock that is off.
    RequestClock = "request signed too long ago",
    /// A request that is not signed as the API requires.
    RequestUnsigned = "request not signed as it has to be",
    /// A body that is too large.
    TooLarge = "request too large",
    /// A body that does not arrive in time.
    SlowBody = "body of a request too late",
    /// Too many bodies at a time.
    Bodies = "too many requests at a time",
    /// Shards that cannot keep up.
    Overloaded = "over capacity",
    /// A Redis of the cluster that is away or too slow.
    RedisAway = "Redis away",
    /// Nodes of the cluster that do not answer.
    NodesSilent = "other nodes do not answer",
    /// More requests than the app may send.
    AppRate = "over the app's rate of requests",
    /// A request that its endpoint found invalid.
    Invalid = "invalid request",
    // Messages of an open WebSocket.
    /// A subscription or sign-in without a signature.
    AuthMissing = "no channel or user signature",
    /// A subscription or sign-in that is signed with another key than the app's.
    AuthKey = "channel or user signed with another key",
    /// A subscription or sign-in with a wrong signature.
    AuthSignature = "wrong channel or user signature",
    /// A subscription or sign-in whose signed data is not valid.
    AuthData = "signed data not valid",
    /// A missing sign-in, or one as another user.
    AuthUser = "signed in as nobody or as another user",
    /// A channel name that is not allowed.
    ChannelName = "channel name not allowed",
    /// A connection with its maximum of channels.
    Channels = "too many channels of a connection",
    /// A channel with its maximum of members.
    Members = "too many members of a channel",
    /// A watchlist with more users than allowed.
    Watchlist = "watchlist too long",
    /// A connection that sends more messages per time than it may.
    MessageRate = "over the rate of messages",
    /// A client event that the app does not accept.
    ClientEvent = "client event refused",
    /// A client event of a connection that is not subscribed.
    NotMember = "client event without a subscription",
    /// A message that is not of the protocol.
    Malformed = "message not of the protocol",
    // Open WebSockets that are closed.
    /// A message that is too long.
    MessageTooLong = "message too long",
    /// Frames that violate RFC 6455.
    Frames = "WebSocket frames not valid",
    /// A client that does not read.
    SlowReader = "client reads too slowly",
    /// A client that sent no valid signature in time.
    AuthenticationTimeout = "not authenticated in time",
    /// Messages whose rest does not arrive.
    Unfinished = "too many unfinished messages",
    /// The connection that held the most when memory was nearly spent.
    Heaviest = "held the most when memory was nearly spent",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_by_its_number_and_no_two_are_told_alike() {
        let words: std::collections::BTreeSet<_> =
            Cause::ALL.iter().map(|cause| cause.words()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().enumerate().all(|(number, cause)| cause.index() == number));
    }
}
