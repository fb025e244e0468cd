//! The deadlines of one connection. They are absolute: a peer that sends a byte now and then gains
//! nothing by it.
//!
//! The connection's task moves the deadline, and waits for its end ([`Pace::poll_late`]); the
//! reception, which knows the time, [ends](Pace::expire) it. So a deadline costs no timer.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The thing that a connection without a request in service waits for, the less valuable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    /// Another request.
    Request,
    /// The rest of a head, or the first one.
    Head,
}

/// What the peer may take its time for, shared by those who notice: the socket (bytes arrive), the
/// service (a request is complete, a response is ready), the task that closes and the reception.
#[derive(Debug)]
pub(super) struct Pace {
    /// From the first byte of a request to the end of its head. Set anew with each response.
    head: Cell<Duration>,
    /// No request has begun since the last response.
    waiting: Cell<bool>,
    /// Some of a head has come.
    begun: Cell<bool>,
    /// Anything has ever come.
    heard: Cell<bool>,
    /// None while a request is served: the body and the shard have deadlines of their own.
    deadline: Cell<Option<Instant>>,
    /// The time of the accept, of the last response, or of the first byte of a head behind it.
    since: Cell<Instant>,
    /// The deadline has passed.
    late: Cell<bool>,
    /// The connection has to close, to make room for another one.
    yields: Cell<bool>,
    /// The front stops.
    stops: Cell<bool>,
    /// The task that closes.
    task: RefCell<Option<Waker>>,
}

impl Pace {
    /// A new connection: its first head is due within `head` of the accept, which was at `now`.
    pub(super) fn new(head: Duration, now: Instant) -> Self {
        Self {
            head: Cell::new(head),
            waiting: Cell::new(false),
            begun: Cell::new(false),
            heard: Cell::new(false),
            deadline: Cell::new(Some(now + head)),
            since: Cell::new(now),
            late: Cell::new(false),
            yields: Cell::new(false),
            stops: Cell::new(false),
            task: RefCell::default(),
        }
    }

    /// Bytes arrived, or the end of the stream.
    pub(super) fn received(&self) {
        self.begun.set(true);
        self.heard.set(true);
        if self.waiting.replace(false) {
            let now = Instant::now();
            self.deadline.set(Some(now + self.head.get()));
            self.since.set(now);
            self.yields.set(false);
            self.late.set(false);
        }
    }

    /// A head is complete.
    pub(super) fn serving(&self) {
        self.waiting.set(false);
        self.begun.set(false);
        self.deadline.set(None);
        self.yields.set(false);
        self.late.set(false);
    }

    /// The response is on its way. The next request has to begin within `idle`, the writing of the
    /// response included, and its head is due within `head` of its first byte.
    pub(super) fn served(&self, idle: Duration, head: Duration) {
        self.head.set(head);
        self.waiting.set(true);
        let now = Instant::now();
        self.deadline.set(Some(now + idle));
        self.since.set(now);
    }

    /// The thing that it waits for, and the time since when. `None` while a request is served.
    pub(super) fn awaits(&self) -> Option<(Awaited, Instant)> {
        self.deadline.get()?;
        let awaited = if self.waiting.get() { Awaited::Request } else { Awaited::Head };
        Some((awaited, self.since.get()))
    }

    /// Another connection needs its permit: it is late from now on, unless the next bytes are there
    /// already.
    pub(super) fn yield_place(&self) {
        self.yields.set(true);
        self.wake();
    }

    /// The deadline, if there is one and it has not passed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.get().filter(|_| !self.late.get())
    }

    /// Makes the connection late if its deadline has passed.
    pub(super) fn expire(&self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.late.set(true);
            self.wake();
        }
    }

    /// Tells the task that the front stops.
    pub(super) fn stop(&self) {
        self.stops.set(true);
        self.wake();
    }

    /// Whether the front stops.
    pub(super) fn stops(&self) -> bool {
        self.stops.get()
    }

    fn wake(&self) {
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    /// Whether it is late because another connection needs its permit.
    pub(super) fn has_to_yield(&self) -> bool {
        self.yields.get()
    }

    /// Whether a request has begun whose head has not ended. A connection on which nothing came, as
    /// browsers open them for later, has begun none.
    pub(super) fn in_head(&self) -> bool {
        self.begun.get()
    }

    /// Whether anything has come since the accept.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.get()
    }

    /// The front stops: from now on a head is due within `head` of the accept, or of its first byte
    /// on a connection that had others. A request that is being served keeps its own deadlines.
    pub(super) fn hurry(&self, head: Duration) {
        if let (false, Some(deadline)) = (self.waiting.get(), self.deadline.get()) {
            self.deadline.set(Some(deadline - self.head.get() + head));
        }
    }

    /// Ready when the deadline has passed, or another connection needs the permit. Always polled by
    /// the same task, which is woken by then, and when the front stops.
    pub(super) fn poll_late(&self, cx: &Context<'_>) -> Poll<()> {
        if self.yields.get() || self.late.get() {
            return Poll::Ready(());
        }
        let task = &mut *self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    #[test]
    fn the_first_head_has_its_deadline_from_the_accept_whatever_trickles_in() {
        let pace = Pace::new(HEAD, Instant::now());
        let deadline = pace.deadline.get();
        assert!(deadline.is_some_and(|at| at <= Instant::now() + HEAD));
        pace.received();
        assert_eq!(pace.deadline.get(), deadline);
    }

    #[test]
    fn a_request_in_service_has_no_deadline_here() {
        let pace = Pace::new(HEAD, Instant::now());
        pace.serving();
        pace.received();
        assert_eq!(pace.deadline.get(), None);
    }

    #[test]
    fn at_a_stop_a_new_connection_has_a_moment_for_its_head_and_a_request_all_its_time() {
        let brief = Duration::from_millis(100);
        let pace = Pace::new(HEAD, Instant::now());
        let accepted = pace.deadline.get().unwrap() - HEAD;
        pace.hurry(brief);
        assert_eq!(pace.deadline.get(), Some(accepted + brief));
        pace.serving();
        pace.hurry(brief);
        assert_eq!(pace.deadline.get(), None);
    }

    #[test]
    fn an_idle_connection_has_a_long_deadline_and_its_next_head_a_short_one() {
        let pace = Pace::new(HEAD, Instant::now());
        pace.serving();
        let before = Instant::now();
        pace.served(IDLE, HEAD);
        assert!(pace.deadline.get().is_some_and(|at| at >= before + IDLE));
        pace.received();
        let head = pace.deadline.get();
        assert!(head.is_some_and(|at| at <= Instant::now() + HEAD));
        pace.received();
        assert_eq!(pace.deadline.get(), head, "later bytes do not move it");
    }
}
