//! Responses, and the reasons to reject a request. Texts are for people: the PHP client puts the
//! body of any answer but 200 into the exception that its user reads.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    UPGRADE,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde::ser::Serializer;

use crate::protocol::signing::SignatureError;
use crate::websocket::handshake;

use super::address_limits::OverLimit;
use super::body::Unreceived;
use super::gateway::Unserved;

/// A response with its body. All bodies are complete from the start.
pub(super) type HttpResponse = Response<Bytes>;

/// Encodes an answer as hyper does, so that nobody can tell who has answered. `closes` says that it
/// is the last one of its connection.
pub(super) fn encoded(answer: &HttpResponse, date: &str, closes: bool) -> Vec<u8> {
    let closes = closes && !answer.headers().contains_key(CONNECTION);
    let headers = answer.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    encode(answer.status(), headers, answer.body(), date, closes)
}

/// Encodes [`done`] without making it: most publishes ask for no more.
pub(super) fn encoded_done(date: &str, closes: bool) -> Vec<u8> {
    let headers = [(CONTENT_TYPE.as_str(), JSON.as_bytes())];
    encode(StatusCode::OK, headers.into_iter(), NOTHING, date, closes)
}

fn encode<'h>(
    status: StatusCode,
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    body: &[u8],
    date: &str,
    closes: bool,
) -> Vec<u8> {
    // Room for the line and the headers of most answers.
    const HEAD: usize = 256;
    let mut text = Vec::with_capacity(HEAD + body.len());
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    let mut field = |name: &str, value: &[u8]| {
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
    };
    for (name, value) in headers {
        field(name, value);
    }
    if closes {
        field("connection", b"close");
    }
    field("content-length", body.len().to_string().as_bytes());
    field("date", date.as_bytes());
    text.extend_from_slice(b"\r\n\r\n");
    text.extend_from_slice(body);
    text
}

/// The media type of every answer but sentences.
const JSON: &str = "application/json";

/// An object without anything.
const NOTHING: &[u8] = b"{}";

/// Whether an answer is the last one of its connection.
pub(super) fn closes(answer: &HttpResponse) -> bool {
    answer.headers().get_all(CONNECTION).iter().any(|value| value == "close")
}

/// 200 with a JSON object.
pub(super) fn json(object: &impl Serialize) -> HttpResponse {
    json_with(StatusCode::OK, object)
}

/// 200 with `{}`.
pub(super) fn done() -> HttpResponse {
    answer(StatusCode::OK, JSON, Bytes::from_static(NOTHING))
}

/// 200 with encoded JSON.
pub(super) fn json_text(text: Vec<u8>) -> HttpResponse {
    answer(StatusCode::OK, JSON, text.into())
}

fn json_with(status: StatusCode, object: &impl Serialize) -> HttpResponse {
    // Serialising our own structs to memory cannot fail; an empty object is still JSON.
    let text = serde_json::to_vec(object).unwrap_or_else(|_| b"{}".to_vec());
    answer(status, JSON, text.into())
}

/// Marks an answer that is about this node alone, because the Redis of its cluster is away.
pub(super) fn of_this_node(answer: HttpResponse) -> HttpResponse {
    with(answer, SCOPE, "node")
}

/// The header that says what an answer is about, if that is not the whole server.
const SCOPE: HeaderName = HeaderName::from_static("ringwave-scope");

