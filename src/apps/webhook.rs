//! Floor 2. The webhooks of an app: the kinds of events that there are, and the endpoints that get
//! them.
//!
//! Contract: plain data of the configuration. Names are those of Pusher's webhooks, so that its
//! server libraries read them. `Display` and `Debug` never print a header's value or the query of a
//! URL, which may be secrets.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::uri::{Parts, PathAndQuery, Scheme};

/// The kinds of events that a webhook can have (Pusher's event names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A channel has its first subscriber.
    ChannelOccupied,
    /// A channel has lost its last subscriber.
    ChannelVacated,
    /// A user became a member of a presence channel.
    MemberAdded,
    /// A user is no longer a member of a presence channel.
    MemberRemoved,
    /// A client sent an event to a channel.
    ClientEvent,
    /// A client subscribed to a cache channel that has no cached event.
    CacheMiss,
    /// The number of subscribers of a channel has changed.
    SubscriptionCount,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
    ];

    /// Its name on the wire.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventKinds(u8);

impl EventKinds {
    /// Whether the set has this kind.
    #[must_use]
    pub(crate) const fn contains(self, kind: EventKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether the set has no kind.
    #[must_use]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds of both sets.
    #[must_use]
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Its kinds.
    pub(crate) fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |&kind| self.contains(kind))
    }

    /// The kinds that have to be watched to report these. An arrival and a departure cancel each
    /// other out if one follows the other at once, so reporting either takes both.
    fn watched(self) -> Self {
        let pairs = [
            [EventKind::ChannelOccupied, EventKind::ChannelVacated],
            [EventKind::MemberAdded, EventKind::MemberRemoved],
        ];
        let halves = pairs.into_iter().filter(|pair| pair.iter().any(|&kind| self.contains(kind)));
        self.iter().chain(halves.flatten()).collect()
    }
}

impl FromIterator<EventKind> for EventKinds {
    fn from_iter<T: IntoIterator<Item = EventKind>>(kinds: T) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.bit()))
    }
}

impl fmt::Debug for EventKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The URL of an endpoint, with `http` or `https`. It is shown without its query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// A name or an address, without the brackets of an IPv6 address.
    host: Box<str>,
    port: u16,
    /// Begins with `/`.
    target: PathAndQuery,
}

impl Url {
    /// Reads a URL. One with a user, a password or a fragment is refused: credentials belong into a
    /// header, and nothing receives a fragment. International names have to be given in ASCII
    /// (`xn--`), because certificates have them so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // `Uri` drops a fragment without notice.
        if !text.is_ascii() || text.contains('#') {
            return None;
        }
        let Parts { scheme, authority, path_and_query, .. } =
            text.parse::<Uri>().ok()?.into_parts();
        let (scheme, authority) = (scheme?, authority?);
        let tls = scheme == Scheme::HTTPS;
        if !tls && scheme != Scheme::HTTP {
            return None;
        }
        // The host is at the beginning unless there is a user before it.
        let after_host = authority.as_str().strip_prefix(authority.host())?;
        let port = match after_host {
            "" => default_port(tls),
            _ => port(after_host.strip_prefix(':')?)?,
        };
        let host = host(authority.host())?.into();
        let target = path_and_query?;
        let target = match target.as_str().starts_with('/') {
            true => target,
            false => format!("/{}", target.as_str()).parse().ok()?,
        };
        Some(Self { scheme, host, port, target })
    }

    /// Whether requests go over TLS (`https`).
    #[must_use]
    pub(crate) fn tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// A name or an address; an IPv6 address without brackets.
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port: the given one, or that of the scheme.
    #[must_use]
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as they stand in a request.
    #[must_use]
    pub(crate) const fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// Host and port as they stand in a `Host` header.
    #[must_use]
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.to_string(),
        };
        if self.port == default_port(self.tls()) { host } else { format!("{host}:{}", self.port) }
    }

    /// The whole URL, to be compared and never to be logged.
    #[must_use]
    pub(crate) fn whole(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.target)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority(), self.target.path())?;
        let query = self.target.query().unwrap_or_default();
        f.write_str(if query.is_empty() { "" } else { "?[withheld]" })
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The host without brackets, if it is a name or an address. `Uri` also takes names that no
/// resolver has, and anything in brackets.
fn host(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('[') {
        let host = rest.strip_suffix(']')?;
        return host.parse::<Ipv6Addr>().is_ok().then_some(host);
    }
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (!text.is_empty() && text.chars().all(of_name)).then_some(text)
}

