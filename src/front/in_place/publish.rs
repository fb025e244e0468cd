//! A publish of the API: `POST …/events` or `POST …/batch_events`. Whatever its answer is, it is
//! made by the functions that also answer behind hyper.

use std::mem::MaybeUninit;

use httparse::Header;
use hyper::StatusCode;
use tracing::Level;

use super::super::body::Held;
use super::super::client_admission::ClientAdmission;
use super::super::gateway::Gateway;
use super::super::headers::{RequestHeaders, text};
use super::super::pace::Pace;
use super::super::response::{HttpResponse, Rejection, closes, encoded, encoded_done};
use super::super::route::{Endpoint, Route};
use super::super::service;
use super::super::settings::HEAD_BYTES_MAX;
use super::super::state::Front;
use super::{has_none, head, head_len};

/// The beginning of every publish.
pub(in super::super) const BEGINNING: &[u8] = b"POST ";

/// The headers of a publish that is read in place: publishers send fewer than ten, and proxies add
/// a few. One with more takes the other way.
const HEADERS_IN_PLACE: usize = 24;

/// The longest body that is waited for, in bytes: a batch of ten events of usual size comes in two
/// or three pieces. As many bytes as of a head are kept for a client that has signed nothing yet.
const BODY_BYTES_MAX: usize = HEAD_BYTES_MAX;

/// The verdict on the bytes of a request.
pub(in super::super) enum Verdict<'c> {
    /// It is a publish, which is being served.
    Submitted(Submitted<'c>),
    /// It is a publish that is refused, with this answer.
    Refused(Answer),
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

/// A publish that is being served.
pub(in super::super) struct Submitted<'c> {
    publish: service::Submitted<'c>,
    /// The lengths of the head, and of all of the request, in bytes.
    head_len: usize,
    len: usize,
    /// The fate of the connection if the answer does not decide it.
    asked: Afterwards,
    _held: Held,
}

impl Submitted<'_> {
    /// Waits for the answer. `received` are the bytes that it was taken from.
    pub(in super::super) async fn answer<G: Gateway>(
        self,
        front: &Front<G>,
        clients: &ClientAdmission,
        pace: &Pace,
        received: &[u8],
    ) -> Answer {
        let Self { publish, head_len, len, asked, _held } = self;
        let (app, route) = publish.counted_as();
        let head_bytes = received.get(..head_len).unwrap_or_default();
        let answer = match publish.answer(front, pace).await {
            Ok(answer) => answer,
            Err(rejection) => Some(refusal(front, clients, head_bytes, rejection)),
        };
        let status = answer.as_ref().map_or(StatusCode::OK, HttpResponse::status);
        front.gateway.count_answer(app, route, status);
        if tracing::enabled!(Level::DEBUG) {
            trace(front, clients, head_bytes, status);
        }
        Answer::of(front, answer.as_ref(), len, asked)
    }
}

/// The answer to a publish that the shard has refused. Its head is read once more.
fn refusal<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    head_bytes: &[u8],
    rejection: Rejection,
) -> HttpResponse {
    let mut headers = [MaybeUninit::uninit(); HEADERS_IN_PLACE];
    match head(head_bytes, &mut headers) {
        Some((_, head)) => service::refuse(front, clients, &head, rejection),
        None => service::finish(front, rejection.into_answer()),
    }
}

/// Logs an answer with `--debug`. The head of its request is read once more.
fn trace<G: Gateway>(
    front: &Front<G>,
    clients: &ClientAdmission,
    head_bytes: &[u8],
    status: StatusCode,
) {
    let mut headers = [MaybeUninit::uninit(); HEADERS_IN_PLACE];
    if let Some((_, head)) = head(head_bytes, &mut headers) {
        service::trace(front, clients, &head, status);
    }
}

/// Takes the publish at the beginning of these bytes, if there is one, and spends its body.
/// Otherwise nothing has been counted or changed.
pub(in super::super) fn take<'c, G: Gateway>(
    front: &Front<G>,
    clients: &'c ClientAdmission,
    pace: &Pace,
    received: &mut [u8],
) -> Verdict<'c> {
    look(front, clients, pace, received).unwrap_or(Verdict::OfHyper)
}

fn look<'c, G: Gateway>(
    front: &Front<G>,
    clients: &'c ClientAdmission,
    pace: &Pace,
    received: &mut [u8],
) -> Option<Verdict<'c>> {
    let received_len = received.len();
    let (head_bytes, behind) = received.split_at_mut_checked(head_len(received)?)?;
    let mut headers = [MaybeUninit::uninit(); HEADERS_IN_PLACE];
    let (_, head) = head(head_bytes, &mut headers)?;
    let settings = front.settings.get();
    let Route::Api { app_id, endpoint } = Route::of(head.path, &settings.path_prefix)? else {
        return None;
    };
    let publishes = matches!(endpoint, Endpoint::Events | Endpoint::BatchEvents);
    if head.method != "POST" || !publishes {
        return None;
    }
    let Framing { body_len, closes } = Framing::of(head.headers)?;
    let len = head_bytes.len().checked_add(body_len)?;
    let Some(body) = behind.get_mut(..body_len) else {
        return (body_len <= BODY_BYTES_MAX).then_some(Verdict::Partial(len));
    };
    let asked = match (closes, received_len == len) {
        (false, _) => Afterwards::Kept,
        (true, true) => Afterwards::Closes,
        (true, false) => Afterwards::Lingers,
    };
    let held = front.bodies.take(body_len)?;
    let head_len = head_bytes.len();
    pace.serving();
    Some(match service::submit(front, clients, pace, &head, body, (&app_id, &endpoint)) {
        Ok(publish) => Verdict::Submitted(Submitted { publish, head_len, len, asked, _held: held }),
        Err(rejection) => {
            let refusal = service::refuse(front, clients, &head, rejection);
            service::count(front, &app_id, &endpoint, &refusal);
            service::trace(front, clients, &head, refusal.status());
            Verdict::Refused(Answer::of(front, Some(&refusal), len, asked))
        }
    })
}

impl Answer {
    /// The answer to a request of `len` bytes; `None` is the usual one.
    fn of<G>(
        front: &Front<G>,
        answer: Option<&HttpResponse>,
        len: usize,
        asked: Afterwards,
    ) -> Self {
        let afterwards = match asked {
            Afterwards::Kept if answer.is_some_and(closes) => Afterwards::Lingers,
            asked => asked,
        };
        let last = afterwards != Afterwards::Kept;
        let date = front.date.now();
        let response = match answer {
            Some(answer) => encoded(answer, &date, last),
            None => encoded_done(&date, last),
        };
        Self { len, response, afterwards }
    }
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
