//! The address of the client that sent a request. Behind a proxy, only the proxy knows it.
//!
//! A proxy appends to `X-Forwarded-For` or `Forwarded` (RFC 7239) the address that it accepted
//! from. Addresses left of that one came with the request, and the client may have forged them. So
//! addresses are read from the right, and believed for as long as a trusted proxy wrote them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::refusals::RefusedClient;

use super::headers::{RequestHeaders, text};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A peer over TCP, or the client that the PROXY protocol names.
    Address(IpAddr),
    /// A process of this host, over a unix socket.
    Unix,
}

impl Peer {
    pub(super) const fn of(address: IpAddr) -> Self {
        // A dual-stack listener reports IPv4 clients as IPv4-mapped IPv6 addresses.
        Self::Address(address.to_canonical())
    }

    /// The peer as the log names it.
    pub(super) const fn sender(self) -> RefusedClient {
        RefusedClient::Address(self.address())
    }

    const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Unix => None,
        }
    }
}

/// The unit by which clients are counted: an IPv4 address, or the /64 of an IPv6 address, because
/// one host has a whole /64 and uses any of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientNetwork(IpAddr);

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & HOSTS_NETWORK)))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

const HOSTS_NETWORK: u128 = u128::MAX << 64;

/// The proxies whose word on a client's address is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Trusted>);

/// A trusted proxy, or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Every peer that connects from this network.
    Network(IpNet),
    /// Every peer that connects over a unix socket.
    Unix,
}

impl FromStr for Trusted {
    type Err = ();

    /// Reads an address, a network in CIDR notation, or the word `unix`.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| text.parse::<IpNet>()).map_err(|_| ())?;
        Ok(Self::Network(canonical(network).trunc()))
    }
}

/// The network as its addresses are compared: one of IPv4-mapped IPv6 addresses is one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpAddr::V4(address) = network.addr().to_canonical() else { return network };
    let prefix_len = network.prefix_len().checked_sub(MAPPED_PREFIX_LEN);
    prefix_len.and_then(|len| Ipv4Net::new(address, len).ok()).map_or(network, IpNet::V4)
}

/// The bits before the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX_LEN: u8 = 96;

impl fmt::Display for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

impl FromIterator<Trusted> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = Trusted>>(list: I) -> Self {
        Self(list.into_iter().collect())
    }
}

impl TrustedProxies {
    /// All trusted proxies, as configured.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Trusted> {
        self.0.iter()
    }

    /// Whether this peer's word on its clients is trusted.
    pub(super) fn trust(&self, peer: Peer) -> bool {
        self.0.iter().any(|trusted| match (trusted, peer) {
            (Trusted::Network(network), Peer::Address(address)) => network.contains(&address),
            (Trusted::Unix, Peer::Unix) => true,
            (Trusted::Network(_), Peer::Unix) | (Trusted::Unix, Peer::Address(_)) => false,
        })
    }

    /// The client behind a request that came from `peer`: the right-most address that is not of a
    /// trusted proxy. It is the peer itself if the peer is not trusted, or names no address that
    /// can be read. `None` if such a peer came over a unix socket.
    pub(super) fn client(
        &self,
        peer: Peer,
        headers: &(impl RequestHeaders + ?Sized),
    ) -> Option<IpAddr> {
        let told = self.trust(peer).then(|| self.told(headers)).flatten();
        told.or_else(|| peer.address())
    }

    fn told(&self, headers: &(impl RequestHeaders + ?Sized)) -> Option<IpAddr> {
        let mut farthest = None;
        for hop in hops(headers).into_iter().rev() {
            let address = hop?;
            if !self.trust(Peer::Address(address)) {
                return Some(address);
            }
            farthest = Some(address);
        }
        // All addresses are of trusted proxies, so the first one is the client.
        farthest
    }
}

/// The addresses that a request came through, the client's first; `None` stands for an element that
/// is not an address. A proxy that appends to one of the two headers passes the other one on as the
/// client sent it, so only the usual one counts if both are there.
fn hops(headers: &(impl RequestHeaders + ?Sized)) -> Vec<Option<IpAddr>> {
    if headers.values(X_FORWARDED_FOR).next().is_some() {
        return named(headers, X_FORWARDED_FOR, |value| {
            elements(value, |_| false).map(|element| node(element.trim())).collect()
        });
    }
    named(headers, FORWARDED, forwarded)
}

fn named(
    headers: &(impl RequestHeaders + ?Sized),
    name: &'static str,
    hops: impl Fn(&str) -> Vec<Option<IpAddr>>,
) -> Vec<Option<IpAddr>> {
    headers.values(name).flat_map(|value| text(value).map_or_else(|| vec![None], &hops)).collect()
}

/// The elements of a list (RFC 9110 section 5.6.1), without empty ones. `quotes` says which
/// characters begin and end a text in which commas separate nothing.
fn elements(value: &str, quotes: fn(char) -> bool) -> impl Iterator<Item = &str> {
    parts(value, ',', quotes).filter(|element| !element.trim().is_empty())
}

fn parts(text: &str, separator: char, quotes: fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c: char| {
        quoted ^= quotes(c);
        c == separator && !quoted
    })
}

/// The address of each element of `for=192.0.2.43, for="[2001:db8::17]:4711";proto=https`.
fn forwarded(value: &str) -> Vec<Option<IpAddr>> {
    let quotes = |c| c == '"';
    let address = |element| {
        let mut pairs = parts(element, ';', quotes).filter_map(|pair| pair.split_once('='));
        let (_, text) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
        let text = text.trim();
        // No address has a character that has to be escaped.
        node(text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text))
    };
    elements(value, quotes).map(address).collect()
}