/// A port from 1 on. `Uri` also takes none behind the colon, and numbers that are too large.
fn port(digits: &str) -> Option<u16> {
    let number = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|&port: &u16| number && port > 0)
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// A header that the operator adds to requests. Its value may be a secret and is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name, in lower case.
    pub(crate) name: HeaderName,
    /// The value.
    pub(crate) value: HeaderValue,
}

impl Header {
    /// Reads `Name: value`. Headers that frame the request, or that receivers trust to come from
    /// the gateway, are refused.
    #[must_use]
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_str(name).ok()?;
        let mut value = HeaderValue::from_str(value.trim_ascii()).ok()?;
        value.set_sensitive(true);
        // `HeaderValue` also takes bytes that are no ASCII, which receivers read differently.
        let is_text = value.to_str().is_ok();
        let ours = OUR_HEADERS.contains(&name) || name.as_str().starts_with("x-pusher-");
        (is_text && !ours).then_some(Self { name, value })
    }

    /// The name as people write it: `X-Api-Key`. Names are the same in any case, and requests have
    /// them in lower case.
    #[must_use]
    pub(crate) fn shown_name(&self) -> String {
        let mut shown = self.name.as_str().to_owned();
        let words = self.name.as_str().split_inclusive('-');
        let starts = words.scan(0, |at, word| Some(std::mem::replace(at, *at + word.len())));
        for start in starts {
            if let Some(first) = shown.get_mut(start..=start) {
                first.make_ascii_uppercase();
            }
        }
        shown
    }

    /// The header as a line, to be compared and never to be logged.
    #[must_use]
    pub(crate) fn whole(&self) -> String {
        let value = self.value.to_str();
        // `parse` takes visible ASCII only.
        debug_assert!(value.is_ok(), "a value that is no text");
        format!("{}: {}", self.name, value.unwrap_or_default())
    }
}

/// The headers that the gateway sets, or that change how a request is read.
const OUR_HEADERS: [HeaderName; 10] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [withheld]", self.shown_name())
    }
}

/// One endpoint of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The URL that events are sent to.
    pub url: Url,
    /// The kinds of events that it wants.
    pub events: EventKinds,
    /// Only channels whose names begin with this text. May be empty.
    pub channel_prefix: String,
    /// Only channels whose names end with this text. May be empty.
    pub channel_suffix: String,
    /// Headers of the operator, which each request carries.
    pub headers: Vec<Header>,
    /// The time for which an event waits for others to share its request.
    pub batch_window: Duration,
    /// The most events of one request; at least 1.
    pub batch_max: usize,
    /// The time that name lookup, connection and TLS may take together.
    pub connect_timeout: Duration,
    /// The time that the answer may take.
    pub timeout: Duration,
}

impl Webhook {
    /// Whether it gets events of this kind on this channel.
    #[must_use]
    pub(crate) fn wants(&self, kind: EventKind, channel: &str) -> bool {
        self.events.contains(kind)
            && channel.starts_with(&self.channel_prefix)
            && channel.ends_with(&self.channel_suffix)
    }
}

/// All endpoints of an app.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    list: Vec<Arc<Webhook>>,
    watched: EventKinds,
}

impl Webhooks {
    /// Collects the endpoints of an app.
    #[must_use]
    pub fn new(list: Vec<Webhook>) -> Self {
        let wanted = list.iter().map(|webhook| webhook.events);
        let watched = wanted.fold(EventKinds::default(), EventKinds::union).watched();
        Self { list: list.into_iter().map(Arc::new).collect(), watched }
    }

    /// The kinds that have to be watched for any of the webhooks. Empty if there are none, so that
    /// an app without webhooks pays nothing for them.
    #[must_use]
    pub(crate) const fn watched(&self) -> EventKinds {
        self.watched
    }

