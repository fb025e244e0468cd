//! HTTP requests that are refused. The caller gets a status and a short text; the log says what
//! came and what is configured.

use std::fmt;

use crate::apps::{App, Apps};
use crate::protocol::signing::{SignatureError, query_pairs};
use crate::text::Shortened;
use crate::websocket::handshake;

use super::cause::Cause;
use super::client::RefusedClient;
use super::handshake::{TooFast, TooManyConnections};
use super::phrases::{Reached, ServedApps, quoted};

/// The reason for which a request is refused, with the facts that its sentence needs.
#[derive(Debug)]
pub(crate) enum RefusedRequest<'a> {
    /// The path is not served.
    NoRoute {
        /// The method, as received.
        method: &'a str,
        /// The path, as received, without the query.
        path: &'a str,
        /// `server.path`.
        prefix: &'a str,
    },
    /// The path is served, but not by this method.
    Method {
        /// The method, as received.
        method: &'a str,
        /// The path, as received, without the query.
        path: &'a str,
        /// The methods that are served, as in `Allow`.
        served: &'a str,
    },
    /// It does not have exactly one `Host`.
    Host,
    /// It has both `Transfer-Encoding` and `Content-Length`.
    TwoLengths,
    /// It is a request under `/app/` that is no WebSocket handshake.
    NotWebSocket(handshake::HandshakeError),
    /// No app has the id of the path.
    UnknownAppId {
        /// The id, as in the path.
        id: &'a str,
        /// The apps that are served.
        apps: &'a Apps,
    },
    /// The app is switched off.
    Disabled,
    /// It is not signed by the app.
    Signed(RefusedSignature<'a>),
    /// The body is too large.
    TooLarge {
        /// The length that the head announces, in bytes.
        announced: Option<u64>,
        /// The largest body that is taken, in bytes.
        most: usize,
    },
    /// The body did not arrive within this many seconds.
    SlowBody(u64),
    /// The bodies of other requests fill the memory for bodies.
    Bodies,
    /// There is too little memory.
    Memory,
    /// The shards cannot keep up.
    Overloaded,
    /// The Redis of the cluster is away or too slow.
    RedisAway,
    /// A node of the cluster does not answer, or has not registered everything.
    NodesSilent,
    /// The app sends more requests per second than it may.
    AppRate(Option<u32>),
    /// The client's address has as many connections as it may.
    AddressConnections(Option<u32>),
    /// The client's address sends more handshakes and requests per second than it may.
    AddressRate(Option<u32>),
    /// The data of an event is too large. The text is that of the answer.
    DataTooLarge(&'a str),
    /// Its endpoint found it invalid.
    Invalid {
        /// The status of the answer.
        status: u16,
        /// The text of the answer.
        why: AnswerText<'a>,
    },
}

/// The text of an answer, which is formatted only if it is logged.
#[derive(Clone, Copy)]
pub(crate) struct AnswerText<'a>(pub(crate) &'a dyn fmt::Display);

impl fmt::Debug for AnswerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A request whose signature was refused.
#[derive(Debug)]
pub(crate) struct RefusedSignature<'a> {
    /// The check that failed.
    pub(crate) error: SignatureError,
    /// The app of the path.
    pub(crate) app: &'a App,
    /// All apps, because the key may belong to another one of them.
    pub(crate) apps: &'a Apps,
    /// The query, which holds the signature. Only its key and time are logged.
    pub(crate) query: &'a str,
    /// The server's clock, in seconds of Unix time.
    pub(crate) now_unix_s: u64,
    /// The client, whose clock signed the request.
    pub(crate) client: RefusedClient,
}

impl RefusedRequest<'_> {
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
            Self::RedisAway => Cause::RedisAway,
            Self::NodesSilent => Cause::NodesSilent,
            Self::AppRate(_) => Cause::AppRate,
            Self::AddressConnections(_) => Cause::AddressConnections,
            Self::AddressRate(_) => Cause::AddressRate,
            Self::Invalid { .. } => Cause::Invalid,
        }
    }

    /// The status of the answer.
    const fn status(&self) -> u16 {
        match self {
            Self::Host | Self::TwoLengths => 400,
            Self::Signed(_) => 401,
            Self::Disabled => 403,
            Self::NoRoute { .. } | Self::UnknownAppId { .. } => 404,
            Self::Method { .. } => 405,
            Self::SlowBody(_) => 408,
            Self::TooLarge { .. } | Self::DataTooLarge(_) => 413,
            Self::AppRate(_) | Self::AddressConnections(_) | Self::AddressRate(_) => 429,
            Self::Bodies
            | Self::Memory
            | Self::Overloaded
            | Self::RedisAway
            | Self::NodesSilent => 503,
            Self::NotWebSocket(error) => error.status(),
            Self::Invalid { status, .. } => *status,
        }
    }
}

impl fmt::Display for RefusedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request refused with {}: ", self.status())?;
        match self {
            Self::NoRoute { method, path, prefix } => no_route(f, method, path, prefix),
            Self::Method { method, path, served } => {
                write!(f, "{method} {} is not served; its methods are {served}", quoted(path))
            }
            Self::Host => f.write_str(NOT_ONE_HOST),
            Self::TwoLengths => f.write_str(TWO_LENGTHS),
            Self::NotWebSocket(error) => write!(f, "{error}; {UPGRADE_NEEDED}"),
            Self::UnknownAppId { id, apps } => unknown_app_id(f, id, apps),
            Self::Disabled => f.write_str(DISABLED),
            Self::Signed(refused) => refused.fmt(f),
            Self::TooLarge { announced, most } => too_large(f, *announced, *most),
            Self::DataTooLarge(why) => write!(f, "{why} Raise app.max_event_data, or send less"),
            Self::SlowBody(seconds) => write!(
                f,
                "its body did not arrive within {seconds} s: check the network between the \
                 publisher and this server"
            ),
            Self::Bodies => f.write_str(TOO_MANY_BODIES),
            Self::Memory => f.write_str(LACK_OF_MEMORY),
            Self::Overloaded => f.write_str(OVERLOADED),
            Self::RedisAway => f.write_str(REDIS_AWAY),
            Self::NodesSilent => f.write_str(NODES_SILENT),
            Self::AppRate(most) => write!(
                f,
                "the app sends more than its {} requests per second: raise \
                 app.max_requests_per_second, or publish in batches",
                Reached(*most)
            ),
            Self::AddressConnections(most) => TooManyConnections(*most).fmt(f),
            Self::AddressRate(most) => TooFast(*most).fmt(f),
            Self::Invalid { why, .. } => f.write_str(&quoted(&why.0.to_string())),
        }
    }
}

