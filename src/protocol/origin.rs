//! Floor 1. The web pages that may connect: an app's `allowed_origins`.
//!
//! Contract: an origin that is not clearly allowed is refused. An origin is taken apart once and
//! compared by its parts (RFC 6454 section 4), so nothing in front of or behind the host can pose
//! as the host.

use std::fmt;

/// The origins that an app allows. An empty list allows none.
///
/// An entry is one of
/// - `*`: everything, connections without an origin too;
/// - a host, `example.com` or `*.example.com`: any scheme, any port. As in Laravel's `Str::is`,
///   `*` stands for any text, dots included;
/// - a host with a port, `example.com:8080`: any scheme;
/// - an origin, `https://example.com` or `https://*.example.com:8443`: scheme, host and port. One
///   slash at its end, or at that of a host, is dropped;
/// - `null`: pages that have no origin of their own (sandboxed frames, local files).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

impl Origins {
    /// Reads the entries of a list.
    ///
    /// # Errors
    /// One sentence about the first entry that has none of the forms above.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        entries.iter().map(|entry| Pattern::parse(entry)).collect::<Result<_, _>>().map(Self)
    }

    /// Decides by the value of the `Origin` header.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn check(&self, origin: Option<&str>) -> Result<(), OriginRefused> {
        if self.0.contains(&Pattern::Any) {
            return Ok(());
        }
        let origin = origin.ok_or(OriginRefused::Missing)?;
        let allowed = if origin == NULL {
            self.0.contains(&Pattern::Null)
        } else {
            let origin = Origin::parse(origin).ok_or(OriginRefused::Malformed)?;
            self.0.iter().any(|pattern| pattern.matches(&origin))
        };
        if allowed { Ok(()) } else { Err(OriginRefused::NotAllowed) }
    }
}

/// Shows the first entries: `example.com, https://example.org:8443 and 7 more`.
impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no entries");
        }
        for (number, pattern) in self.0.iter().take(ENTRIES_SHOWN).enumerate() {
            write!(f, "{}{pattern}", if number > 0 { ", " } else { "" })?;
        }
        match self.0.len().checked_sub(ENTRIES_SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// The number of entries that a line of the log has room for.
const ENTRIES_SHOWN: usize = 10;

/// The reason why an origin was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginRefused {
    /// The request has no origin, so it is not from a browser.
    Missing,
    /// The origin is not a scheme, a host and perhaps a port.
    Malformed,
    /// No entry of the list allows the origin.
    NotAllowed,
}

impl fmt::Display for OriginRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the request has no origin",
            Self::Malformed => "the origin is malformed",
            Self::NotAllowed => "the origin is not in the list",
        })
    }
}

impl std::error::Error for OriginRefused {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Null,
    /// The parts of an origin in lower case. A pattern with a scheme has the port of the scheme.
    Parts {
        scheme: Option<String>,
        host: String,
        port: Option<u16>,
    },
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, String> {
        match entry {
            "*" => return Ok(Self::Any),
            NULL => return Ok(Self::Null),
            _ => {}
        }
        let refused = || {
            format!("{entry:?} is not an origin: write a host, host:port or scheme://host[:port]")
        };
        let lower = entry.to_ascii_lowercase();
        // An entry may be copied from an address bar; an origin itself never ends in a slash.
        let lower = lower.strip_suffix('/').unwrap_or(&lower);
        let (scheme, authority) = match lower.split_once("://") {
            Some((scheme, authority)) if is_scheme(scheme) => (Some(scheme), authority),
            Some(_) => return Err(refused()),
            None => (None, lower),
        };
        let (host, port) = split_port(authority).ok_or_else(refused)?;
        if !is_host(&host.replace('*', "")) && !is_wildcards(host) {
            return Err(refused());
        }
        let port = port.or_else(|| scheme.and_then(default_port));
        Ok(Self::Parts { scheme: scheme.map(str::to_owned), host: host.to_owned(), port })
    }

    fn matches(&self, origin: &Origin) -> bool {
        let Self::Parts { scheme, host, port } = self else { return false };
        let port_fits = match scheme {
            Some(scheme) => *scheme == origin.scheme && *port == origin.port,
            None => port.is_none() || *port == origin.port,
        };
        port_fits && wildcard_matches(host, &origin.host)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Any => return f.write_str("*"),
            Self::Null => return f.write_str(NULL),
            Self::Parts { scheme, host, port } => (scheme.as_deref(), host, *port),
        };
        if let Some(scheme) = scheme {
            write!(f, "{scheme}://")?;
        }
        f.write_str(host)?;
        match port.filter(|&port| Some(port) != scheme.and_then(default_port)) {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The parts of an `Origin` header in lower case. `port` is the scheme's own if none is written.
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// Reads `scheme://host[:port]` without anything around it: no user, path, query or space.
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://")?;
        let (host, port) = split_port(authority)?;
        (is_scheme(scheme) && is_host(host)).then(|| Self {
            port: port.or_else(|| default_port(scheme)),
            scheme: scheme.to_owned(),
            host: host.to_owned(),
        })
    }
}

