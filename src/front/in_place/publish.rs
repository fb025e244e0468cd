//! A publish of the API: `POST …/events` or `POST …/batch_events`. Whatever its answer is, it is
//! made by the functions that also answer behind hyper.

use httparse::{EMPTY_HEADER, Header};

use super::super::client_admission::ClientAdmission;
use super::super::gateway::Gateway;
use super::super::headers::{RequestHeaders, text};
use super::super::pace::Pace;
use super::super::response::{closes, encoded};
use super::super::route::{Endpoint, Route};
use super::super::service;
use super::super::settings::HEAD_BYTES_MAX;
use super::super::state::Front;
use super::{has_none, head};

/// The beginning of every publish.
pub(in super::super) const BEGINNING: &[u8] = b"POST ";

/// The headers of a publish that is read in place: publishers send fewer than ten, and proxies add
/// a few. One with more takes the other way.
const HEADERS_IN_PLACE: usize = 24;

/// The longest body that is waited for, in bytes: a batch of ten events of usual size comes in two
/// or three pieces. As many bytes as of a head are kept for a client that has signed nothing yet.
const BODY_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// The verdict on the bytes of a request.
#[derive(Debug)]
pub(in super::super) enum Verdict {
    /// It is a publish, and answered.
    Answered(Answer),
    /// It is the beginning of a publish of this many bytes, if the rest is not long in coming.
    Partial(usize),
    /// It is hyper's.
    OfHyper,
}

/// The answer to a publish.
#[derive(Debug)]
pub(in super::super) struct Answer {
    /// The bytes that the request took.
    pub(in super::super) len: usize,
    /// The response as it is sent.
    pub(in super::super) response: Vec<u8>,
    /// The fate of the connection behind the response.
    pub(in super::super) afterwards: Afterwards,
}

/// The fate of a connection behind a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Afterwards {
    /// It is kept.
    Kept,
    /// It closes, as its client has asked, which therefore sends nothing more (RFC 9112 section
    /// 9.6).
    Closes,
    /// It closes, although its client may send more.
    Lingers,
}

/// Answers the publish at the beginning of these bytes, if there is one. Otherwise nothing has been
/// counted.
pub(in super::super) async fn answer<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    pace: &Pace,
    received: &[u8],
) -> Verdict {
    look(front, clients, pace, received).await.unwrap_or(Verdict::OfHyper)
}

async fn look<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    pace: &Pace,
    received: &[u8],
) -> Option<Verdict> {
    let mut headers = [EMPTY_HEADER; HEADERS_IN_PLACE];
    let (head_len, head) = head(received, &mut headers)?;
    let framing = Framing::of(head.headers)?;
    let settings = front.settings.get();
    let Route::Api { app_id, endpoint } = Route::of(head.path, &settings.path_prefix)? else {
        return None;
    };
    let publishes = matches!(endpoint, Endpoint::Events | Endpoint::BatchEvents);
    if head.method != "POST" || !publishes {
        return None;
    }
    let len = head_len.checked_add(framing.body_len)?;
    let Some(body) = received.get(head_len..len) else {
        return (framing.body_len <= BODY_BYTES_MAX).then_some(Verdict::Partial(len));
    };
    let _held = front.bodies.take(body.len())?;
    // It is copied, because the parser of JSON writes into it.
    let mut body = body.to_vec();
    pace.serving();
    let answer =
        service::respond_whole(front, clients, pace, &head, &mut body, &app_id, endpoint).await;
    let afterwards = match (framing.closes, closes(&answer)) {
        (true, _) if received.len() == len => Afterwards::Closes,
        (false, false) => Afterwards::Kept,
        _ => Afterwards::Lingers,
    };
    let response = encoded(&answer, &front.date.now(), afterwards != Afterwards::Kept);
    Some(Verdict::Answered(Answer { len, response, afterwards }))
}

/// The frame of a request whose framing is beyond doubt.
struct Framing {
    /// The length of the body in bytes.
    body_len: usize,
    /// Whether the client asks for the end of the connection.
    closes: bool,
}

impl Framing {
    fn of(headers: &[Header<'_>]) -> Option<Self> {
        let only = |name| {
            let mut values = headers.values(name);
            values.next().filter(|_| values.next().is_none())
        };
        if !has_none(headers, &["upgrade"]) {
            return None;
        }
        let length = text(only("content-length")?)?;
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let body_len = length.parse().ok().filter(|_| digits)?;
        let closes = match has_none(headers, &["connection"]) {
            true => false,
            false => match text(only("connection")?)? {
                option if option.eq_ignore_ascii_case("keep-alive") => false,
                option if option.eq_ignore_ascii_case("close") => true,
                _ => return None,
            },
        };
        Some(Self { body_len, closes })
    }
}
