//! Connections that are refused before they have sent a request.

use std::error::Error;
use std::fmt;
use std::io;

use super::cause::Cause;
use super::client::RefusedClient;

/// The reason for which a connection is refused or closed before its first request.
#[derive(Debug)]
pub(crate) enum RefusedConnection<'a> {
    /// It begins with a TLS handshake.
    Tls(RefusedClient),
    /// It begins with the preface of HTTP/2.
    Http2(RefusedClient),
    /// It begins with a PROXY protocol header, which this listener does not expect.
    ProxyHeader(RefusedClient),
    /// It begins with no PROXY protocol header, which this listener requires.
    NoProxyHeader(RefusedClient),
    /// It begins with something else that is no HTTP, with the error of the parser.
    NotHttp(RefusedClient, &'a dyn Error),
    /// The head of its request is too large.
    HeadTooLarge,
    /// The head of its request did not end within this many seconds.
    SlowHead(u64),
    /// The address has its maximum of connections, and as many more that wait for the answer that
    /// refuses them.
    AddressFlood {
        /// The maximum of an address.
        most: u32,
    },
    /// The shard has its maximum of HTTP connections, and idle ones are closed for new ones.
    Crowded {
        /// The maximum of a shard.
        most: u32,
    },
    /// `accept4(2)` failed.
    Accept(&'a io::Error),
    /// The ring did not take its socket, or the kernel gave no random number for its socket id.
    TakeOver(&'a io::Error),
}

impl RefusedConnection<'_> {
    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::Tls(_) => Cause::Tls,
            Self::Http2(_) => Cause::Http2,
            Self::ProxyHeader(_) => Cause::ProxyHeader,
            Self::NoProxyHeader(_) => Cause::NoProxyHeader,
            Self::NotHttp(..) => Cause::NotHttp,
            Self::HeadTooLarge => Cause::HeadTooLarge,
            Self::SlowHead(_) => Cause::SlowHead,
            Self::AddressFlood { .. } => Cause::AddressFlood,
            Self::Crowded { .. } => Cause::Crowded,
            Self::Accept(_) | Self::TakeOver(_) => Cause::Kernel,
        }
    }
}

impl fmt::Display for RefusedConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(peer) => write!(
                f,
                "{peer} speaks TLS to this port; it is plain: set REVERB_SCHEME=http for clients \
                 that connect directly (forceTLS: false in Echo), or put nginx in front to \
                 terminate TLS"
            ),
            Self::Http2(peer) => write!(
                f,
                "{peer} speaks HTTP/2 to this port; it takes HTTP/1.1: set proxy_http_version 1.1 \
                 in the proxy"
            ),
            Self::ProxyHeader(peer) => write!(
                f,
                "{peer} sends a header of the PROXY protocol to this port, which does not expect one: \
                 listen on tcp+proxy:// or unix+proxy:// there, or switch it off in the load \
                 balancer"
            ),
            Self::NoProxyHeader(peer) => write!(
                f,
                "{peer} sends no header of the PROXY protocol, which this listener requires: switch \
                 it on in the load balancer, or listen without +proxy"
            ),
            Self::NotHttp(peer, error) => write!(
                f,
                "{peer} sends something that is no HTTP/1.1 request ({error}), so the connection \
                 is closed: find out which program connects from there"
            ),
            Self::HeadTooLarge => f.write_str(
                "request refused with 431: its head is larger than 16 KiB or has too many headers; \
                 cookies are part of it",
            ),
            Self::SlowHead(seconds) => write!(
                f,
                "connection closed: the head of its request did not end within {seconds} s \
                 (server.header_timeout)"
            ),
            Self::AddressFlood { most } => write!(
                f,
                "connection closed without an answer: its address has {most} connections, the \
                 maximum of an address (server.max_connections_per_address), and as many more \
                 wait for the answer that refuses them"
            ),
            Self::Crowded { most } => write!(
                f,
                "idle HTTP connections are closed to make room for new ones: a shard serves {most} \
                 at a time; if they are connections of your own publishers, raise \
                 server.max_http_connections and the limit of open files (ulimit -n, \
                 LimitNOFILE=)"
            ),
            Self::Accept(error) => write!(
                f,
                "connections cannot be accepted: {error}; new ones wait in the kernel until a retry \
                 succeeds: raise the limit of open files (ulimit -n, LimitNOFILE=)"
            ),
            Self::TakeOver(error) => write!(
                f,
                "a WebSocket is closed because its shard cannot take its socket over: {error}; \
                 `ringwave doctor` shows what this host lacks"
            ),
        }
    }
}
