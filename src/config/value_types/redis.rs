//! Servers of Redis, by a URL or an address, as Laravel, its clients and their peers write them.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::cluster::RedisAddress;
use crate::config::raw_value::{RawValue, RejectedValue, WITHHELD};
use crate::config::value_type::ValueType;

/// A list of servers.
pub(crate) struct RedisServers {
    /// The port of a server that names none.
    pub(crate) port: u16,
    /// The number of servers that there have to be.
    pub(crate) at_least: usize,
}

/// A server, and what its URL says beside the address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RedisServer {
    pub(crate) address: RedisAddress,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: Option<u32>,
    /// The names of the parameters of the query that say nothing about these.
    pub(crate) ignored: Vec<String>,
}

impl ValueType for RedisServers {
    type Value = Vec<RedisServer>;

    fn parse(&self, raw: &RawValue) -> Result<Vec<RedisServer>, RejectedValue> {
        let items = match raw {
            RawValue::Text(text) => items(text),
            _ => raw.items()?,
        };
        let parse = |item: &String| RedisServer::parse(item, self.port).ok_or_else(|| part(item));
        let servers: Vec<_> = items.iter().map(parse).collect::<Result<_, _>>()?;
        if servers.len() < self.at_least { Err(raw.into()) } else { Ok(servers) }
    }

    fn expected(&self) -> String {
        "`HOST:PORT`, `redis://` or `rediss://` (TLS) with `USER:PASSWORD@HOST:PORT/DATABASE`, user \
         and password percent-encoded, or `unix:///PATH`"
            .into()
    }

    fn display(&self, value: &Vec<RedisServer>) -> String {
        let url = |server: &RedisServer| server.url(&|_| WITHHELD.to_owned());
        value.iter().map(url).collect::<Vec<_>>().join(", ")
    }

    fn canonical(&self, value: &Vec<RedisServer>) -> String {
        value.iter().map(|server| server.url(&encoded) + "\n").collect()
    }
}

/// The part of a list that is no server. One with a user or a query may hold a password.
fn part(item: &str) -> RejectedValue {
    if item.contains(['@', '?']) { RejectedValue::withheld() } else { RejectedValue::item(item) }
}

/// Splits a list with commas. A password may have commas, so in a list with one a comma has to be
/// followed by a scheme.
fn items(text: &str) -> Vec<String> {
    let is_url = |rest: &str| {
        let scheme = rest.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| scheme.bytes().all(|b| b.is_ascii_alphabetic() || b == b'+'))
    };
    let mut items: Vec<String> = Vec::new();
    for piece in text.split(',') {
        match items.last_mut() {
            Some(item) if text.contains('@') && !is_url(piece.trim_start()) => {
                item.push(',');
                item.push_str(piece);
            }
            _ => items.push(piece.trim_start().to_owned()),
        }
    }
    let trimmed = items.iter().map(|item| item.trim().to_owned());
    trimmed.filter(|item| !item.is_empty()).collect()
}

