//! The server under load: its addresses, and the requests in its protocol.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::channel::ChannelAccess;
use crate::error_text::without_number;
use crate::frames;
use crate::signature::Signer;
use crate::stamp::Stamp;

/// A server that speaks the Pusher protocol, and an app of it.
#[derive(Clone, Debug)]
pub struct TargetServer {
    /// At least one. Connections and publishers take turns on them.
    addresses: Vec<SocketAddr>,
    /// The URL of each address.
    urls: Vec<String>,
    /// The value of the `Host` header.
    host: String,
    /// Path prefix: empty, or `/` and more without a `/` at the end.
    prefix: String,
    /// Encoded for a path.
    app_id: String,
    key: String,
    /// Encoded for a path or a query.
    key_encoded: String,
    signer: Signer,
}

/// The reason why a server cannot be put under load.
#[derive(Debug)]
pub enum TargetError {
    /// The URL is not `ws://host[:port][/prefix]`.
    Url(String),
    /// The URL asks for TLS, which a proxy in front of the server terminates.
    Tls(String),
    /// The name has no address.
    Name {
        /// The host of the URL.
        name: String,
        /// The failure of the lookup; none if it found no address.
        cause: Option<io::Error>,
    },
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "--url {url} is not of the form ws://host[:port][/prefix]"),
            Self::Tls(url) => write!(
                f,
                "--url {url} asks for TLS, which would measure the proxy: name the server behind it"
            ),
            Self::Name { name, cause: None } => write!(f, "{name} has no address"),
            Self::Name { name, cause: Some(cause) } => {
                write!(f, "cannot resolve {name}: {}", without_number(cause))
            }
        }
    }
}

impl Error for TargetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Name { cause, .. } => cause.as_ref().map(|cause| cause as _),
            Self::Url(_) | Self::Tls(_) => None,
        }
    }
}

impl TargetServer {
    /// One server by one or several URLs of the form `ws://host[:port][/prefix]`, each an address
    /// of one process or a node of a cluster. The host and the prefix of the first are sent to all.
    ///
    /// # Errors
    /// A URL is not of that form, or its host has no address.
    pub fn new(
        urls: &[String],
        app_id: &str,
        key: &str,
        secret: &str,
    ) -> Result<Self, TargetError> {
        let mut addresses = Vec::new();
        let mut first = None;
        for url in urls {
            let (host, prefix) = split(url)?;
            let with_port = if has_port(&host) { host.clone() } else { format!("{host}:80") };
            let unknown = |cause| TargetError::Name { name: host.clone(), cause };
            let mut resolved = with_port.to_socket_addrs().map_err(|error| unknown(Some(error)))?;
            addresses.push(resolved.next().ok_or_else(|| unknown(None))?);
            first.get_or_insert((host, prefix));
        }
        let (host, prefix) = first.ok_or_else(|| TargetError::Url(String::new()))?;
        let encoded = |text| utf8_percent_encode(text, RESERVED).to_string();
        let (app_id, key, key_encoded) = (encoded(app_id), key.to_owned(), encoded(key));
        let (urls, signer) = (urls.to_vec(), Signer::new(secret));
        Ok(Self { addresses, urls, host, prefix, app_id, key, key_encoded, signer })
    }

    /// The address of this turn.
    #[must_use]
    pub fn address(&self, turn: u32) -> SocketAddr {
        self.addresses[turn as usize % self.addresses.len()]
    }

    /// The number of addresses.
    pub(crate) const fn nodes(&self) -> u32 {
        self.addresses.len() as u32
    }

    /// The URL of each address.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// All addresses, on which connections and publishers take turns.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The request that opens a WebSocket. Its key is the example of RFC 6455, because a server
    /// cannot tell whether a key is random.
    pub(crate) fn handshake(&self) -> Bytes {
        let Self { prefix, key_encoded: key, host, .. } = self;
        Bytes::from(format!(
            "GET {prefix}/app/{key}?protocol=7&client=ringwave-storm&version={}&flash=false \
             HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
        ))
    }

