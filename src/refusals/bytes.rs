//! Connections that are refused by their first bytes, or before these.

use std::error::Error;
use std::fmt;
use std::io;

use super::{Cause, Sender};

/// The reasons why the bytes of a connection are refused.
#[derive(Debug)]
pub(crate) enum Bytes<'a> {
    /// A TLS handshake.
    Tls(Sender),
    /// The preface of HTTP/2.
    Http2(Sender),
    /// A header of the PROXY protocol to a listener that takes none.
    ProxyHeader(Sender),
    /// None to a listener that takes nothing else.
    NoProxyHeader(Sender),
    /// Something else, with the parser's words for it.
    NotHttp(Sender, &'a dyn Error),
    /// A head of a request that is too large.
    HeadTooLarge,
    /// A head that did not end within so many seconds.
    SlowHead(u64),
    /// The address has as many connections as it may, and as many that wait to be told so.
    AddressFlood {
        /// How many it may have.
        most: u32,
    },
    /// A shard has as many HTTP connections as it may: idle ones are closed for new ones.
    Crowded {
        /// How many it may have.
        most: u32,
    },
    /// `accept4(2)` fails.
    Accept(&'a io::Error),
    /// The ring does not take a socket, or there are no random numbers for its name.
    TakeOver(&'a io::Error),
}

impl Bytes<'_> {
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

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(peer) => write!(
                f,
                "{peer} speaks TLS to this port; it is plain: REVERB_SCHEME=http for clients that \
                 come here directly (forceTLS: false in Echo), or put nginx in front, which ends \
                 TLS"
            ),
            Self::Http2(peer) => write!(
                f,
                "{peer} speaks HTTP/2 to this port; it takes HTTP/1.1: set proxy_http_version 1.1 \
                 in the proxy"
            ),
            Self::ProxyHeader(peer) => write!(
                f,
                "{peer} sends a header of the PROXY protocol to this port, which takes none: listen \
                 on tcp+proxy:// or unix+proxy:// there, or switch it off in the balancer"
            ),
            Self::NoProxyHeader(peer) => write!(
                f,
                "{peer} sends no header of the PROXY protocol, without which this listener closes \
                 connections: switch it on in the balancer, or listen without +proxy"
            ),
            Self::NotHttp(peer, what) => write!(
                f,
                "{peer} sends something that is no HTTP/1.1 request ({what}): closed; see which \
                 program connects from there"
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
                "connection closed without an answer: its address has {most} connections, as many \
                 as one may (server.max_connections_per_address), and more wait to be told so"
            ),
            Self::Crowded { most } => write!(
                f,
                "idle HTTP connections are closed to make room for new ones: a shard serves {most} \
                 at a time; if they are your own, raise server.max_http_connections and the limit \
                 of open files (ulimit -n, LimitNOFILE=)"
            ),
            Self::Accept(error) => write!(
                f,
                "connections cannot be accepted: {error}; it is tried again until it succeeds, and \
                 meanwhile they wait: raise the limit of open files (ulimit -n, LimitNOFILE=)"
            ),
            Self::TakeOver(error) => write!(
                f,
                "a WebSocket cannot be taken over by its shard and is closed: {error}; \
                 `ringwave doctor` tells what this host lacks"
            ),
        }
    }
}
