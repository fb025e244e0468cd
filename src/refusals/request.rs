//! Requests of HTTP that are refused. The caller is answered with a status and a short text; the
//! operator is told what came and what is configured.

use std::fmt;

use crate::protocol::app::{App, Apps};
use crate::protocol::signing::{SignatureError, query_pairs};
use crate::text::Shortened;
use crate::websocket::handshake;

use super::handshake::{TooFast, TooManyConnections};
use super::{Cause, Sender, Served, shown};

/// Why one is refused, and with which facts.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    /// Nothing is served under the path.
    NoRoute {
        /// As received.
        method: &'a str,
        /// As received, without the query.
        path: &'a str,
        /// `server.path`.
        prefix: &'a str,
    },
    /// Something is, by other methods.
    Method {
        /// As received.
        method: &'a str,
        /// As received, without the query.
        path: &'a str,
        /// The methods, as in `Allow`.
        served: &'a str,
    },
    /// Not exactly one `Host`.
    Host,
    /// Both `Transfer-Encoding` and `Content-Length`.
    TwoLengths,
    /// A request under `/app/` that opens no WebSocket, with what it lacks.
    NotWebSocket(handshake::Refusal),
    /// No app has the id of the path.
    UnknownAppId {
        /// As in the path.
        id: &'a str,
        /// The apps that are served.
        apps: &'a Apps,
    },
    /// The app is switched off.
    Disabled,
    /// It is not signed by the app.
    Signed(Signed<'a>),
    /// The body is too large.
    TooLarge {
        /// The length that the head announces, in bytes.
        announced: Option<u64>,
        /// The largest body that is taken, in bytes.
        most: usize,
    },
    /// The body did not arrive in so many seconds.
    SlowBody(u64),
    /// Too many bytes of bodies wait.
    Bodies,
    /// There is too little memory.
    Memory,
    /// The shards do not keep up.
    Overloaded,
    /// The app sends more requests per second than it may.
    AppRate(Option<u32>),
    /// The client's address has as many connections as it may.
    AddressConnections(Option<u32>),
    /// The client's address sends more handshakes and requests per second than it may.
    AddressRate(Option<u32>),
    /// The data of an event is too large, in the words of the answer.
    DataTooLarge(&'a str),
    /// Its endpoint makes no sense of it, in the words of the answer.
    Invalid {
        /// The answer.
        status: u16,
        /// Its text.
        why: Words<'a>,
    },
}

/// The text of an answer, which is made only when it is told.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a>(pub(crate) &'a dyn fmt::Display);

impl fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A request whose signature was refused.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    /// Why.
    pub(crate) error: SignatureError,
    /// The app of the path.
    pub(crate) app: &'a App,
    /// All apps, among which the key may belong to another one.
    pub(crate) apps: &'a Apps,
    /// The query, with the signature: of it only key and time are told.
    pub(crate) query: &'a str,
    /// The server's time.
    pub(crate) now_unix_s: u64,
    /// The client by whose clock it was signed.
    pub(crate) client: Sender,
}

impl Request<'_> {
    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::NoRoute { .. } => Cause::NoRoute,
            Self::Method { .. } => Cause::Method,
            Self::Host => Cause::Host,
            Self::TwoLengths => Cause::TwoLengths,
            Self::NotWebSocket(_) => Cause::NotWebSocket,
            Self::UnknownAppId { .. } => Cause::UnknownAppId,
            Self::Disabled => Cause::Disabled,
            Self::Signed(signed) => signed.cause(),
            Self::TooLarge { .. } | Self::DataTooLarge(_) => Cause::TooLarge,
            Self::SlowBody(_) => Cause::SlowBody,
            Self::Bodies => Cause::Bodies,
            Self::Memory => Cause::Memory,
            Self::Overloaded => Cause::Overloaded,
            Self::AppRate(_) => Cause::AppRate,
            Self::AddressConnections(_) => Cause::AddressConnections,
            Self::AddressRate(_) => Cause::AddressRate,
            Self::Invalid { .. } => Cause::Invalid,
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute { .. }
            | Self::Method { .. }
            | Self::Host
            | Self::TwoLengths
            | Self::NotWebSocket(_)
            | Self::UnknownAppId { .. } => self.misdirected(f),
            Self::Signed(signed) => signed.fmt(f),
            Self::Disabled => f.write_str(
                "request refused with 403: the app is switched off: set enabled = true for it in \
                 ringwave.toml and run `ringwave reload`",
            ),
            Self::AppRate(most) => write!(
                f,
                "request refused with 429: the app sends more than its {} requests per second: \
                 raise app.max_requests_per_second, or publish in batches",
                most.unwrap_or_default()
            ),
            Self::AddressConnections(most) => {
                let most = most.unwrap_or_default();
                write!(f, "request refused with 429: {}", TooManyConnections(most))
            }
            Self::AddressRate(most) => {
                write!(f, "request refused with 429: {}", TooFast(most.unwrap_or_default()))
            }
            Self::Invalid { status, why } => {
                write!(f, "request refused with {status}: {}", shown(&why.0.to_string()))
            }
            Self::TooLarge { .. }
            | Self::DataTooLarge(_)
            | Self::SlowBody(_)
            | Self::Bodies
            | Self::Memory
            | Self::Overloaded => self.too_much(f),
        }
    }
}