const NOT_ONE_HOST: &str = "it does not have exactly one Host header: the proxy has to set it \
                            (proxy_set_header Host $http_host)";

const TWO_LENGTHS: &str = "it has both Transfer-Encoding and Content-Length, which two readers can \
                           read as two different requests: a client or proxy that sends both is \
                           broken or hostile";

const UPGRADE_NEEDED: &str = "a proxy has to pass the upgrade on (proxy_http_version 1.1, \
                              proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection \
                              $connection_upgrade)";

const DISABLED: &str = "the app is switched off: set enabled = true for it in ringwave.toml and \
                        run `ringwave reload`";

const TOO_MANY_BODIES: &str = "the bodies of other requests fill the memory that is reserved for \
                               them: publish more slowly, or give the host more memory";

const LACK_OF_MEMORY: &str = "memory is nearly spent (the line about memory above says how much is \
                              used): raise server.memory_limit (RINGWAVE_MEMORY_LIMIT), or give \
                              the host more memory";

const OVERLOADED: &str = "the shards cannot keep up: publish more slowly, or give the server more \
                          cores";

const REDIS_AWAY: &str = "the Redis of the cluster is away or too slow (the line about Redis above \
                          says why): the publisher has to repeat it, as Laravel's queue does, or \
                          set cluster.when_away to \"local\"";

const NODES_SILENT: &str = "not all nodes of the cluster have answered within 2 s, or one of them \
                            registers anew, so the answer would be partial: ask again; if it \
                            stays, find the node that stands still (`ringwave status` on each)";

fn no_route(f: &mut fmt::Formatter<'_>, method: &str, path: &str, prefix: &str) -> fmt::Result {
    write!(
        f,
        "{method} {} is not served; clients connect to {prefix}/app/KEY, publishers send to \
         {prefix}/apps/ID/events, health checks to {prefix}/up: check server.path \
         (REVERB_SERVER_PATH) and the locations of the proxy",
        quoted(path)
    )
}

fn unknown_app_id(f: &mut fmt::Formatter<'_>, id: &str, apps: &Apps) -> fmt::Result {
    f.write_str("unknown app id ")?;
    // Ids are short numbers. Anything else may be a key or a secret in the wrong place.
    match id.len() <= ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit()) {
        true => f.write_str(id)?,
        false => write!(f, "{}", Shortened(id))?,
    }
    if apps.by_key(id).is_some() {
        f.write_str(", which is the key of an app and not its id")?;
    }
    let served = ServedApps(apps);
    write!(f, "; {served}: REVERB_APP_ID of the publisher has to be that of this server")
}

fn too_large(f: &mut fmt::Formatter<'_>, announced: Option<u64>, most: usize) -> fmt::Result {
    match announced {
        Some(announced) => write!(f, "its body has {announced} bytes, {most} are allowed")?,
        None => write!(f, "its body has more than the {most} bytes that are allowed")?,
    }
    f.write_str(
        ": raise server.max_request_size (REVERB_MAX_REQUEST_SIZE), or publish less at once",
    )
}

impl RefusedSignature<'_> {
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

    /// The value of a parameter of the query; empty if it is missing.
    fn parameter(&self, name: &str) -> String {
        let mut pairs = query_pairs(self.query);
        let found = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    }

    fn wrong_key(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.parameter("auth_key");
        let (shown, own) = (Shortened(&key), Shortened(&self.app.rules.key));
        match self.apps.by_key(&key) {
            Some(other) => write!(
                f,
                "it is signed with the key {shown} of the app {}, and was sent to this one, whose \
                 key is {own}: REVERB_APP_ID and REVERB_APP_KEY of the publisher belong to two \
                 different apps",
                other.id
            ),
            None => write!(
                f,
                "it is signed with the key {shown}, and the app's key is {own}: REVERB_APP_KEY of \
                 the publisher has to be the app's (run php artisan config:clear there)"
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

impl fmt::Display for RefusedSignature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error {
            SignatureError::WrongKey => self.wrong_key(f),
            SignatureError::Timestamp { tolerance_s } => self.wrong_clock(f, tolerance_s),
            SignatureError::Signature => f.write_str(
                "its key is the app's, but its signature is wrong: REVERB_APP_SECRET of the \
                 publisher is not the app's (run php artisan config:clear there), or a proxy \
                 changes the path or the query",
            ),
            SignatureError::BodyMd5 => f.write_str(
                "its body is not the one that was signed (body_md5): a proxy or a library changes \
                 it on the way",
            ),
            error => write!(
                f,
                "it is not signed as Pusher's HTTP API requires. {error} Use a server library for \
                 Pusher"
            ),
        }
    }
}

/// Digits up to which an id is shown whole: those of the largest 64-bit number.
const ID_DIGITS: usize = 20;

/// A number of seconds, shown in the largest unit that keeps it exact enough for people.
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
