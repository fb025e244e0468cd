//! The entry points of the front for the targets of `tests/fuzz`, which reach them through
//! `testing`.

use std::net::IpAddr;

use hyper::header::HeaderMap;

use super::address::{Peer, TrustedProxies};
use super::proxy_header::{self, Header, Start};

/// The client behind a request from this address, or over a unix socket.
#[must_use]
pub fn client(proxies: &TrustedProxies, peer: Option<IpAddr>, head: &HeaderMap) -> Option<IpAddr> {
    proxies.client(peer.map_or(Peer::Unix, Peer::of), head)
}

/// The reading of the first bytes of a connection that should begin with a header of the PROXY
/// protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A header of this length, with the client's address if it has one.
    Whole(usize, Option<IpAddr>),
    /// A possible beginning of a header.
    Partial,
    /// No header.
    Wrong,
}

/// Reads the header at the beginning of `bytes`.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> Beginning {
    match proxy_header::parse(bytes) {
        Start::Whole(Header { client, len }) => Beginning::Whole(len, client),
        Start::Partial => Beginning::Partial,
        Start::Wrong => Beginning::Wrong,
    }
}