impl Request<'_> {
    /// It came to the wrong place, or not as a proxy should pass it on.
    fn misdirected(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute { method, path, prefix } => write!(
                f,
                "request refused with 404: {method} {} is not served; clients come to \
                 {prefix}/app/KEY, publishers to {prefix}/apps/ID/events, health checks to \
                 {prefix}/up: check server.path (REVERB_SERVER_PATH) and the proxy's locations",
                shown(path)
            ),
            Self::Method { method, path, served } => write!(
                f,
                "request refused with 405: {method} {} is not served, {served} would be",
                shown(path)
            ),
            Self::Host => f.write_str(
                "request refused with 400: it has not exactly one Host header: a proxy has to set \
                 it (proxy_set_header Host $http_host)",
            ),
            Self::TwoLengths => f.write_str(
                "request refused with 400: it has both Transfer-Encoding and Content-Length, by \
                 which two readers see two different requests: a client or proxy that sends both \
                 is broken or attacks",
            ),
            Self::NotWebSocket(refusal) => write!(
                f,
                "request refused with {}: {refusal}; a proxy has to pass the upgrade on \
                 (proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade, proxy_set_header \
                 Connection $connection_upgrade)",
                refusal.status()
            ),
            Self::UnknownAppId { id, apps } => {
                f.write_str("request refused with 404: unknown app id ")?;
                // As ids are by rule; what is longer or no number may be a key or worse.
                match id.len() <= ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit()) {
                    true => f.write_str(id)?,
                    false => write!(f, "{}", Shortened(id))?,
                }
                if apps.by_key(id).is_some() {
                    f.write_str(", which is the key of an app and not its id")?;
                }
                write!(
                    f,
                    "; {}: REVERB_APP_ID of whoever publishes has to be that of this server",
                    Served(apps)
                )
            }
            _ => Ok(()),
        }
    }

    /// It is more than is taken, by itself or together with others.
    fn too_much(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { announced, most } => {
                f.write_str("request refused with 413: its body has ")?;
                match announced {
                    Some(announced) => write!(f, "{announced} bytes")?,
                    None => f.write_str("more bytes than it may")?,
                }
                write!(
                    f,
                    ", {most} are allowed: raise server.max_request_size (REVERB_MAX_REQUEST_SIZE), \
                     or publish less at once"
                )
            }
            Self::DataTooLarge(why) => {
                write!(f, "request refused with 413: {why} Raise app.max_event_data, or send less")
            }
            Self::SlowBody(seconds) => write!(
                f,
                "request refused with 408: its body did not arrive within {seconds} s: see the \
                 network between the publisher and here"
            ),
            Self::Bodies => f.write_str(
                "request refused with 503: the bodies of other requests take all the memory that \
                 there is for them: publish more slowly, or give the host more memory",
            ),
            Self::Memory => f.write_str(
                "request refused with 503 for lack of memory, as told above with how much is used: raise \
                 server.memory_limit (RINGWAVE_MEMORY_LIMIT), or give the host more",
            ),
            Self::Overloaded => f.write_str(
                "request refused with 503: the shards cannot keep up: publish more slowly, or give \
                 the server more cores",
            ),
            _ => Ok(()),
        }
    }
}

impl Signed<'_> {
    const fn cause(&self) -> Cause {
        match self.error {
            SignatureError::WrongKey => Cause::RequestKey,
            SignatureError::Signature | SignatureError::BodyMd5 => Cause::RequestSignature,
            SignatureError::Timestamp { .. } => Cause::RequestClock,
            SignatureError::Missing(_) | SignatureError::Repeated | SignatureError::BadVersion => {
                Cause::RequestUnsigned
            }
        }
    }

    fn parameter(&self, name: &str) -> String {
        let mut pairs = query_pairs(self.query);
        let found = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    }

    fn wrong_key(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.parameter("auth_key");
        let (shown, own) = (Shortened(&key), Shortened(&self.app.key));
        match self.apps.by_key(&key) {
            Some(other) => write!(
                f,
                "it is signed with the key {shown} of the app {}, and was sent to this one, whose \
                 key is {own}: REVERB_APP_ID and REVERB_APP_KEY of whoever publishes are those of \
                 two apps",
                other.id
            ),
            None => write!(
                f,
                "it is signed with the key {shown}, and the app's key is {own}: REVERB_APP_KEY of \
                 whoever publishes has to be the app's (php artisan config:clear there)"
            ),
        }
    }

    fn wrong_clock(&self, f: &mut fmt::Formatter<'_>, tolerance_s: u64) -> fmt::Result {
        let signed_at: u64 = self.parameter("auth_timestamp").parse().unwrap_or_default();
        let off = Span(signed_at.abs_diff(self.now_unix_s));
        let side = if signed_at <= self.now_unix_s { "ago" } else { "ahead" };
        write!(
            f,
            "it was signed {off} {side} by the clock of {}, and {} are allowed: check NTP there and \
             here (timedatectl)",
            self.client,
            Span(tolerance_s)
        )
    }
}

impl fmt::Display for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("request refused with 401: ")?;
        match self.error {
            SignatureError::WrongKey => self.wrong_key(f),
            SignatureError::Timestamp { tolerance_s } => self.wrong_clock(f, tolerance_s),
            SignatureError::Signature => f.write_str(
                "its key is the app's, and its signature does not fit: REVERB_APP_SECRET of whoever \
                 publishes is not the app's (php artisan config:clear there), or a proxy changes \
                 the path or the query",
            ),
            SignatureError::BodyMd5 => f.write_str(
                "its body is not the one that was signed (body_md5): a proxy or a library changes \
                 it on the way",
            ),
            error => write!(
                f,
                "it is not signed as the HTTP API of Pusher has it. {error} Use a library of \
                 Pusher's"
            ),
        }
    }
}

/// Digits of an id that is shown whole.
const ID_DIGITS: usize = 20;

/// A time in the unit that people would say it in.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}
