//! The source addresses of connections. One address has some 28,000 ports for one server, so a
//! large storm needs several.

use std::error::Error;
use std::fmt;
use std::net::{AddrParseError, Ipv4Addr};
use std::str::FromStr;

use ipnet::Ipv4Net;

/// The addresses that connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceAddresses {
    /// The kernel chooses the address.
    Any,
    /// Connections take turns on these addresses.
    Range {
        /// The first address.
        first: Ipv4Addr,
        /// The number of addresses, at least one.
        count: u32,
    },
}

impl SourceAddresses {
    /// Addresses of the loopback network for so many connections: enough that the kernel finds a
    /// free port at once, and different ones in every run, so that ports of an earlier run in
    /// TIME-WAIT are not in the way.
    #[must_use]
    pub fn loopback(connections: u32, run: u32) -> Self {
        let count = connections / PORTS_PER_SOURCE + 8;
        let first = Ipv4Addr::new(127, 16 + (run % 200) as u8, (run >> 8) as u8, 1);
        Self::Range { first, count }
    }

    /// The address of connection number `index`, unless the kernel chooses it.
    #[must_use]
    pub const fn address(&self, index: u32) -> Option<Ipv4Addr> {
        match self {
            Self::Any => None,
            Self::Range { first, count } => {
                Some(Ipv4Addr::from_bits(first.to_bits() + index % *count))
            }
        }
    }
}

/// The ports that are used of the 28,232 that a source address has by default: few enough that a
/// free one is found at once.
const PORTS_PER_SOURCE: u32 = 8192;

/// The largest network whose addresses can be used: 16 million.
const PREFIX_LEN_MIN: u8 = 8;

/// The text is not a range of source addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAddressesError {
    /// The text is neither `a.b.c.d` nor `a.b.c.d/bits`.
    Form {
        /// The text.
        text: String,
        /// The reason why it is no address.
        cause: Option<AddrParseError>,
    },
    /// The network is larger than a /8.
    TooLarge(Ipv4Net),
}

impl fmt::Display for SourceAddressesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form { text, .. } => {
                write!(f, "{text:?} is not an IPv4 address or network (a.b.c.d or a.b.c.d/bits)")
            }
            Self::TooLarge(network) => {
                write!(
                    f,
                    "{network} is too large: the prefix must have {PREFIX_LEN_MIN} bits or more"
                )
            }
        }
    }
}

impl Error for SourceAddressesError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Form { cause, .. } => cause.as_ref().map(|cause| cause as _),
            Self::TooLarge(_) => None,
        }
    }
}

impl FromStr for SourceAddresses {
    type Err = SourceAddressesError;

    /// Reads `a.b.c.d`, or `a.b.c.d/bits` for the hosts of that network.
    fn from_str(text: &str) -> Result<Self, SourceAddressesError> {
        let network = if text.contains('/') {
            text.parse()
                .map_err(|_| SourceAddressesError::Form { text: text.to_owned(), cause: None })
        } else {
            text.parse::<Ipv4Addr>().map(Ipv4Net::from).map_err(|cause| {
                SourceAddressesError::Form { text: text.to_owned(), cause: Some(cause) }
            })
        };
        let network: Ipv4Net = network?;
        if network.prefix_len() < PREFIX_LEN_MIN {
            return Err(SourceAddressesError::TooLarge(network));
        }
        // The network's own address and its broadcast address are not among them.
        let hosts = network.hosts();
        let first = hosts.clone().next().unwrap_or_else(|| network.addr());
        Ok(Self::Range { first, count: hosts.count() as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_the_range_of_its_hosts() {
        let range = |first, count| Ok(SourceAddresses::Range { first, count });
        assert_eq!("10.1.2.3/24".parse(), range(Ipv4Addr::new(10, 1, 2, 1), 254));
        assert_eq!("10.1.2.3/31".parse(), range(Ipv4Addr::new(10, 1, 2, 2), 2));
        assert_eq!("127.0.0.0/8".parse(), range(Ipv4Addr::new(127, 0, 0, 1), (1 << 24) - 2));
        let one: SourceAddresses = "10.1.2.3".parse().unwrap();
        assert_eq!(one.address(5), Some(Ipv4Addr::new(10, 1, 2, 3)));
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for text in ["", "1.2.3", "1.2.3.4/33", "::1", "1.2.3.4/"] {
            let error = text.parse::<SourceAddresses>().unwrap_err();
            assert!(error.to_string().contains("a.b.c.d/bits"), "{error}");
            assert_eq!(error.source().is_some(), !text.contains('/'), "{text}");
        }
        let error = "1.2.3.4/2".parse::<SourceAddresses>().unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }

    #[test]
    fn loopback_addresses_stay_in_the_loopback_network() {
        for run in [0, u32::MAX] {
            let sources = SourceAddresses::loopback(1_000_000, run);
            assert!((0..1000).all(|index| sources.address(index).unwrap().is_loopback()));
        }
    }
}
