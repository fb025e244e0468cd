//! The deadlines of one connection. They are absolute: a peer that sends a byte now and then gains
//! nothing by it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What the peer may take its time for, shared by those who notice: the socket (bytes arrive), the
/// service (a request is complete, a response is ready) and the task that closes.
#[derive(Debug)]
pub(super) struct Pace {
    /// From the first byte of a request to the end of its head.
    head: Duration,
    /// From a response to the first byte of the next request, the writing of it included.
    idle: Duration,
    /// No request has begun since the last response.
    waiting: Cell<bool>,
    /// There was a request.
    used: Cell<bool>,
    /// None while a request is served: the body and the shard have deadlines of their own.
    deadline: Cell<Option<Instant>>,
}

impl Pace {
    /// A new connection: its first head is due within `head` of the accept.
    pub(super) fn new(head: Duration, idle: Duration) -> Self {
        let deadline = Cell::new(Some(Instant::now() + head));
        Self { head, idle, waiting: Cell::new(false), used: Cell::new(false), deadline }
    }

    /// Bytes arrived, or the end of the stream.
    pub(super) fn received(&self) {
        if self.waiting.replace(false) {
            self.deadline.set(Some(Instant::now() + self.head));
        }
    }

    /// A head is complete.
    pub(super) fn serving(&self) {
        self.waiting.set(false);
        self.used.set(true);
        self.deadline.set(None);
    }

    /// Whether a head was ever complete.
    pub(super) const fn used(&self) -> bool {
        self.used.get()
    }

    /// The response is on its way.
    pub(super) fn served(&self) {
        self.waiting.set(true);
        self.deadline.set(Some(Instant::now() + self.idle));
    }

    /// The front stops: from now on a head is due within `head` of the accept, or of its first byte
    /// on a connection that had others. A request that is being served keeps its own deadlines.
    pub(super) fn hurry(&self, head: Duration) {
        if let (false, Some(deadline)) = (self.waiting.get(), self.deadline.get()) {
            self.deadline.set(Some(deadline - self.head + head));
        }
    }

    /// Ready when the present deadline has passed. Polled again whenever it may have moved.
    pub(super) fn poll_late(&self, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline.get() else { return Poll::Pending };
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);

    #[test]
    fn the_first_head_has_its_deadline_from_the_accept_whatever_trickles_in() {
        let pace = Pace::new(HEAD, IDLE);
        let deadline = pace.deadline.get();
        assert!(deadline.is_some_and(|at| at <= Instant::now() + HEAD));
        pace.received();
        assert_eq!(pace.deadline.get(), deadline);
    }

    #[test]
    fn a_request_in_service_has_no_deadline_here() {
        let pace = Pace::new(HEAD, IDLE);
        pace.serving();
        pace.received();
        assert_eq!(pace.deadline.get(), None);
    }

    #[test]
    fn at_a_stop_a_new_connection_has_a_moment_for_its_head_and_a_request_all_its_time() {
        let brief = Duration::from_millis(100);
        let pace = Pace::new(HEAD, IDLE);
        let accepted = pace.deadline.get().unwrap() - HEAD;
        pace.hurry(brief);
        assert_eq!(pace.deadline.get(), Some(accepted + brief));
        pace.serving();
        pace.hurry(brief);
        assert_eq!(pace.deadline.get(), None);
    }

    #[test]
    fn an_idle_connection_has_a_long_deadline_and_its_next_head_a_short_one() {
        let pace = Pace::new(HEAD, IDLE);
        pace.serving();
        let before = Instant::now();
        pace.served();
        assert!(pace.deadline.get().is_some_and(|at| at >= before + IDLE));
        pace.received();
        let head = pace.deadline.get();
        assert!(head.is_some_and(|at| at <= Instant::now() + HEAD));
        pace.received();
        assert_eq!(pace.deadline.get(), head, "later bytes do not move it");
    }
}