    /// The endpoints, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Webhook>> {
        self.list.iter()
    }
}

#[cfg(test)]
pub(crate) fn test_webhook(url: &str) -> Webhook {
    Webhook {
        url: Url::parse(url).unwrap(),
        events: EventKind::ALL.into_iter().collect(),
        channel_prefix: String::new(),
        channel_suffix: String::new(),
        headers: Vec::new(),
        batch_window: Duration::from_millis(50),
        batch_max: 100,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_shown_without_its_query() {
        for (text, tls, host, port, target, shown) in [
            ("http://a", false, "a", 80, "/", "http://a/"),
            ("https://a.example", true, "a.example", 443, "/", "https://a.example/"),
            ("https://a:8443/x/y", true, "a", 8443, "/x/y", "https://a:8443/x/y"),
            ("http://a?t=1", false, "a", 80, "/?t=1", "http://a/?[withheld]"),
            ("http://[::1]:81/p?t", false, "::1", 81, "/p?t", "http://[::1]:81/p?[withheld]"),
            // Schemes are the same in any case (RFC 3986), and tokens of Laravel Sanctum have a
            // bar.
            ("HTTPS://a/", true, "a", 443, "/", "https://a/"),
            ("http://a/?t=1|x", false, "a", 80, "/?t=1|x", "http://a/?[withheld]"),
            ("http://a/1|x", false, "a", 80, "/1|x", "http://a/1|x"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.tls(), url.host(), url.port()), (tls, host, port), "{text}");
            assert_eq!((&*url.target().to_string(), &*url.to_string()), (target, shown), "{text}");
            assert_eq!(Url::parse(&url.whole()), Some(url), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_webhook_is_refused() {
        for text in [
            "",
            "a",
            "ftp://a",
            "http://",
            "http:///x",
            "http://u:p@a/",
            "http://a/#f",
            "http://a b/",
            "http://a:0/",
            "http://a:65536/",
            "http://a:+1/",
            "http://a:/",
            "http://[::1/",
            "http://[a]/",
            "http://ä/",
            "http://a$/",
            "http://u@a/",
            "http://a/ä",
            "//a/",
            "http://a/\n",
            "http://[::1]x/",
        ] {
            assert_eq!(Url::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn headers_that_are_ours_or_split_a_request_are_refused() {
        let header = Header::parse("Authorization:  Bearer x ").unwrap();
        assert_eq!(header.whole(), "authorization: Bearer x");
        assert_eq!(format!("{header:?}"), "Authorization: [withheld]");
        for (line, shown) in [("x-API-key: 1", "X-Api-Key"), ("a--b-: 1", "A--B-"), ("-: 1", "-")] {
            assert_eq!(Header::parse(line).unwrap().shown_name(), shown);
        }
        for line in [
            "none",
            ": x",
            "A B: x",
            "A: x\r\nB: y",
            "A: ü",
            "Host: x",
            "content-length: 3",
            "X-Pusher-Signature: 0",
            "Transfer-Encoding: chunked",
            "A : x",
        ] {
            assert_eq!(Header::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn coming_and_going_are_watched_together() {
        let of = |kinds: &[EventKind]| kinds.iter().copied().collect::<EventKinds>();
        let webhook = Webhook {
            events: of(&[EventKind::ChannelOccupied, EventKind::CacheMiss]),
            ..test_webhook("http://a")
        };
        let expected =
            of(&[EventKind::ChannelOccupied, EventKind::ChannelVacated, EventKind::CacheMiss]);
        assert_eq!(Webhooks::new(vec![webhook]).watched(), expected);
        assert!(Webhooks::default().watched().is_empty());
        assert!(EventKind::ALL.into_iter().all(|kind| EventKind::named(kind.name()) == Some(kind)));
    }

    #[test]
    fn channels_are_chosen_by_both_ends_of_their_names() {
        let webhook = Webhook {
            channel_prefix: "private-".into(),
            channel_suffix: "-eu".into(),
            ..test_webhook("http://a")
        };
        let wants = |channel| webhook.wants(EventKind::CacheMiss, channel);
        assert!(wants("private-a-eu") && !wants("private-a") && !wants("a-eu"));
    }
}
