//! The two buffers between a stream of the plane and the task that speaks HTTP on it.
//!
//! The reception moves bytes between the plane and a [`Pipe`]; the task reads and writes the pipe's
//! other side, an [`Io`], which hyper can drive. Whenever the task has done something that the
//! plane has to hear of, the pipe is on the list of [`Touched`] ones.
//!
//! The task takes what came before more is received, and writes nothing more while the peer reads
//! nothing, so a pipe holds at most one receive buffer and one answer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::framing::Framing;
use super::in_place::publish;
use super::pace::Pace;
use super::proxy_header::{self, ProxyHeader, Start};
use super::settings::HEAD_BYTES_MAX;
use crate::id::ConnKey;

/// The pipes whose tasks have done something, each once.
#[derive(Debug, Default)]
pub(super) struct Touched(RefCell<Vec<Rc<Pipe>>>);

impl Touched {
    /// The next pipe. What it holds for the plane is to be taken now.
    pub(super) fn next(&self) -> Option<Rc<Pipe>> {
        let pipe = self.0.borrow_mut().pop()?;
        pipe.is_touched.set(false);
        Some(pipe)
    }
}

/// The end of a task: what becomes of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It closes without another word.
    Abort,
    /// It closes behind the last answer, because nothing more comes from its peer, which has ended
    /// its direction or asked for the end.
    Close,
    /// It closes once its peer has read the last answer.
    Linger,
    /// The shard makes it a WebSocket.
    HandedOver,
}

/// The buffers of one connection.
#[derive(Debug)]
pub(super) struct Pipe {
    key: ConnKey,
    touched: Rc<Touched>,
    is_touched: Cell<bool>,
    /// The bytes that have come and that the task has not taken.
    received: RefCell<Vec<u8>>,
    /// Whether something has come that the task has not noticed.
    is_fresh: Cell<bool>,
    /// Whether the peer has ended its direction.
    ended: Cell<bool>,
    /// Whether the connection has ended.
    closed: Cell<bool>,
    /// Whether the task waits for more bytes, and none are asked for.
    wants_bytes: Cell<bool>,
    /// The bytes that the task has written.
    written: RefCell<Vec<u8>>,
    /// Whether the socket is full.
    blocked: Cell<bool>,
    ending: Cell<Option<Ending>>,
    /// The task that waits.
    task: RefCell<Option<Waker>>,
}

impl Pipe {
    /// The pipe of a connection from which these bytes have come.
    pub(super) fn new(key: ConnKey, touched: &Rc<Touched>, received: &[u8]) -> Rc<Self> {
        Rc::new(Self {
            key,
            touched: Rc::clone(touched),
            is_touched: Cell::new(false),
            received: RefCell::new(received.to_vec()),
            is_fresh: Cell::new(!received.is_empty()),
            ended: Cell::new(false),
            closed: Cell::new(false),
            wants_bytes: Cell::new(false),
            written: RefCell::default(),
            blocked: Cell::new(false),
            ending: Cell::new(None),
            task: RefCell::default(),
        })
    }

    pub(super) const fn key(&self) -> ConnKey {
        self.key
    }

    /// Adds bytes that have come.
    pub(super) fn receive(&self, bytes: &[u8]) {
        let mut received = self.received.borrow_mut();
        if received.is_empty() {
            received.reserve_exact(bytes.len());
        }
        received.extend_from_slice(bytes);
        drop(received);
        self.is_fresh.set(true);
        self.wake();
    }

    /// Notes that the peer has ended its direction.
    pub(super) fn end(&self) {
        self.is_fresh.set(true);
        self.ended.set(true);
        self.wake();
    }

    /// Notes that the connection has ended.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// Notes whether the socket is full.
    pub(super) fn block(&self, blocked: bool) {
        self.blocked.set(blocked);
        self.wake();
    }

    /// Takes what the task has written.
    pub(super) fn take_written(&self) -> Vec<u8> {
        self.written.take()
    }

    /// Whether more bytes are to be received. Said once.
    pub(super) fn take_wants_bytes(&self) -> bool {
        self.wants_bytes.take()
    }

    /// Takes all bytes that have come and that nobody has taken.
    pub(super) fn take_received(&self) -> Vec<u8> {
        self.is_fresh.set(false);
        self.received.take()
    }

    /// Asks for more bytes.
    pub(super) fn ask(self: &Rc<Self>) {
        self.wants_bytes.set(true);
        self.touch();
    }

    /// Gives bytes back that were not used. They come before all that have come since.
    pub(super) fn put_back(&self, mut bytes: Vec<u8>) {
        let mut received = self.received.borrow_mut();
        bytes.append(&mut received);
        *received = bytes;
        self.is_fresh.set(!received.is_empty());
    }