    /// The message that subscribes to a channel. `socket_id` is used where a signature is needed,
    /// and `member` on presence channels.
    pub(crate) fn subscribe(
        &self,
        access: ChannelAccess,
        channel: &str,
        socket_id: &[u8],
        member: PresenceMember,
    ) -> Bytes {
        let key = self.key.replace('\\', r"\\").replace('"', r#"\""#);
        let sign = |data: &str| {
            let behind = if data.is_empty() { "" } else { ":" };
            let parts = [channel, behind, data].map(str::as_bytes);
            self.signer.sign(&[socket_id, b":", parts[0], parts[1], parts[2]])
        };
        let signature = match access {
            ChannelAccess::Public => String::new(),
            ChannelAccess::Private => format!(r#","auth":"{key}:{}""#, sign("")),
            ChannelAccess::Presence => {
                let data = member.json();
                let (signature, escaped) = (sign(&data), data.replace('"', r#"\""#));
                format!(r#","auth":"{key}:{signature}","channel_data":"{escaped}""#)
            }
        };
        let text = format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"{signature}}}}}"#
        );
        frames::text(text.as_bytes())
    }

    /// A signed request that publishes. `body` is the whole body, `events` the last part of the
    /// path. The memory of `into` is used again if nothing refers to it any more.
    pub(crate) fn publish(&self, events: &str, body: &[u8], into: &mut BytesMut) -> Bytes {
        let md5 = format!("&body_md5={}", hex::encode(Md5::digest(body)));
        let target = self.signed("POST", events, &md5);
        into.reserve(body.len() + 512);
        // Writing to memory cannot fail.
        let _written = write!(
            into.writer(),
            "POST {target} HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len(),
        );
        into.extend_from_slice(body);
        into.split().freeze()
    }

    /// A signed request for the members of a presence channel. It ends its connection.
    pub(crate) fn users(&self, channel: &str) -> String {
        let target = self.signed("GET", &format!("channels/{channel}/users"), "");
        format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host)
    }

    /// Path and query of a request of the API, with its signature. `more` follows the usual
    /// parameters in alphabetical order.
    fn signed(&self, method: &str, endpoint: &str, more: &str) -> String {
        let Self { prefix, app_id, key, key_encoded, .. } = self;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = format!("{prefix}/apps/{app_id}/{endpoint}");
        // The key is signed as it is, and sent encoded.
        let rest = format!("&auth_timestamp={now}&auth_version=1.0{more}");
        let parts = [method, "\n", &path, "\nauth_key=", key, &rest].map(str::as_bytes);
        let signature = self.signer.sign(&parts);
        format!("{path}?auth_key={key_encoded}{rest}&auth_signature={signature}")
    }
}

/// A member of a presence channel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PresenceMember {
    /// The number of its connection.
    pub(crate) index: u32,
    /// The number of times that the connection was cut, if each makes it another user.
    pub(crate) cuts: u32,
    /// Bytes of its `user_info`; 0: it has none.
    pub(crate) info: u32,
}

impl PresenceMember {
    pub(crate) fn user_id(self) -> String {
        match self {
            Self { index, cuts: 0, .. } => index.to_string(),
            Self { index, cuts, .. } => format!("{index}-{cuts}"),
        }
    }

    fn json(self) -> String {
        let (id, info) = (self.user_id(), self.info);
        if info == 0 {
            return format!(r#"{{"user_id":"{id}"}}"#);
        }
        let name = "n".repeat((info as usize).saturating_sub(r#"{"name":""}"#.len()));
        format!(r#"{{"user_id":"{id}","user_info":{{"name":"{name}"}}}}"#)
    }
}

/// Appends one event of an API body, whose data is the stamp, padded to `size` bytes.
pub(crate) fn put_event(body: &mut Vec<u8>, channel: &str, stamp: &Stamp, size: usize) {
    body.extend_from_slice(br#"{"name":"storm","channel":""#);
    body.extend_from_slice(channel.as_bytes());
    body.extend_from_slice(br#"","data":""#);
    put_stamp(body, stamp, size);
    body.extend_from_slice(br#""}"#);
}

/// A client event. Its data is an object, as the Pusher protocol demands.
pub(crate) fn whisper(channel: &str, stamp: &Stamp, size: usize) -> Bytes {
    let mut text = Vec::with_capacity(size + 128);
    text.extend_from_slice(br#"{"event":"client-storm","channel":""#);
    text.extend_from_slice(channel.as_bytes());
    text.extend_from_slice(br#"","data":{"s":""#);
    put_stamp(&mut text, stamp, size);
    text.extend_from_slice(br#""}}"#);
    frames::text(&text)
}

fn put_stamp(into: &mut Vec<u8>, stamp: &Stamp, size: usize) {
    let text = stamp.text();
    into.extend_from_slice(&text);
    into.resize(into.len() + size.saturating_sub(text.len()), b'x');
}

/// The characters that are encoded: all that could have a meaning in a path or a query.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The host with its port, and the prefix.
fn split(url: &str) -> Result<(String, String), TargetError> {
    if url.starts_with("wss:") || url.starts_with("https:") {
        return Err(TargetError::Tls(url.to_owned()));
    }
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| TargetError::Url(url.to_owned()))?;
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@');
    if host.is_empty() || rest.contains(strange) {
        return Err(TargetError::Url(url.to_owned()));
    }
    Ok((host.to_owned(), path.trim_end_matches('/').to_owned()))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<TargetServer, TargetError> {
        TargetServer::new(&[url.to_owned()], "100001", "app-key", "app-secret")
    }

    #[test]
    fn urls_name_host_port_and_prefix_and_nothing_else() {
        let reached = |url| target(url).map(|t| (t.address(0).port(), t.prefix));
        for (url, port, prefix) in [
            ("ws://127.0.0.1:8080", 8080, ""),
            ("http://127.0.0.1/", 80, ""),
            ("ws://[::1]:9/ws/", 9, "/ws"),
        ] {
            assert_eq!(reached(url).unwrap(), (port, prefix.to_owned()), "{url}");
        }
        assert!(matches!(reached("wss://127.0.0.1"), Err(TargetError::Tls(_))));
        for url in ["127.0.0.1:80", "ws://", "ws://a b", "ws://u@127.0.0.1", "ws://127.0.0.1?x"] {
            assert!(matches!(reached(url), Err(TargetError::Url(_))), "{url}");
        }
    }

    #[test]
    fn a_publish_signs_what_it_sends() {
        let target = target("ws://127.0.0.1:8080/ws").unwrap();
        let request = target.publish("events", b"{}", &mut BytesMut::new());
        let text = str::from_utf8(&request).unwrap();
        let line = text.lines().next().unwrap();
        let path = line.split(' ').nth(1).unwrap();
        let (path, query) = path.split_once('?').unwrap();
        let (signed, signature) = query.split_once("&auth_signature=").unwrap();
        assert_eq!(path, "/ws/apps/100001/events");
        let signed = format!("POST\n{path}\n{signed}");
        assert_eq!(Signer::new("app-secret").sign(&[signed.as_bytes()]), signature);
        assert!(text.ends_with("Content-Length: 2\r\n\r\n{}"));
    }

    #[test]
    fn a_key_of_any_text_is_encoded_in_requests_and_signed_as_it_is() {
        let url = "ws://127.0.0.1:8080".to_owned();
        let target = TargetServer::new(&[url], "1", "base64:a+b/\"=", "secret").unwrap();
        let handshake = target.handshake();
        assert!(handshake.starts_with(b"GET /app/base64%3Aa%2Bb%2F%22%3D?protocol=7&"));
        let request = target.publish("events", b"{}", &mut BytesMut::new());
        let text = str::from_utf8(&request).unwrap();
        let query = text.split([' ', '?']).nth(2).unwrap();
        let (sent, signature) = query.split_once("&auth_signature=").unwrap();
        let signed = sent.replace("base64%3Aa%2Bb%2F%22%3D", "base64:a+b/\"=");
        assert_ne!(signed, sent);
        let signed = format!("POST\n/apps/1/events\n{signed}");
        assert_eq!(Signer::new("secret").sign(&[signed.as_bytes()]), signature);
        let frame = target.subscribe(
            ChannelAccess::Private,
            "private-a",
            b"1.2",
            PresenceMember::default(),
        );
        let auth = br#""auth":"base64:a+b/\"=:"#;
        assert!(frame.windows(auth.len()).any(|window| window == auth));
    }

    #[test]
    fn a_presence_subscribe_signs_what_it_sends() {
        let target = target("ws://127.0.0.1:1").unwrap();
        let frame = target.subscribe(
            ChannelAccess::Presence,
            "presence-a",
            b"1.2",
            PresenceMember { index: 7, ..PresenceMember::default() },
        );
        let (_, payload, _) = frames::first(&frame).map(|(op, p, end)| (op, &p[4..], end)).unwrap();
        let payload = [payload, &frame[frame.len() - 4..]].concat();
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(json["data"]["channel_data"], r#"{"user_id":"7"}"#);
        let auth = json["data"]["auth"].as_str().unwrap().strip_prefix("app-key:").unwrap();
        let signed = br#"1.2:presence-a:{"user_id":"7"}"#;
        assert_eq!(Signer::new("app-secret").sign(&[signed]), auth);
    }

    #[test]
    fn a_member_says_as_much_of_itself_as_was_asked_for() {
        let json: serde_json::Value =
            serde_json::from_str(&PresenceMember { index: 1, cuts: 2, info: 100 }.json()).unwrap();
        assert_eq!(json["user_info"].to_string().len(), 100);
        assert_eq!(json["user_id"], "1-2");
    }
}
