//! Floor 2. The webhooks of an app: its endpoints, and the events that each of them wants.
//!
//! Contract: plain data of the configuration. Names and fields are those of Pusher's webhooks, so
//! that its server libraries read them. Nothing here prints a header's value or the query of a
//! URL, which may be secrets.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};

/// The kinds of events that webhooks report, by Pusher's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A channel has its first subscriber.
    ChannelOccupied,
    /// A channel has lost its last subscriber.
    ChannelVacated,
    /// A user has joined a presence channel.
    MemberAdded,
    /// A user has left a presence channel.
    MemberRemoved,
    /// A client has sent an event to a channel.
    ClientEvent,
    /// A client has subscribed to a cache channel without a cached event.
    CacheMiss,
    /// The number of a channel's subscribers has changed.
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
    pub const fn name(self) -> &'static str {
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
    pub fn named(name: &str) -> Option<Self> {
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
    pub const fn contains(self, kind: EventKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kinds of the set.
    pub fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |&kind| self.contains(kind))
    }

    /// The kinds that have to be watched to report these. An arrival and a departure cancel each
    /// other out when one follows the other at once, so a report of either needs both.
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

/// The URL of an endpoint: `http://` or `https://`, without user, password and fragment. Shown
/// without its query.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    /// Host and port. The port of the scheme is left out.
    authority: Authority,
    /// Path and query; begins with `/`.
    target: PathAndQuery,
}

impl Url {
    /// Reads a URL. Credentials belong into a header, so a URL with a user or a password is
    /// refused, and so is one with a fragment, which no request can carry.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}#@".contains(c);
        let uri: Uri = text.parse().ok().filter(|_| text.chars().all(plain))?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host();
        // The parser also takes schemes in upper case.
        if !is_host(host) || !text.starts_with("http") {
            return None;
        }
        let authority = match port(authority)?.filter(|&port| port != default_port(tls)) {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let target = format!("{}{query}", uri.path());
        Some(Self { tls, authority: authority.parse().ok()?, target: target.parse().ok()? })
    }

    /// Whether the scheme is `https`.
    #[must_use]
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// A name or an address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The port, given or that of the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or_else(|| default_port(self.tls))
    }

    /// Path and query, as they stand in a request.
    #[must_use]
    pub fn target(&self) -> &str {
        self.target.as_str()
    }

    /// Host and port as they stand in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The whole URL, for a machine to compare. Not for a log.
    #[must_use]
    pub fn whole(&self) -> String {
        format!("{}{}{}", self.scheme(), self.authority, self.target)
    }

    const fn scheme(&self) -> &'static str {
        if self.tls { "https://" } else { "http://" }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.scheme(), self.authority, self.target.path())?;
        let has_query = self.target.query().is_some_and(|query| !query.is_empty());
        f.write_str(if has_query { "?[withheld]" } else { "" })
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether this is a name, or an address; an IPv6 address has brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !host.is_empty() && host.chars().all(of_name)
        }
    }
}

/// Reads the port of an authority, `Some(None)` if it names none. The library would let an empty
/// port pass, and one with a sign.
fn port(authority: &Authority) -> Option<Option<u16>> {
    let text = authority.as_str().strip_prefix(authority.host())?;
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.strip_prefix(':')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&port| is_number && port > 0).map(Some)
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// A header that the operator adds to the requests of an endpoint. Its value is withheld wherever
/// it could be read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebhookHeader {
    /// The name.
    pub name: HeaderName,
    /// The value: visible characters of ASCII, spaces and tabs.
    pub value: HeaderValue,
}

impl WebhookHeader {
    /// Reads `Name: value`. Headers that frame the request, or that receivers trust to be ours,
    /// are refused.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = value.trim_ascii();
        let mut value = HeaderValue::from_str(value).ok().filter(|_| value.is_ascii())?;
        value.set_sensitive(true);
        let ours = OUR_HEADERS.contains(&name) || name.as_str().starts_with("x-pusher-");
        (!ours).then_some(Self { name, value })
    }
}

/// The headers that frame a request or describe its body.
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

impl fmt::Debug for WebhookHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [withheld]", self.name)
    }
}

/// One endpoint of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The URL that events are sent to.
    pub url: Url,
    /// The kinds of events that the endpoint wants.
    pub events: EventKinds,
    /// Only channels whose names begin with this text are reported. May be empty.
    pub channel_prefix: String,
    /// Only channels whose names end with this text are reported. May be empty.
    pub channel_suffix: String,
    /// Headers that are added to each request.
    pub headers: Vec<WebhookHeader>,
    /// The time for which an event waits for others that share its request.
    pub batch_window: Duration,
    /// The most events of one request; at least 1.
    pub batch_max: usize,
    /// The time that the lookup of the name, the connection and TLS may take together.
    pub connect_timeout: Duration,
    /// The time that the answer may take.
    pub timeout: Duration,
}

impl Webhook {
    /// Whether the endpoint wants events of this kind on this channel.
    #[must_use]
    pub fn wants(&self, kind: EventKind, channel: &str) -> bool {
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

    /// The kinds that have to be watched for any of the endpoints. Empty if there are none, so that
    /// an app without webhooks pays nothing for them.
    #[must_use]
    pub const fn watched(&self) -> EventKinds {
        self.watched
    }

    /// The endpoints, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Webhook>> {
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
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.tls(), url.host(), url.port()), (tls, host, port), "{text}");
            assert_eq!((url.target(), &*url.to_string()), (target, shown), "{text}");
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
            "HTTP://a",
            "http://a/\n",
            "http://[::1]x/",
        ] {
            assert_eq!(Url::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn headers_that_are_ours_or_split_a_request_are_refused() {
        let header = WebhookHeader::parse("Authorization:  Bearer x ").unwrap();
        assert_eq!(
            (header.name.as_str(), header.value.to_str().unwrap()),
            ("authorization", "Bearer x")
        );
        assert_eq!(format!("{header:?} {:?}", header.value), "authorization: [withheld] Sensitive");
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
            assert_eq!(WebhookHeader::parse(line), None, "{line:?}");
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