    /// Writes behind what is written.
    pub(super) fn write(self: &Rc<Self>, bytes: Vec<u8>) {
        let mut written = self.written.borrow_mut();
        match written.is_empty() {
            true => *written = bytes,
            false => written.extend_from_slice(&bytes),
        }
        drop(written);
        self.touch();
    }

    /// Whether nothing has come that was not taken.
    fn is_quiet(&self) -> bool {
        self.received.borrow().is_empty() && !self.ended.get() && !self.closed.get()
    }

    fn begins_with(&self, beginning: &[u8]) -> bool {
        self.received.borrow().starts_with(beginning)
    }

    /// The end of the task, once it has ended.
    pub(super) const fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// Ends the task's side.
    pub(super) fn finish(self: &Rc<Self>, ending: Ending) {
        self.ending.set(Some(ending));
        self.touch();
    }

    fn wake(&self) {
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    fn touch(self: &Rc<Self>) {
        if !self.is_touched.replace(true) {
            self.touched.0.borrow_mut().push(Rc::clone(self));
        }
    }

    /// Has this task woken by whatever happens to the connection.
    fn wait(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }
}

/// Whether a connection leaves HTTP. Shared by the service, which decides it, and [`Io`].
#[derive(Debug, Default)]
pub(super) struct Switching(Cell<bool>);

impl Switching {
    /// The response to come is a 101.
    pub(super) fn begin(&self) {
        self.0.set(true);
    }

    fn begun(&self) -> bool {
        self.0.get()
    }
}

/// The way that the next request takes. Shared by [`Io`], which knows when hyper waits for one, and
/// the task, which may [answer it in place](super::in_place).
#[derive(Debug, Default)]
pub(super) struct NextRequest(Cell<Way>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    /// hyper does not wait for one, or has some of it.
    #[default]
    OfHyper,
    /// hyper waits for one, and nothing has come.
    Awaited,
    /// One has come that the task is to look at.
    Undecided,
    /// The task has left it to hyper, which has nothing of it yet.
    Left,
}

impl NextRequest {
    /// Whether one has come that the task is to look at.
    pub(super) fn is_due(&self, pipe: &Pipe) -> bool {
        match self.0.get() {
            Way::Undecided => true,
            Way::Awaited => !pipe.blocked.get() && pipe.begins_with(publish::BEGINNING),
            Way::OfHyper | Way::Left => false,
        }
    }

    /// Notes whether the task has answered it. Then hyper waits for another one, as before.
    pub(super) fn decide(&self, answered: bool) {
        self.0.set(if answered { Way::Awaited } else { Way::Left });
    }

    /// Whether hyper waits for one and nothing has come, so that it need not be polled. Then the
    /// task is woken by whatever comes, for which the pipe asks.
    pub(super) fn is_awaited(&self, pipe: &Rc<Pipe>, cx: &Context<'_>) -> bool {
        let awaited = self.0.get() == Way::Awaited && pipe.is_quiet();
        if awaited {
            pipe.wait(cx);
            pipe.ask();
        }
        awaited
    }
}

/// The first bytes of a connection: they tell which protocol it speaks if that is not HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beginning {
    bytes: [u8; 16],
    len: u8,
}

impl Beginning {
    /// Those that have come.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Takes of what comes as much as is missing.
    fn see(&mut self, received: &[u8]) {
        let (seen, rest) = self.bytes.split_at_mut(usize::from(self.len));
        let more = rest.len().min(received.len());
        if let (Some(rest), Some(received)) = (rest.get_mut(..more), received.get(..more)) {
            rest.copy_from_slice(received);
            // At most 16 bytes: the length fits.
            self.len = (seen.len() + more) as u8;
        }
    }
}

/// The task's side of a [`Pipe`], for hyper. A 101 is not written: what hyper says once the
/// connection has [`Switching::begun`] is kept for the shard, which sends it together with the
/// first frame. Each send that a handshake saves is a tenth of what it costs.
pub(super) struct Io {
    pipe: Rc<Pipe>,
    /// Told when bytes arrive: the deadline of a request's head counts from its first byte.
    pace: Rc<Pace>,
    /// The bound on how many of the received bytes hyper may have at a time.
    framing: Rc<Framing>,
    switching: Rc<Switching>,
    next_request: Rc<NextRequest>,
    /// Whether hyper may hold bytes that it could not write.
    behind: bool,
    /// The bytes that hyper wrote since the connection switches.
    opening: Vec<u8>,
    beginning: Beginning,
}

impl Io {
    pub(super) fn new(pipe: Rc<Pipe>, pace: Rc<Pace>, switching: Rc<Switching>) -> Self {
        Self {
            pipe,
            pace,
            framing: Rc::default(),
            switching,
            next_request: Rc::default(),
            behind: false,
            opening: Vec::new(),
            beginning: Beginning::default(),
        }
    }

