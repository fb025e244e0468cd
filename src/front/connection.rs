//! One connection that speaks HTTP: hyper drives the requests, and what comes after them (a
//! handover, a refusal or a plain close) is decided here.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use crate::id::ConnKey;
use crate::protocol::close;
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::http::request;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::accepted::{Arrival, Opening};
use super::address::Peer;
use super::client_admission::ClientAdmission;
use super::framing::Framing;
use super::gateway::{Gateway, GatewayCommand, Upgraded};
use super::in_place::publish::{self, Afterwards, Verdict};
use super::pace::Pace;
use super::permits::Open;
use super::pipe::{Ending, Io, NextRequest, Pipe, Switching};
use super::proxy_header::ProxyHeader;
use super::response::HttpResponse;
use super::service;
use super::settings::HEAD_BYTES_MAX;
use super::state::Front;
use super::upgrade_outcome::{Admitted, UpgradeOutcome};

/// One connection as its requests see it.
struct Connection<G> {
    front: Rc<Front<G>>,
    clients: ClientAdmission,
    pace: Rc<Pace>,
    framing: Rc<Framing>,
    switching: Rc<Switching>,
    pipe: Rc<Pipe>,
    next_request: Rc<NextRequest>,
    /// Set by the request that is answered with 101.
    outcome: RefCell<Option<UpgradeOutcome>>,
}

/// Serves a connection until it ends. While it waits, it holds this future and little else: work
/// that needs more memory is done in futures of its own, one after the other.
pub(super) async fn serve<G: Gateway>(
    pipe: Rc<Pipe>,
    pace: Rc<Pace>,
    arrival: Arrival,
    front: Rc<Front<G>>,
) -> Ending {
    let switching = Rc::new(Switching::default());
    let key = pipe.key();
    let io = Io::new(Rc::clone(&pipe), Rc::clone(&pace), Rc::clone(&switching));
    let open = front.permits.enter(&pace);
    let Some((io, clients, peer)) = welcome(io, arrival, &front, &pace).await else {
        return Ending::Abort;
    };
    let (framing, next_request, outcome) = (io.framing(), io.next_request(), RefCell::default());
    let connection = Rc::new(Connection {
        front: Rc::clone(&front),
        clients,
        pace: Rc::clone(&pace),
        framing,
        switching,
        pipe,
        next_request,
        outcome,
    });
    match speak_http(io, peer, &connection, open).await {
        Left::Late => Ending::Abort,
        Left::AsAsked => Ending::Close,
        Left::Http(io, read) => {
            let outcome = connection.outcome.take();
            leave_http(&connection.front, outcome, key, io, read)
        }
    }
}

