//! Values that name parts of the network: addresses, listeners, proxies and origins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::raw_value::{RawValue, RejectedValue};
use crate::config::value_type::{FlagArgument, ValueType};
use crate::config::values::{ListenAddr, ListenerConfig};
use crate::front::Opening;
use crate::front::address::{Trusted, TrustedProxies};
use crate::protocol::origin::Origins;

/// An address of this host. Names other than `localhost` are refused: what they mean can change
/// between two starts.
pub(crate) struct HostAddress;

impl ValueType for HostAddress {
    type Value = IpAddr;

    const ARGUMENT: FlagArgument = FlagArgument::One("ADDRESS");

    fn parse(&self, raw: &RawValue) -> Result<IpAddr, RejectedValue> {
        let address = match raw {
            RawValue::Text(text) => parse_host(text),
            _ => None,
        };
        address.ok_or_else(|| raw.into())
    }

    fn expected(&self) -> String {
        "an IPv4 address, an IPv6 address in brackets, or `localhost`".into()
    }

    fn display(&self, value: &IpAddr) -> String {
        match value {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }
}

fn parse_host(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Addresses to listen on.
pub(crate) struct ListenAddresses;

impl ValueType for ListenAddresses {
    type Value = Vec<ListenerConfig>;

    const ARGUMENT: FlagArgument = FlagArgument::Many("ADDRESS");

    fn parse(&self, raw: &RawValue) -> Result<Self::Value, RejectedValue> {
        let parse = |item: &String| parse_listener(item).ok_or_else(|| RejectedValue::item(item));
        raw.items()?.iter().map(parse).collect()
    }

    fn expected(&self) -> String {
        "`tcp://HOST:PORT` or `unix:///PATH`, `tcp+proxy://` or `unix+proxy://` for the PROXY \
         protocol, any number of them"
            .into()
    }

    fn display(&self, value: &Self::Value) -> String {
        let item = |listener: &ListenerConfig| {
            let proxy = match listener.opening {
                Opening::Http => "",
                Opening::ProxyHeader => "+proxy",
            };
            match &listener.address {
                ListenAddr::Tcp(address) => format!("tcp{proxy}://{address}"),
                ListenAddr::Unix(path) => format!("unix{proxy}://{}", path.display()),
            }
        };
        value.iter().map(item).collect::<Vec<_>>().join(", ")
    }
}

fn parse_listener(text: &str) -> Option<ListenerConfig> {
    let (scheme, address) = text.split_once("://")?;
    let (scheme, opening) = match scheme.strip_suffix("+proxy") {
        Some(scheme) => (scheme, Opening::ProxyHeader),
        None => (scheme, Opening::Http),
    };
    let address = match scheme {
        "unix" => parse_unix(address)?,
        "tcp" => parse_tcp(address)?,
        _ => return None,
    };
    Some(ListenerConfig { address, opening })
}

fn parse_unix(path: &str) -> Option<ListenAddr> {
    let usable = path.starts_with('/') && path.len() > 1 && !path.contains('\0');
    usable.then(|| ListenAddr::Unix(PathBuf::from(path)))
}

fn parse_tcp(text: &str) -> Option<ListenAddr> {
    let (host, port) = text.rsplit_once(':')?;
    // Without brackets the last group of an IPv6 address would be taken for the port.
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|&port: &u16| digits && port > 0)?;
    Some(ListenAddr::Tcp(SocketAddr::new(parse_host(host)?, port)))
}

/// The address of the listener for operators.
pub(crate) struct AdminAddress;

impl ValueType for AdminAddress {
    type Value = SocketAddr;

    const ARGUMENT: FlagArgument = FlagArgument::One("ADDRESS");

    fn parse(&self, raw: &RawValue) -> Result<SocketAddr, RejectedValue> {
        let address = match raw {
            RawValue::Text(text) => parse_tcp(text),
            _ => None,
        };
        match address {
            Some(ListenAddr::Tcp(address)) => Ok(address),
            _ => Err(raw.into()),
        }
    }

    fn expected(&self) -> String {
        "`HOST:PORT`".into()
    }

    fn display(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// Proxies whose word on client addresses is believed.
pub(crate) struct Proxies;

impl ValueType for Proxies {
    type Value = TrustedProxies;

    fn parse(&self, raw: &RawValue) -> Result<TrustedProxies, RejectedValue> {
        let items = raw.items()?;
        if matches!(items.as_slice(), [word] if word == NOBODY) {
            return Ok(TrustedProxies::default());
        }
        let parse = |item: &String| item.parse::<Trusted>().map_err(|()| RejectedValue::item(item));
        items.iter().map(parse).collect()
    }

    fn expected(&self) -> String {
        format!(
            "a list of addresses, networks (`10.0.0.0/8`, `2001:db8::/32`) and the word `unix` for \
             unix sockets, or `{NOBODY}`"
        )
    }

    fn display(&self, value: &TrustedProxies) -> String {
        let shown: Vec<_> = value.iter().map(ToString::to_string).collect();
        if shown.is_empty() { NOBODY.to_owned() } else { shown.join(", ") }
    }
}

const NOBODY: &str = "none";

/// Origins of browsers, kept with the text that they were read from.
pub(crate) struct OriginPatterns;

/// The value of [`OriginPatterns`].
pub(crate) struct AllowedOrigins {
    pub(crate) origins: Origins,
    text: String,
}

impl ValueType for OriginPatterns {
    type Value = AllowedOrigins;

    fn parse(&self, raw: &RawValue) -> Result<AllowedOrigins, RejectedValue> {
        let patterns = raw.items()?;
        for pattern in &patterns {
            if Origins::parse(std::slice::from_ref(pattern)).is_err() {
                return Err(RejectedValue::item(pattern));
            }
        }
        let origins = Origins::parse(&patterns).map_err(|_| RejectedValue::from(raw))?;
        Ok(AllowedOrigins { origins, text: patterns.join(", ") })
    }

    fn expected(&self) -> String {
        "a list of hosts (`example.com`, `*.example.com`, `example.com:8443`), \
         origins (`https://example.com`) or `*` for all"
            .into()
    }

    fn display(&self, value: &AllowedOrigins) -> String {
        value.text.clone()
    }
}
