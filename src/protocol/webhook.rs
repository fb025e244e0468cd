//! Floor 2. The webhooks of an app: which of its events go where, and in what form.
//!
//! Contract: plain data of the configuration. Names and fields are those of Pusher's webhooks, so
//! that its server libraries read them. Nothing here prints a header's value or the query of a
//! URL, which may be secrets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The kinds of events that a webhook can tell of (Pusher's event names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A channel has its first subscriber.
    ChannelOccupied,
    /// A channel has lost its last subscriber.
    ChannelVacated,
    /// A user came to a presence channel.
    MemberAdded,
    /// A user left a presence channel.
    MemberRemoved,
    /// A client sent an event to a channel.
    ClientEvent,
    /// Somebody subscribed to a cache channel that remembers no event.
    CacheMiss,
    /// A channel has another number of subscribers.
    SubscriptionCount,
}

impl EventKind {
    /// All of them.
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
    /// Whether it has this kind.
    #[must_use]
    pub(crate) const fn contains(self, kind: EventKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether it has none.
    #[must_use]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds of both.
    #[must_use]
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Its kinds.
    pub(crate) fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |&kind| self.contains(kind))
    }

    /// The kinds that have to be watched to tell of these: coming and going cancel each other out
    /// when one follows the other at once, so to tell of either one takes both.
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

/// Where a webhook goes: `http://` or `https://`. Shown without its query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: Box<str>,
    port: u16,
    /// Path and query; begins with `/`.
    target: Box<str>,
}

impl Url {
    /// Reads a URL. One with a user, a password or a fragment is none: credentials belong into a
    /// header.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}#@".contains(c);
        if !rest.chars().all(plain) {
            return None;
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => default_port(tls),
            Some(digits) => {
                let number = digits.bytes().all(|b| b.is_ascii_digit());
                digits.parse().ok().filter(|&port: &u16| number && port > 0)?
            }
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some(Self { tls, host: host.into(), port, target: format!("{slash}{target}").into() })
    }

    /// Whether it is `https`.
    #[must_use]
    pub(crate) const fn tls(&self) -> bool {
        self.tls
    }

    /// A name or an address; an IPv6 address without brackets.
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port, given or that of the scheme.
    #[must_use]
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as they stand in a request.
    #[must_use]
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Host and port as they stand in a `Host` header.
    #[must_use]
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.to_string(),
        };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }

    /// All of it, for a machine to compare. Not for a log.
    #[must_use]
    pub(crate) fn whole(&self) -> String {
        format!("{}{}{}", self.scheme(), self.authority(), self.target)
    }

    const fn scheme(&self) -> &'static str {
        if self.tls { "https://" } else { "http://" }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        write!(f, "{}{}{path}", self.scheme(), self.authority())?;
        f.write_str(if query.is_empty() { "" } else { "?[withheld]" })
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Host, without brackets, and the digits of the port, if there are any.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let address: Result<std::net::Ipv6Addr, _> = host.parse();
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        return address.is_ok().then_some((host, port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (!host.is_empty() && host.chars().all(of_name)).then_some((host, port))
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// A header of the operator's. Its value is withheld wherever it could be read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// A token.
    pub(crate) name: Box<str>,
    /// Visible text.
    pub(crate) value: Box<str>,
}

impl Header {
    /// Reads `Name: value`. Headers that frame the request, or that receivers trust to be ours,
    /// are refused.
    #[must_use]
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_ascii();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let visible = |b: u8| b == b' ' || b == b'\t' || b.is_ascii_graphic();
        let lower = name.to_ascii_lowercase();
        let ours = OUR_HEADERS.contains(&&*lower) || lower.starts_with("x-pusher-");
        let fits = !name.is_empty() && name.bytes().all(token) && value.bytes().all(visible);
        (fits && !ours).then(|| Self { name: name.into(), value: value.into() })
    }
}

const OUR_HEADERS: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [withheld]", self.name)
    }
}

/// One endpoint of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The URL that events are sent to.
    pub url: Url,
    /// The kinds of events that it wants.
    pub events: EventKinds,
    /// Channels whose names begin so, only. May be empty.
    pub channel_prefix: String,
    /// Channels whose names end so, only. May be empty.
    pub channel_suffix: String,
    /// Sent along.
    pub headers: Vec<Header>,
    /// How long an event waits for others to share its request.
    pub batch_window: Duration,
    /// Most events of one request; at least 1.
    pub batch_max: usize,
    /// How long name, connection and TLS may take.
    pub connect_timeout: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl Webhook {
    /// Whether it tells of such an event on this channel.
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
        let header = Header::parse("Authorization:  Bearer x ").unwrap();
        assert_eq!((&*header.name, &*header.value), ("Authorization", "Bearer x"));
        assert_eq!(format!("{header:?}"), "Authorization: [withheld]");
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
