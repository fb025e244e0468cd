//! The deadline of one connection. It is absolute: a peer that sends a byte now and then gains
//! nothing by it.
//!
//! A connection has one deadline at a time, for the one thing that it waits for: a head, another
//! request, or, while a request is served, whatever that has to wait for ([`Pace::within`]): first
//! its body, then the answer of the shard. None of them lies within another.
//!
//! The connection's task moves the deadline. While it waits ([`Pace::poll_late`]), it has an entry
//! among the [`Deadlines`] of all connections, which wake it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::id::ConnKey;
use crate::time::Millis;

use super::deadlines::Deadlines;

/// The thing that a connection without a request in service waits for, the less valuable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    /// Another request.
    Request,
    /// The rest of a head, or the first one.
    Head,
}

/// The thing that a request has waited for did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late;

/// What the peer may take its time for, shared by those who notice: the socket (bytes arrive), the
/// service (a request is complete, a response is ready), the task that closes and the reception.
#[derive(Debug)]
pub(super) struct Pace {
    key: ConnKey,
    deadlines: Rc<Deadlines>,
    /// The time of the connection's entry among the deadlines of all, which its own is not before.
    /// The entry is gone once that time has come.
    entry: Cell<Option<Millis>>,
    /// From the first byte of a request to the end of its head. Set anew with each response.
    head: Cell<Duration>,
    /// None while a request is served.
    awaited: Cell<Option<Awaited>>,
    /// Some of a head has come.
    begun: Cell<bool>,
    /// Anything has ever come.
    heard: Cell<bool>,
    /// None while a request is served that waits for nothing.
    deadline: Cell<Option<Millis>>,
    /// The time of the accept, of the last response, or of the first byte of a head behind it.
    since: Cell<Millis>,
    /// The connection has to close, to make room for another one.
    yields: Cell<bool>,
    /// The front stops.
    stops: Cell<bool>,
    /// The task of the connection.
    task: RefCell<Option<Waker>>,
}

impl Pace {
    /// A new connection: its first head is due within `head` of the accept, which was at
    /// `accepted`.
    pub(super) fn new(
        key: ConnKey,
        deadlines: &Rc<Deadlines>,
        head: Duration,
        accepted: Millis,
    ) -> Self {
        Self {
            key,
            deadlines: Rc::clone(deadlines),
            entry: Cell::new(None),
            head: Cell::new(head),
            awaited: Cell::new(Some(Awaited::Head)),
            begun: Cell::new(false),
            heard: Cell::new(false),
            deadline: Cell::new(Some(accepted + head)),
            since: Cell::new(accepted),
            yields: Cell::new(false),
            stops: Cell::new(false),
            task: RefCell::default(),
        }
    }

    /// Bytes arrived, or the end of the stream.
    pub(super) fn received(&self) {
        self.begun.set(true);
        self.heard.set(true);
        if self.awaited.get() == Some(Awaited::Request) {
            self.awaited.set(Some(Awaited::Head));
            self.count_from_now(self.head.get());
            self.yields.set(false);
        }
    }

    /// A head is complete.
    pub(super) fn serving(&self) {
        self.awaited.set(None);
        self.begun.set(false);
        self.yields.set(false);
        self.deadline.set(None);
    }