/// Splits `host[:port]`. The colons of an IPv6 address are inside of brackets.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_len = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority.get(host_len..)?.find(':').map(|at| at + host_len) else {
        return Some((authority, None));
    };
    let (host, digits) = (authority.get(..colon)?, authority.get(colon + 1..)?);
    // Browsers write a port without sign and leading zeros.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let port = digits.parse().ok().filter(|_| plain)?;
    Some((host, Some(port)))
}

/// Whether this is a scheme by RFC 3986 section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Whether this is a name or an IPv4 address, or an IPv6 address in brackets. Browsers send other
/// letters as punycode.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or_default();
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn is_wildcards(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'*')
}

const fn default_port(scheme: &str) -> Option<u16> {
    match scheme.as_bytes() {
        b"http" | b"ws" => Some(80),
        b"https" | b"wss" => Some(443),
        _ => None,
    }
}

/// Whether `text` is `pattern` with any text in the place of each `*`. No backtracking is needed: a
/// match of each piece as far left as possible leaves the most for the pieces behind it.
fn wildcard_matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(text) = text.strip_prefix(first).and_then(|text| text.strip_suffix(last)) else {
        return false;
    };
    let found = middle
        .split('*')
        .try_fold(text, |text, piece| text.find(piece).and_then(|at| text.get(at + piece.len()..)));
    found.is_some()
}