/// 101: the connection leaves HTTP. Extensions and subprotocols are never negotiated.
pub(super) fn switching_protocols(accept: &str) -> Result<HttpResponse, Rejection> {
    let accept = HeaderValue::from_str(accept).map_err(|_| Rejection::BAD_REQUEST)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// An answer other than success.
#[derive(Debug)]
pub(super) enum Rejection {
    /// A status with a sentence.
    Text(StatusCode, Cow<'static, str>),
    /// 404 with an empty object, as Reverb answers for an unoccupied presence channel.
    Unoccupied,
    /// 400: not exactly one `Host` (RFC 9112 section 3.2). A proxy in front may take another one
    /// than we do and then see other requests too, so the connection ends.
    Host,
    /// 400: both `Transfer-Encoding` and `Content-Length` (RFC 9112 section 6.3). A proxy in front
    /// may believe the one that hyper ignores, so the connection ends.
    TwoLengths,
    /// 405, with the methods that are served.
    Method(&'static str),
    /// 422: the body is JSON, but violates the rules of the endpoint.
    Invalid(Violations),
    /// 503: the same request may succeed soon.
    Unserved(Unserved),
    /// 429: the same request may succeed when this much time has passed.
    TooMany(String, Duration),
    /// 429: the client's address is at a limit. `close` ends the connection.
    OverLimit { cause: OverLimit, close: bool },
    /// 401: the request is not signed by the app, for this reason. `close` ends the connection,
    /// because the body was not read to its end.
    Signature { error: SignatureError, close: bool },
    /// The body was not received.
    Body(Unreceived),
    /// The request to a WebSocket endpoint is no valid handshake.
    Handshake(handshake::HandshakeError),
}

impl Rejection {
    pub(super) const BAD_REQUEST: Self = Self::text(StatusCode::BAD_REQUEST, "Bad request.");
    pub(super) const NOT_FOUND: Self = Self::text(StatusCode::NOT_FOUND, "Not found.");
    pub(super) const BUSY: Self = Self::Unserved(Unserved::Overloaded);

    pub(super) const fn text(status: StatusCode, text: &'static str) -> Self {
        Self::Text(status, Cow::Borrowed(text))
    }

    /// 401 to a request whose body was read.
    pub(super) const fn signature(error: SignatureError) -> Self {
        Self::Signature { error, close: false }
    }

    pub(super) fn into_answer(self) -> HttpResponse {
        match self {
            Self::Text(status, text) => sentence(status, text),
            Self::Unoccupied => answer(StatusCode::NOT_FOUND, JSON, Bytes::from_static(NOTHING)),
            Self::Host => {
                let text = "A request must have exactly one Host header.";
                with(sentence(StatusCode::BAD_REQUEST, text), CONNECTION, "close")
            }
            Self::TwoLengths => {
                let text = "A request must not have both Transfer-Encoding and Content-Length.";
                with(sentence(StatusCode::BAD_REQUEST, text), CONNECTION, "close")
            }
            Self::Method(allowed) => {
                let answer = sentence(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.");
                with(answer, ALLOW, allowed)
            }
            Self::Invalid(violations) => json_with(StatusCode::UNPROCESSABLE_ENTITY, &violations),
            Self::Unserved(cause) => unserved(cause),
            Self::TooMany(text, wait) => too_many(text, wait),
            Self::OverLimit { cause, close } => over_limit(cause, close),
            Self::Signature { error, close } => {
                let answer = sentence(StatusCode::UNAUTHORIZED, error.to_string());
                if close { with(answer, CONNECTION, "close") } else { answer }
            }
            Self::Body(cause) => no_body(cause),
            Self::Handshake(refusal) => no_websocket(refusal),
        }
    }
}

/// The violations of a request, as pairs of a field and a sentence. They serialise in Laravel's
/// form, a map from fields to lists of sentences.
#[derive(Debug, Default)]
pub(super) struct Violations(Vec<(String, String)>);

impl Violations {
    pub(super) fn add(&mut self, field: impl Into<String>, sentence: impl Into<String>) {
        self.0.push((field.into(), sentence.into()));
    }

    pub(super) fn none(&self) -> bool {
        self.0.is_empty()
    }
}

/// Shows the sentences one after the other.
impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        self.0.iter().try_for_each(|(_, sentence)| {
            write!(f, "{}{sentence}", std::mem::replace(&mut space, " "))
        })
    }
}

impl Serialize for Violations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(field, sentence)| (field, [sentence])))
    }
}

fn unserved(cause: Unserved) -> HttpResponse {
    let (text, seconds) = match cause {
        Unserved::Overloaded => ("Over capacity, try again.", "1"),
        // A failover takes about as long.
        Unserved::RedisAway => ("The Redis of the cluster is away, try again.", "5"),
        Unserved::NodesSilent => ("Not all nodes of the cluster answer, try again.", "1"),
    };
    with(sentence(StatusCode::SERVICE_UNAVAILABLE, text), RETRY_AFTER, seconds)
}

fn too_many(text: String, wait: Duration) -> HttpResponse {
    let mut answer = sentence(StatusCode::TOO_MANY_REQUESTS, text);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    answer
}

fn over_limit(cause: OverLimit, close: bool) -> HttpResponse {
    match cause {
        OverLimit::Connections => {
            let text = "Too many connections from this address, try again later.";
            let answer = too_many(text.to_owned(), Duration::ZERO);
            if close { with(answer, CONNECTION, "close") } else { answer }
        }
        OverLimit::Requests(wait) => {
            too_many("Too many requests from this address, try again later.".to_owned(), wait)
        }
    }
}

fn no_body(cause: Unreceived) -> HttpResponse {
    let answer = match cause {
        Unreceived::TooLarge => sentence(StatusCode::PAYLOAD_TOO_LARGE, "Payload too large."),
        Unreceived::TooSlow => sentence(StatusCode::REQUEST_TIMEOUT, "Request timeout."),
        Unreceived::OverBudget => Rejection::BUSY.into_answer(),
        Unreceived::Broken => sentence(StatusCode::BAD_REQUEST, "Bad request."),
    };
    // The rest of the body is not read, so the bytes that follow on the connection are no request.
    with(answer, CONNECTION, "close")
}

fn no_websocket(refusal: handshake::HandshakeError) -> HttpResponse {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = sentence(status, refusal.to_string());
    for &(name, value) in refusal.headers() {
        answer.headers_mut().append(name, HeaderValue::from_static(value));
    }
    // The bytes behind the head may be frames, so they must not be read as a request.
    answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn sentence(status: StatusCode, text: impl Into<Cow<'static, str>>) -> HttpResponse {
    let bytes = match text.into() {
        Cow::Borrowed(text) => text.into(),
        Cow::Owned(text) => text.into(),
    };
    answer(status, "text/plain; charset=utf-8", bytes)
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> HttpResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, content_type)
}

fn with(mut answer: HttpResponse, name: HeaderName, value: &'static str) -> HttpResponse {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}