    /// Waits for something while a request is served, for this long at most.
    ///
    /// # Errors
    /// It is not there in time.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Late> {
        self.deadline.set(Some(self.deadlines.now() + limit));
        let _limited = Limited(self);
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_late(cx).map(|()| Err(Late)),
        })
        .await
    }

    /// Waits for the next turn, so that everything else has its share of this one, and what it has
    /// asked the kernel for is submitted.
    pub(super) async fn next_turn(&self) {
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.deadlines.add(self.deadlines.now(), self.key, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The response is on its way. The next request has to begin within `idle`, the writing of the
    /// response included, and its head is due within `head` of its first byte.
    pub(super) fn served(&self, idle: Duration, head: Duration) {
        self.head.set(head);
        self.awaited.set(Some(Awaited::Request));
        self.count_from_now(idle);
    }

    fn count_from_now(&self, limit: Duration) {
        let now = self.deadlines.now();
        self.since.set(now);
        self.deadline.set(Some(now + limit));
    }

    /// The thing that it waits for, and the time since when. `None` while a request is served.
    pub(super) fn awaits(&self) -> Option<(Awaited, Millis)> {
        self.awaited.get().map(|awaited| (awaited, self.since.get()))
    }

    /// Another connection needs its permit: it is late from now on, unless the next bytes are there
    /// already.
    pub(super) fn yield_place(&self) {
        self.yields.set(true);
        self.wake();
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
        self.awaited.get() == Some(Awaited::Head) && self.begun.get()
    }

    /// Whether anything has come since the accept.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.get()
    }

    /// The front stops: from now on a head is due within `head` of the accept, or of its first byte
    /// on a connection that had others. A request that is being served keeps its own deadlines.
    pub(super) fn hurry(&self, head: Duration) {
        if self.awaited.get() == Some(Awaited::Head) {
            self.deadline.set(Some(self.since.get() + head));
        }
    }

    /// Ready when the deadline has passed, or another connection needs the permit. Always polled by
    /// the same task, which is woken by then, and when the front stops.
    pub(super) fn poll_late(&self, cx: &Context<'_>) -> Poll<()> {
        let now = self.deadlines.now();
        if self.yields.get() || self.deadline.get().is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(());
        }
        self.enter(cx.waker());
        let task = &mut *self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Has the task woken when the deadline passes, or sooner.
    fn enter(&self, task: &Waker) {
        let Some(deadline) = self.deadline.get() else { return };
        let entry = self.entry.get().filter(|&entry| entry > self.deadlines.now());
        if entry.is_none_or(|entry| deadline < entry) {
            self.leave();
            self.deadlines.add(deadline, self.key, task.clone());
            self.entry.set(Some(deadline));
        }
    }

    fn leave(&self) {
        if let Some(entry) = self.entry.take() {
            self.deadlines.remove(entry, self.key);
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The deadline of what a request waits for, until it is dropped.
struct Limited<'p>(&'p Pace);

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        self.0.deadline.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);
    const LIMIT: Duration = Duration::from_secs(5);
    const BEGIN: Millis = Millis(1_000);

    /// The number of times that a task was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Woken {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    fn new() -> (Pace, Rc<Deadlines>) {
        let deadlines = Rc::new(Deadlines::default());
        deadlines.begin_turn(BEGIN);
        let key = ConnKey { slot: 3, generation: 7 };
        (Pace::new(key, &deadlines, HEAD, BEGIN), deadlines)
    }

    #[test]
    fn the_first_head_has_its_deadline_from_the_accept_whatever_trickles_in() {
        let (pace, deadlines) = new();
        assert_eq!(pace.deadline.get(), Some(BEGIN + HEAD));
        deadlines.begin_turn(Millis(3_000));
        pace.received();
        assert_eq!(pace.deadline.get(), Some(BEGIN + HEAD));
    }

    #[test]
    fn at_a_stop_a_new_connection_has_a_moment_for_its_head_and_a_request_all_its_time() {
        let brief = Duration::from_millis(100);
        let (pace, _deadlines) = new();
        pace.hurry(brief);
        assert_eq!(pace.deadline.get(), Some(BEGIN + brief));
        pace.serving();
        pace.hurry(brief);
        assert_eq!(pace.deadline.get(), None);
    }

    #[test]
    fn an_idle_connection_has_a_long_deadline_and_its_next_head_a_short_one() {
        let (pace, deadlines) = new();
        pace.serving();
        pace.served(IDLE, HEAD);
        assert_eq!(pace.deadline.get(), Some(BEGIN + IDLE));
        let first_byte = Millis(20_000);
        deadlines.begin_turn(first_byte);
        pace.received();
        assert_eq!(pace.deadline.get(), Some(first_byte + HEAD));
        deadlines.begin_turn(Millis(21_000));
        pace.received();
        assert_eq!(pace.deadline.get(), Some(first_byte + HEAD), "later bytes do not move it");
    }

    #[test]
    fn a_body_that_comes_behind_its_head_is_no_head_that_has_begun() {
        let (pace, _deadlines) = new();
        pace.received();
        assert!(pace.in_head());
        pace.serving();
        pace.received();
        assert!(!pace.in_head());
        pace.served(IDLE, HEAD);
        assert!(!pace.in_head());
        pace.received();
        assert!(pace.in_head());
    }

    #[test]
    fn a_task_is_woken_when_its_deadline_has_passed_and_at_most_once_before() {
        let (pace, deadlines) = new();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        // The deadlines of a kept connection move away with each of its requests.
        let mut served = BEGIN;
        for _ in 0..20 {
            served = served + Duration::from_secs(1);
            deadlines.begin_turn(served);
            pace.serving();
            pace.served(IDLE, HEAD);
            assert!(pace.poll_late(&cx).is_pending());
        }
        assert_eq!(deadlines.first(), Some(Millis(2_000) + IDLE), "the entry of the first one");
        assert_eq!(woken.take(), 0);
        deadlines.begin_turn(Millis(2_000) + IDLE);
        assert_eq!(woken.take(), 1);
        assert!(pace.poll_late(&cx).is_pending(), "the deadline has moved");
        deadlines.begin_turn(Millis(served.0 - 1) + IDLE);
        assert_eq!(woken.take(), 0);
        deadlines.begin_turn(served + IDLE);
        assert_eq!(woken.take(), 1);
        assert!(pace.poll_late(&cx).is_ready());
    }

    #[test]
    fn a_request_waits_no_longer_than_its_limit_and_has_no_deadline_afterwards() {
        let (pace, deadlines) = new();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        pace.serving();
        assert_eq!(pin!(pace.within(LIMIT, async { 5 })).poll(cx), Poll::Ready(Ok(5)));
        assert_eq!((pace.deadline.get(), deadlines.first()), (None, None));

        let mut waits = pin!(pace.within(LIMIT, std::future::pending::<u8>()));
        assert!(waits.as_mut().poll(cx).is_pending());
        pace.received();
        assert_eq!(pace.awaits(), None, "its connection is not closed for another one");
        deadlines.begin_turn(Millis(BEGIN.0 - 1) + LIMIT);
        assert!(waits.as_mut().poll(cx).is_pending());
        assert_eq!(woken.take(), 0);
        deadlines.begin_turn(BEGIN + LIMIT);
        assert_eq!(woken.take(), 1);
        assert_eq!(waits.as_mut().poll(cx), Poll::Ready(Err(Late)));
        assert!(pace.poll_late(cx).is_pending(), "the connection itself is not late");
    }

    #[test]
    fn an_answer_that_is_there_at_the_deadline_is_in_time() {
        let (pace, deadlines) = new();
        let cx = &mut Context::from_waker(Waker::noop());
        let arrived = Cell::new(false);
        pace.serving();
        let answer = poll_fn(|_| if arrived.get() { Poll::Ready(()) } else { Poll::Pending });
        let mut waits = pin!(pace.within(LIMIT, answer));
        assert!(waits.as_mut().poll(cx).is_pending());
        arrived.set(true);
        deadlines.begin_turn(BEGIN + LIMIT);
        assert_eq!(waits.as_mut().poll(cx), Poll::Ready(Ok(())));
    }

    #[test]
    fn a_connection_that_has_ended_leaves_no_entry() {
        let (pace, deadlines) = new();
        assert!(pace.poll_late(&Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(deadlines.first(), Some(BEGIN + HEAD));
        drop(pace);
        assert_eq!(deadlines.first(), None);
    }
}