    /// Tells the deadlines of what has come since.
    fn notice(&self) {
        if self.pipe.is_fresh.take() {
            self.pace.received();
        }
    }

    /// The state that cuts the bytes that hyper reads. The service tells it of each request.
    pub(super) fn framing(&self) -> Rc<Framing> {
        Rc::clone(&self.framing)
    }

    /// The way of the next request.
    pub(super) fn next_request(&self) -> Rc<NextRequest> {
        Rc::clone(&self.next_request)
    }

    /// Whether the task is to look at the request that hyper waits for, before hyper sees it. While
    /// hyper has something to write, an answer of the task would overtake it.
    fn offers(&self, received: &[u8]) -> bool {
        let way = &self.next_request.0;
        let between = self.framing.is_between_requests() && !self.behind;
        if way.get() == Way::Left || !between || self.pipe.blocked.get() {
            return false;
        }
        let offers = received.starts_with(publish::BEGINNING);
        way.set(match (offers, received.is_empty()) {
            (true, _) => Way::Undecided,
            (false, true) => Way::Awaited,
            (false, false) => Way::OfHyper,
        });
        offers
    }

    /// The first bytes that hyper reads, behind a header of the PROXY protocol.
    pub(super) const fn beginning(&self) -> Beginning {
        self.beginning
    }

    /// Takes the header of the PROXY protocol that a connection begins with; what came behind it
    /// is the first of what hyper reads. None when it is none, and when the stream ends before.
    pub(super) async fn proxy_header(&mut self) -> Option<ProxyHeader> {
        loop {
            let start = proxy_header::parse(&self.pipe.received.borrow());
            match start {
                Start::Whole(header) => {
                    self.take(header.len);
                    return Some(header);
                }
                Start::Partial => {}
                Start::Wrong => return None,
            }
            let before = self.pipe.received.borrow().len();
            poll_fn(|cx| self.poll_more(cx, before)).await.ok()?;
            if self.pipe.received.borrow().len() == before {
                return None;
            }
        }
    }

    /// Whether the peer has ended its direction, and everything from it was taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.pipe.ended.get() && self.pipe.received.borrow().is_empty()
    }

    /// What hyper wrote for the shard to send, and the bytes that came and hyper has not taken.
    pub(super) fn into_parts(self) -> (Vec<u8>, Bytes) {
        (self.opening, Bytes::from(self.pipe.received.take()))
    }

    /// Writes what hyper wrote since the connection switches, then `bytes`.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let mut written = self.pipe.written.borrow_mut();
        written.append(&mut self.opening);
        written.extend_from_slice(bytes);
        drop(written);
        self.pipe.touch();
    }

    fn take(&mut self, count: usize) {
        let mut received = self.pipe.received.borrow_mut();
        if count >= received.len() {
            // An empty buffer would keep its memory for as long as the peer sends nothing.
            *received = Vec::new();
        } else {
            received.drain(..count);
        }
    }

    /// Ready once there are more bytes than these, or the peer has ended.
    fn poll_more(&self, cx: &mut Context<'_>, have: usize) -> Poll<io::Result<()>> {
        let pipe = &self.pipe;
        self.notice();
        if pipe.closed.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.received.borrow().len() > have || pipe.ended.get() {
            return Poll::Ready(Ok(()));
        }
        pipe.wait(cx);
        pipe.ask();
        Poll::Pending
    }

    /// Ready once the socket takes bytes.
    fn poll_unblocked(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.pipe.closed.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.pipe.blocked.get() {
            self.pipe.wait(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let io = &mut *self;
        io.notice();
        loop {
            let pipe = Rc::clone(&io.pipe);
            let received = pipe.received.borrow();
            if io.offers(&received) {
                // The task looks at it as soon as hyper returns.
                return Poll::Pending;
            }
            let ended = pipe.ended.get();
            let all = ended || received.len() >= HEAD_BYTES_MAX;
            let count = match received.is_empty() {
                true => 0,
                false => io.framing.give(&received, buffer.remaining(), all),
            };
            if count > 0 || ended {
                let given = received.get(..count).unwrap_or_default();
                buffer.put_slice(given);
                io.next_request.0.set(Way::OfHyper);
                io.beginning.see(given);
                drop(received);
                io.take(count);
                return Poll::Ready(Ok(()));
            }
            let have = received.len();
            drop(received);
            ready!(io.poll_more(cx, have))?;
        }
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let unblocked = self.poll_unblocked(cx);
        self.behind |= unblocked.is_pending();
        ready!(unblocked)?;
        if self.switching.begun() {
            self.opening.extend_from_slice(bytes);
        } else {
            self.pipe.written.borrow_mut().extend_from_slice(bytes);
            self.pipe.touch();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.poll_unblocked(cx);
        self.behind = flushed.is_pending();
        flushed
    }

    /// Flushes only: how the connection closes is decided behind hyper.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unblocked(cx)
    }
}