impl RedisServer {
    /// Reads a URL or an address. `None` if it is neither.
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => (String::new(), text),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut server = match scheme.as_str() {
            "" if place.starts_with('/') => Self::unix(place)?,
            "unix" | "redis+unix" => Self::unix(place)?,
            "" | "redis" | "tcp" => Self::tcp(place, false, default_port)?,
            "rediss" | "tls" => Self::tcp(place, true, default_port)?,
            _ => return None,
        };
        server.take_query(query)?;
        Some(server)
    }

    fn unix(place: &str) -> Option<Self> {
        let (login, path) = place.split_at_checked(place.find('/')?)?;
        let login = if login.is_empty() { None } else { Some(login.strip_suffix('@')?) };
        let usable = path.len() > 1 && !path.contains('\0');
        usable.then(|| Self::at(RedisAddress::Unix(PathBuf::from(path)), login))?
    }

    fn tcp(place: &str, tls: bool, default_port: u16) -> Option<Self> {
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let (host, port) = host_and_port(host)?;
        let port = port.unwrap_or(default_port);
        let mut server = Self::at(RedisAddress::Tcp { host: host.to_owned(), port, tls }, login)?;
        server.database = if path.is_empty() { None } else { Some(number(path)?) };
        Some(server)
    }

    /// A server with the login that the URL has in front of its host: `USER:PASSWORD`.
    fn at(address: RedisAddress, login: Option<&str>) -> Option<Self> {
        let login = login.unwrap_or_default();
        let (username, password) = login.split_once(':').unwrap_or((login, ""));
        let [username, password] = [decoded(username)?, decoded(password)?].map(not_empty);
        Some(Self { address, username, password, database: None, ignored: Vec::new() })
    }

    /// Takes the parameters that Laravel takes, and those that the URLs of unix sockets have.
    fn take_query(&mut self, query: &str) -> Option<()> {
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.replace('+', " ");
            match name {
                "username" | "user" => self.username = not_empty(decoded(&value)?),
                "password" | "pass" => self.password = not_empty(decoded(&value)?),
                "database" | "db" => self.database = Some(number(&value)?),
                _ => self.ignored.push(name.escape_debug().to_string()),
            }
        }
        Some(())
    }

    /// The server as a URL. `secret` writes the password.
    fn url(&self, secret: &dyn Fn(&str) -> String) -> String {
        let mut url = self.address.to_string();
        let login = match (&self.username, &self.password) {
            (None, None) => String::new(),
            (Some(username), None) => format!("{}@", encoded(username)),
            (username, Some(password)) => {
                format!("{}:{}@", encoded(username.as_deref().unwrap_or("")), secret(password))
            }
        };
        if let Some(at) = url.find("://") {
            url.insert_str(at + "://".len(), &login);
        }
        if let Some(database) = self.database {
            let sign = if matches!(self.address, RedisAddress::Unix(_)) { "?db=" } else { "/" };
            url.push_str(&format!("{sign}{database}"));
        }
        url
    }
}

/// The host without the brackets of IPv6, and the port.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (named(host)?, Some(port)),
            None => (named(text)?, None),
        },
    };
    let Some(port) = port else { return Some((host, None)) };
    let port = number(port).and_then(|port| u16::try_from(port).ok()).filter(|&port| port > 0)?;
    Some((host, Some(port)))
}

/// A name of the DNS or an IPv4 address. Names in containers may have underscores.
fn named(host: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (!host.is_empty() && host.bytes().all(plain)).then_some(host)
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The text behind percent escapes. `None` if it is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

fn not_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The address that Laravel's connectors make of a scheme, a host and a port. The host may have a
/// scheme itself, or be the path of a unix socket.
pub(crate) fn address_of_parts(scheme: Option<&str>, host: &str, port: Option<&str>) -> String {
    let is_unix = host.starts_with('/') || host.to_ascii_lowercase().starts_with("unix:");
    if is_unix {
        return host.to_owned();
    }
    let bare_ipv6 = host.parse::<Ipv6Addr>().is_ok();
    let host = if bare_ipv6 { format!("[{host}]") } else { host.to_owned() };
    let prefix = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    let has_prefix = host.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(&prefix));
    let url = if has_prefix { host } else { prefix + &host };
    with_port(&url, port)
}

/// A URL or an address with this port, unless it has one or is a path.
pub(crate) fn with_port(url: &str, port: Option<&str>) -> String {
    let Some(port) = port else { return url.to_owned() };
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let end = url.get(start..).and_then(|rest| rest.find(['/', '?'])).map(|at| start + at);
    let (authority, rest) = url.split_at_checked(end.unwrap_or(url.len())).unwrap_or((url, ""));
    let host = authority.get(start..).unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let has_port = host.rsplit_once(']').map_or(host, |(_, behind)| behind).contains(':');
    if host.is_empty() || has_port { url.to_owned() } else { format!("{authority}:{port}{rest}") }
}

#[cfg(test)]
mod tests;
