//! The causes of refusals, as they are counted.

/// Declares the causes with the words that a count is told by.
macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident = $words:literal,)+) => {
        /// Why something was refused: what is counted together, per app.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Cause {
            $($(#[$doc])* $cause,)+
        }

        impl Cause {
            /// All of them, in the order of their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$cause,)+];

            /// The words that it is told by.
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
    /// A header of the PROXY protocol where none is taken.
    ProxyHeader = "unexpected header of the PROXY protocol",
    /// No header of the PROXY protocol where one has to be.
    NoProxyHeader = "no header of the PROXY protocol",
    /// Bytes that are no HTTP.
    NotHttp = "no HTTP",
    /// A head of a request that is too large.
    HeadTooLarge = "head of a request too large",
    /// A head of a request that does not end in time.
    SlowHead = "head of a request too late",
    /// Idle connections, closed to make room for others.
    Crowded = "idle HTTP connections closed for new ones",
    /// Connections that the kernel does not give, or does not take.
    Kernel = "the kernel refuses a connection",
    // The limits of one address.
    /// As many connections as an address may have.
    AddressConnections = "too many connections of one address",
    /// More handshakes and requests than an address may send.
    AddressRate = "too many requests of one address",
    /// Connections that are not even told why.
    AddressFlood = "connections of one address closed without an answer",
    // Handshakes.
    /// A key that no app has.
    UnknownKey = "unknown key",
    /// An app that is switched off or was removed.
    Disabled = "app switched off",
    /// A version of the protocol that is not spoken.
    Version = "unsupported protocol version",
    /// A page that may not connect.
    Origin = "origin not allowed",
    /// As many connections as the app may have.
    Quota = "over the app's connection quota",
    /// Too little memory.
    Memory = "out of memory",
    /// No room in the table of a shard.
    NoSlot = "no free slot",
    /// A message of an open WebSocket that would take more memory.
    MemoryOfMessages = "subscription or sign-in without memory for it",
    // Requests.
    /// A path that is not served.
    NoRoute = "unknown path",
    /// A method that is not served.
    Method = "method not allowed",
    /// Not exactly one `Host`.
    Host = "not exactly one Host header",
    /// Both ways to tell the length of a body.
    TwoLengths = "both Transfer-Encoding and Content-Length",
    /// A request for a WebSocket that opens none.
    NotWebSocket = "no WebSocket handshake",
    /// An id that no app has.
    UnknownAppId = "unknown app id",
    /// A key that is not the app's.
    RequestKey = "request signed with another key",
    /// A signature that does not fit.
    RequestSignature = "wrong request signature",
    /// A clock that is off.
    RequestClock = "request signed too long ago",
    /// A request that is not signed as the API has it.
    RequestUnsigned = "request not signed as it has to be",
    /// A body that is too large.
    TooLarge = "request too large",
    /// A body that does not arrive in time.
    SlowBody = "body of a request too late",
    /// Too many bodies at a time.
    Bodies = "too many requests at a time",
    /// Shards that do not keep up.
    Overloaded = "over capacity",
    /// More requests than the app may send.
    AppRate = "over the app's rate of requests",
    /// A request that makes no sense to its endpoint.
    Invalid = "invalid request",
    // Messages of an open WebSocket.
    /// A subscription or sign-in without a signature.
    AuthMissing = "no channel or user signature",
    /// One signed with a key that is not the app's.
    AuthKey = "channel or user signed with another key",
    /// One whose signature does not fit.
    AuthSignature = "wrong channel or user signature",
    /// The signature is over other data than needed.
    AuthData = "signed data not valid",
    /// A sign-in is missing, or one of another user came.
    AuthUser = "signed in as nobody or as another user",
    /// A channel's name.
    ChannelName = "channel name not allowed",
    /// As many channels as a connection may have.
    Channels = "too many channels of a connection",
    /// As many members as a channel may have.
    Members = "too many members of a channel",
    /// More watched users than one may have.
    Watchlist = "watchlist too long",
    /// More messages per time than a connection may send.
    MessageRate = "over the rate of messages",
    /// Client events that the app does not take, or not so.
    ClientEvent = "client event refused",
    /// A client event of a connection that is not subscribed.
    NotMember = "client event without a subscription",
    /// A message that is not of the protocol.
    Malformed = "message not of the protocol",
    // Open WebSockets that are closed.
    /// A message that is too long.
    MessageTooLong = "message too long",
    /// Frames that break RFC 6455.
    Frames = "WebSocket frames not valid",
    /// A client that does not read.
    SlowReader = "client reads too slowly",
    /// A client that showed no signature in time.
    AuthenticationTimeout = "not authenticated in time",
    /// Parts of messages whose rest does not come.
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
        assert!(Cause::ALL.iter().enumerate().all(|(number, &cause)| cause as usize == number));
    }
}