/// Serves requests until the connection is to end as one of HTTP.
fn speak_http<G: Gateway>(
    io: Io,
    peer: Peer,
    connection: &Rc<Connection<G>>,
    open: Open<'_>,
) -> impl Future<Output = Left> {
    let service = {
        let connection = Rc::clone(connection);
        service_fn(move |request: Request<Incoming>| {
            let connection = Rc::clone(&connection);
            // This is done now and not in the task, because hyper reads the body as soon as this
            // returns.
            let two_lengths = connection.framing.head_taken(request.body().size_hint().exact());
            let (head, mut body) = request.into_parts();
            async move {
                let answer = connection.respond(&head, two_lengths, &mut body).await;
                Ok::<_, Infallible>(answer.map(Full::new))
            }
        })
    };
    // This is made before the future, which would hold the socket a second time.
    let mut http = protocol().serve_connection(io, service);
    async move {
        // Until it leaves HTTP, it may be closed to make room for another connection.
        let _open = open;
        let Connection { front, pace, pipe, next_request, .. } = &**connection;
        let (mut stopping, mut last_request) = (false, false);
        let ended = loop {
            let next = poll_fn(|cx| {
                if !stopping && pace.stops() {
                    stopping = true;
                    pace.hurry(front.settings.get().head_timeout_at_stop);
                }
                loop {
                    if next_request.is_due(pipe) {
                        return Poll::Ready(Next::Request);
                    }
                    if !stopping && next_request.is_awaited(pipe, cx) {
                        return pace.poll_late(cx).map(|()| Next::Late);
                    }
                    // hyper is polled first, because it may move the deadline that is looked at
                    // afterwards.
                    if let Poll::Ready(result) = Pin::new(&mut http).poll(cx) {
                        return Poll::Ready(Next::End(result));
                    }
                    if next_request.is_due(pipe) {
                        continue;
                    }
                    // If hyper were told so before anything has come, it would close the connection
                    // of a client whose request is on its way.
                    if !stopping || last_request || !pace.has_heard() {
                        return pace.poll_late(cx).map(|()| Next::Late);
                    }
                    last_request = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
            });
            match next.await {
                Next::Request => match connection.answer_in_place().await {
                    Afterwards::Kept => {}
                    Afterwards::Closes => return Left::AsAsked,
                    Afterwards::Lingers => break Ok(()),
                },
                Next::End(result) => break result,
                Next::Late => {
                    // It gets no answer.
                    if pace.in_head() && !pace.has_to_yield() {
                        front.note_slow_head(peer);
                    }
                    return Left::Late;
                }
            }
        };
        let parts = http.into_parts();
        if let Err(error) = &ended {
            front.note_unread(peer, &parts.io.beginning(), error);
            connection.outcome.take();
        }
        Left::Http(parts.io, parts.read_buf)
    }
}

/// The end of a connection as one of HTTP.
enum Left {
    /// It was late.
    Late,
    /// The last request was answered in place, and asked for the end.
    AsAsked,
    /// Anything else: what becomes of it depends on its last request. With the bytes that hyper has
    /// read and not parsed.
    Http(Io, Bytes),
}

/// The next thing that happens to a connection.
enum Next {
    /// A request has come that may be answered in place.
    Request,
    /// hyper has ended it.
    End(hyper::Result<()>),
    /// It is late.
    Late,
}

/// The turns in which bytes come that were sent together with those that have come: one to ask the
/// kernel whether there are any, and one to receive them.
const TURNS_FOR_BYTES: usize = 2;

impl<G: Gateway> Connection<G> {
    /// Answers the request that has come, or leaves it to hyper.
    async fn answer_in_place(&self) -> Afterwards {
        let Self { front, clients, pace, pipe, next_request, .. } = self;
        let mut received = pipe.take_received();
        pace.received();
        let answer = loop {
            match publish::take(front, clients, pace, &mut received) {
                Verdict::Submitted(publish) => {
                    // In a box, because a connection that waits is not to hold the memory of this.
                    break Box::pin(publish.answer(front, clients, pace, &received)).await;
                }
                Verdict::Refused(answer) => break answer,
                Verdict::Partial(len) if self.receive(&mut received, len).await => {}
                Verdict::Partial(_) | Verdict::OfHyper => {
                    next_request.decide(false);
                    pipe.put_back(received);
                    return Afterwards::Kept;
                }
            }
        };
        next_request.decide(true);
        pipe.write(answer.response);
        received.drain(..answer.len);
        pipe.put_back(received);
        let settings = front.settings.get();
        pace.served(settings.idle_timeout, settings.head_timeout);
        answer.afterwards
    }

    /// Receives until there are this many bytes. Returns `false` if they are long in coming.
    async fn receive(&self, received: &mut Vec<u8>, len: usize) -> bool {
        while received.len() < len {
            let before = received.len();
            self.pipe.ask();
            for _ in 0..TURNS_FOR_BYTES {
                self.pace.next_turn().await;
                received.append(&mut self.pipe.take_received());
                if received.len() > before {
                    break;
                }
            }
            if received.len() == before {
                return false;
            }
        }
        true
    }

    async fn respond(
        &self,
        head: &request::Parts,
        two_lengths: bool,
        body: &mut Incoming,
    ) -> HttpResponse {
        let Self { front, clients, pace, framing, switching, outcome, .. } = self;
        pace.serving();
        let answer = service::respond(front, clients, pace, head, two_lengths, body, outcome).await;
        framing.answered();
        if outcome.borrow().is_some() {
            switching.begin();
        }
        let settings = front.settings.get();
        pace.served(settings.idle_timeout, settings.head_timeout);
        answer
    }
}

/// Ends a connection as one of HTTP: it closes, or it is a WebSocket from now on. `read` is what
/// hyper has read and not parsed.
fn leave_http<G: Gateway>(
    front: &Front<G>,
    outcome: Option<UpgradeOutcome>,
    key: ConnKey,
    mut io: Io,
    read: Bytes,
) -> Ending {
    // A peer that has ended has nothing more to send, which a close could answer by a reset.
    let ending = if io.is_at_end() { Ending::Close } else { Ending::Linger };
    match outcome {
        None => ending,
        Some(UpgradeOutcome::Admitted(admitted)) => {
            hand_over(&front.gateway, admitted, key, io, read);
            Ending::HandedOver
        }
        Some(UpgradeOutcome::Refused(error)) => {
            // The client is told why its WebSocket is closed again.
            io.send(close::refusal_frames(error).bytes());
            ending
        }
    }
}

/// Finds out who connects. None: the connection closes without an answer.
async fn welcome<G: Gateway>(
    mut io: Io,
    arrival: Arrival,
    front: &Front<G>,
    pace: &Pace,
) -> Option<(Io, ClientAdmission, Peer)> {
    let Arrival { peer, opening, clients, .. } = arrival;
    if let Some(clients) = clients {
        return Some((io, clients, peer));
    }
    let peer = match opening {
        Opening::Http => peer,
        Opening::ProxyHeader => {
            let Some(header) = proxy_header(&mut io, front, pace).await else {
                if !pace.has_to_yield() && !pace.stops() {
                    front.note_no_proxy_header(peer);
                }
                return None;
            };
            header.client.map_or(peer, Peer::of)
        }
    };
    let clients = ClientAdmission::arrive(&front.settings.get(), peer);
    if clients.is_none() {
        front.note_flood(peer);
    }
    Some((io, clients?, peer))
}

/// Reads the header of the PROXY protocol. `None` if there is none in time.
async fn proxy_header<G: Gateway>(
    io: &mut Io,
    front: &Front<G>,
    pace: &Pace,
) -> Option<ProxyHeader> {
    let mut header = pin!(io.proxy_header());
    let mut stopping = false;
    poll_fn(|cx| {
        if !stopping && pace.stops() {
            stopping = true;
            pace.hurry(front.settings.get().head_timeout_at_stop);
        }
        match header.as_mut().poll(cx) {
            Poll::Ready(header) => Poll::Ready(header),
            Poll::Pending => pace.poll_late(cx).map(|()| None),
        }
    })
    .await
}

/// HTTP/1.1 as the front speaks it.
fn protocol() -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without it hyper reads on while it answers, and such a read would eat the first WebSocket
    // frames behind a 101. It also lets clients end their direction before they have the answer.
    http.half_close(true);
    // `Pace` has the deadlines: hyper's would count for idle connections as well.
    http.header_read_timeout(None);
    // Bounds the head (431 beyond), and how much of a body is read ahead of us.
    http.max_buf_size(HEAD_BYTES_MAX);
    http.max_headers(HEADERS_MAX);
    // Off: it holds a response back while further input waits, a 101 with frames behind it too.
    http.pipeline_flush(false);
    http
}

/// Gives the connection to the shard.
fn hand_over<G: Gateway>(gateway: &G, admitted: Admitted, key: ConnKey, io: Io, read: Bytes) {
    let (opening, received) = io.into_parts();
    let leftover = joined(read, received);
    let Admitted { admission, reservation, permit, client } = admitted;
    gateway.submit(GatewayCommand::Adopt(Upgraded {
        admission,
        reservation,
        permit,
        client,
        key,
        opening,
        leftover,
    }));
}

/// What hyper had read and not parsed, then what the socket had received and hyper not read.
fn joined(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        // An empty buffer still holds its memory.
        (true, true) => Bytes::new(),
        (true, false) => second,
        (false, true) => first,
        (false, false) => {
            let mut joined = BytesMut::from(first);
            joined.extend_from_slice(&second);
            joined.freeze()
        }
    }
}

/// Most headers of a request: more than fit into the 10,000 bytes that Reverb takes by default. A
/// number costs two allocations per request (0.3 us; past 4,000 they would be 20 us, pages of the
/// kernel's), and without one hyper takes 100.
const HEADERS_MAX: usize = 2_048;