const NULL: &str = "null";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origins(entries: &[&str]) -> Origins {
        Origins::parse(&entries.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    fn allows(entries: &[&str], origin: &str) -> bool {
        origins(entries).check(Some(origin)).is_ok()
    }

    #[test]
    fn a_star_allows_everything_and_an_empty_list_nothing() {
        let all = origins(&["*"]);
        for origin in [None, Some(""), Some("null"), Some("garbage"), Some("https://a.b")] {
            assert_eq!(all.check(origin), Ok(()));
            assert!(origins(&[]).check(origin).is_err());
        }
    }

    #[test]
    fn without_an_origin_only_a_star_helps() {
        let list = origins(&["good.com", "null", "*.good.com"]);
        assert_eq!(list.check(None), Err(OriginRefused::Missing));
    }

    #[test]
    fn a_host_fits_under_any_scheme_and_port() {
        for origin in
            ["http://good.com", "https://good.com:8443", "HTTPS://GOOD.com", "capacitor://good.com"]
        {
            assert!(allows(&["good.com"], origin), "{origin}");
            assert!(allows(&["Good.Com"], origin), "{origin}");
        }
    }

    #[test]
    fn nothing_poses_as_the_host() {
        let list = ["good.com", "*.good.com", "https://good.com"];
        for origin in [
            "https://evil.com",
            "https://good.evil.com",
            "https://good.com.evil.com",
            "https://evilgood.com",
            "https://good.com.",
            "https://good.com@evil.com",
            "https://good.com:x@evil.com",
            "https://user@good.com",
            "https://good.com/",
            "https://good.com/path",
            "https://good.com?",
            "https://good.com#",
            "https://evil.com/.good.com",
            "https://evil.com#.good.com",
            "https://evil.com\\.good.com",
            "https://evil.com\0.good.com",
            "https://good.com ",
            " https://good.com",
            "https://good.com https://good.com",
            "https://good.com:",
            "https://good.com:0443",
            "https://good.com:+443",
            "https://good.com:65979",
            "https://good.com:443:443",
            "https://:443",
            "https:good.com",
            "//good.com",
            "://good.com",
            "good.com",
            "https://",
            "https://gооd.com",
            "null",
            "",
        ] {
            assert!(!allows(&list, origin), "{origin:?}");
        }
    }

    #[test]
    fn a_full_origin_compares_scheme_and_port() {
        let https = ["https://good.com"];
        assert!(allows(&https, "https://good.com"));
        assert!(allows(&https, "https://good.com:443"));
        assert!(allows(&["https://good.com:443"], "https://good.com"));
        assert!(allows(&["http://good.com"], "http://good.com:80"));
        for origin in ["http://good.com", "https://good.com:80", "https://good.com:8443"] {
            assert!(!allows(&https, origin), "{origin}");
        }
        assert!(allows(&["https://*.good.com:8443"], "https://a.good.com:8443"));
        assert!(!allows(&["https://*.good.com:8443"], "https://a.good.com"));
        assert!(allows(&["ionic://localhost"], "ionic://localhost"));
        assert!(!allows(&["ionic://localhost"], "http://localhost"));
    }

    #[test]
    fn a_slash_behind_an_entry_changes_nothing() {
        for (with, without) in [
            ("https://good.com/", "https://good.com"),
            ("https://*.good.com:8443/", "https://*.good.com:8443"),
            ("good.com/", "good.com"),
            ("good.com:8080/", "good.com:8080"),
        ] {
            assert_eq!(origins(&[with]), origins(&[without]), "{with}");
        }
    }

    #[test]
    fn a_host_with_a_port_fits_under_any_scheme() {
        assert!(allows(&["good.com:8080"], "http://good.com:8080"));
        assert!(allows(&["good.com:443"], "https://good.com"));
        assert!(!allows(&["good.com:8080"], "http://good.com"));
        assert!(allows(&["[::1]:8080"], "http://[::1]:8080"));
        assert!(allows(&["[::1]"], "http://[::1]:8080"));
        assert!(!allows(&["[::1]"], "http://[::2]"));
    }

    #[test]
    fn wildcards_stand_for_any_text() {
        assert!(allows(&["*.good.com"], "https://a.b.good.com"));
        assert!(!allows(&["*.good.com"], "https://good.com"));
        assert!(allows(&["app-*.good.*"], "https://app-1.good.org"));
        assert!(!allows(&["a*a"], "https://a"));
        assert!(allows(&["a**a*"], "https://aa"));
        assert!(!allows(&["*"; 0], "https://aa"));
        assert!(!allows(&["https://*"], "http://good.com"));
        assert!(allows(&["https://*"], "https://good.com"));
    }

    #[test]
    fn null_is_a_value_of_its_own() {
        assert!(allows(&["null"], "null"));
        assert!(!allows(&["good.com", "https://*"], "null"));
        assert!(!allows(&["null"], "https://null"));
    }

    #[test]
    fn entries_that_could_never_match_are_refused() {
        for entry in [
            "",
            "https://",
            "https:///",
            "/",
            "https://good.com//",
            "https://good.com/path",
            "https://good.com/path/",
            "good.com/path",
            "a@good.com",
            "good.com:port",
            "good.com:0",
            "good com",
            "münchen.de",
            "1http://good.com",
            "[::1",
        ] {
            let refused = Origins::parse(&[entry.to_owned()]);
            assert!(refused.is_err_and(|text| text.contains(&format!("{entry:?}"))), "{entry:?}");
        }
    }

    #[test]
    fn a_list_is_shown_as_it_may_be_written() {
        let list =
            ["*", "a.example", "*.B.example:8080", "https://c.example", "https://d:444", "null"];
        let shown = "*, a.example, *.b.example:8080, https://c.example, https://d:444, null";
        assert_eq!(origins(&list).to_string(), shown);
        assert_eq!(origins(&[]).to_string(), "no entries");
        let long = origins(&["a.example"; 12]).to_string();
        assert!(long.ends_with("a.example and 2 more"), "{long}");
    }

    const NEAR_MISSES: &str =
        "(https?|ws)://[a-z.:/@#?\\[\\] 0-9]{0,12}good\\.com[a-z.:/@# 0-9]{0,6}";

    /// The obvious search, exponential where it must be.
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((b'*', tail)), rest) => {
                reference(tail, text) || rest.is_some_and(|(_, rest)| reference(pattern, rest))
            }
            (Some((p, tail)), Some((t, rest))) => p == t && reference(tail, rest),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn wildcards_agree_with_the_obvious_search(
            pattern in "[ab*]{0,6}",
            text in "[ab]{0,8}",
        ) {
            prop_assert_eq!(
                wildcard_matches(&pattern, &text),
                reference(pattern.as_bytes(), text.as_bytes())
            );
        }

        #[test]
        fn whatever_passes_ends_in_the_allowed_host(origin in NEAR_MISSES) {
            let list = origins(&["good.com", "*.good.com"]);
            if list.check(Some(&origin)).is_ok() {
                let (_, authority) = origin.split_once("://").unwrap();
                let host = authority.split(':').next().unwrap();
                prop_assert!(host == "good.com" || host.ends_with(".good.com"));
            }
        }

        #[test]
        fn no_origin_panics(origin in ".*", entry in ".*") {
            if let Ok(list) = Origins::parse(std::slice::from_ref(&entry)) {
                let _ = list.check(Some(&origin));
            }
            prop_assert!(origins(&["good.com"]).check(Some(&origin)).is_err());
        }
    }
}