/// Reads an address, with a port or without: `192.0.2.43`, `192.0.2.43:47011`, `2001:db8::17`,
/// `[2001:db8::17]:47011`.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text.parse::<IpAddr>().ok();
    let address = address.or_else(|| bracketed().map(IpAddr::V6));
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address| address.to_canonical())
}

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn trusting(list: &[&str]) -> TrustedProxies {
        list.iter().map(|text| text.parse::<Trusted>().unwrap()).collect()
    }

    fn peer(text: &str) -> Peer {
        text.parse().map_or(Peer::Unix, Peer::of)
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let parsed = |value| HeaderValue::from_bytes(str::as_bytes(value)).unwrap();
        lines.iter().map(|&(name, v)| (HeaderName::from_static(name), parsed(v))).collect()
    }

    #[track_caller]
    fn assert_client(proxies: &[&str], from: &str, lines: &[(&'static str, &str)], client: &str) {
        let found = trusting(proxies).client(peer(from), &headers(lines));
        assert_eq!(found, client.parse().ok(), "{lines:?}");
    }

    #[test]
    fn a_network_is_the_same_however_its_family_is_written() {
        for (text, shown) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("2001:db8::1/64", "2001:db8::/64"),
        ] {
            let trusted = text.parse::<Trusted>().unwrap();
            assert_eq!(trusted.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(trusted), "{text}");
        }
        let lines = [("x-forwarded-for", "203.0.113.9")];
        assert_client(&["::ffff:10.0.0.0/104"], "10.1.2.3", &lines, "203.0.113.9");
    }

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        for header in ["x-forwarded-for", "forwarded"] {
            for value in ["203.0.113.9", "for=203.0.113.9"] {
                let lines = [(header, value)];
                assert_client(&[], "192.0.2.1", &lines, "192.0.2.1");
                assert_client(&["unix", "10.0.0.0/8"], "192.0.2.1", &lines, "192.0.2.1");
                assert_client(&["192.0.2.1"], "unix", &lines, "none");
            }
        }
    }

    #[test]
    fn the_right_most_address_that_is_not_a_proxys_is_the_client() {
        let proxies = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32", "unix"];
        for (value, client) in [
            ("203.0.113.9", "203.0.113.9"),
            ("198.51.100.7, 203.0.113.9", "203.0.113.9"),
            ("198.51.100.7 ,203.0.113.9,10.1.2.3", "203.0.113.9"),
            ("1.1.1.1, 203.0.113.9:4711, 2001:db8::1, [2001:db8::2]:80", "203.0.113.9"),
            ("2001:470::9", "2001:470::9"),
            ("[2001:470::9]", "2001:470::9"),
            ("[2001:470::9]:443", "2001:470::9"),
            ("::ffff:203.0.113.9, ::ffff:10.0.0.1", "203.0.113.9"),
            ("nonsense, 203.0.113.9", "203.0.113.9"),
            (",203.0.113.9, ,", "203.0.113.9"),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ] {
            assert_client(&proxies, "127.0.0.1", &[("x-forwarded-for", value)], client);
            assert_client(&proxies, "unix", &[("x-forwarded-for", value)], client);
            assert_client(&proxies, "::ffff:127.0.0.1", &[("x-forwarded-for", value)], client);
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (value, client) in [
            ("for=203.0.113.9", "203.0.113.9"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
            ("for=192.0.2.43;host=\"a, for=6.6.6.6;\", for=127.0.0.1", "192.0.2.43"),
            ("proto=https;for=\"192.0.2.43:47011\"", "192.0.2.43"),
            ("for=unknown", "127.0.0.1"),
            ("for=_hidden, for=127.0.0.1", "127.0.0.1"),
            ("proto=https", "127.0.0.1"),
            ("for=\"192.0.2.43", "127.0.0.1"),
        ] {
            assert_client(&["127.0.0.1"], "127.0.0.1", &[("forwarded", value)], client);
        }
    }

    #[test]
    fn what_a_client_sends_in_the_other_header_means_nothing() {
        let lines = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.9")];
        assert_client(&["127.0.0.1"], "127.0.0.1", &lines, "203.0.113.9");
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9, 127.0.0.1")];
        assert_client(&["127.0.0.1"], "127.0.0.1", &lines, "203.0.113.9");
    }

    #[test]
    fn what_cannot_be_read_leaves_the_peer() {
        for value in ["nonsense", "1.2.3", "1.2.3.4:", "1.2.3.4:http", "[::1", "::1]", "fe80::1%2"]
        {
            let lines = [("x-forwarded-for", value)];
            assert_client(&["127.0.0.1", "unix"], "127.0.0.1", &lines, "127.0.0.1");
            assert_client(&["127.0.0.1", "unix"], "unix", &lines, "none");
        }
    }

    #[test]
    fn a_host_is_counted_once_however_many_addresses_it_has() {
        let source = |text: &str| ClientNetwork::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn proxies_are_shown_as_they_are_written() {
        for (written, shown) in [
            ("unix", "unix"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::1", "::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(written.parse::<Trusted>().unwrap().to_string(), shown);
        }
        for wrong in ["", "UNIX", "10.0.0.1/33", "10.0.0", "localhost", "10.0.0.0-10.0.0.9"] {
            assert!(wrong.parse::<Trusted>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_left_of_the_proxys_own_word_changes_nothing(
            before in "[ -~]{0,200}",
        ) {
            let last = "203.0.113.9";
            for (name, last) in [("x-forwarded-for", last), ("forwarded", "for=203.0.113.9")] {
                // A quote that is left open would swallow what follows: RFC 7239 has the proxy
                // begin a line of its own then.
                let lines = [(name, before.as_str()), (name, last)];
                let found = trusting(&["unix"]).client(Peer::Unix, &headers(&lines));
                prop_assert_eq!(found, "203.0.113.9".parse().ok());
            }
        }
    }
}
