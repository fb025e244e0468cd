//! The queue of one endpoint: events are collected into batches, one batch at a time is in flight,
//! and a failed one is repeated. A state machine: time and chance are handed in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::apps::App;
use crate::apps::webhook::Webhook;
use crate::time::Millis;

use super::body;

/// Bytes of one body. A single larger event is sent alone.
const BODY_BYTES_MAX: usize = 256 << 10;

/// The bytes that a batch holds beside its body, rounded up: they count against the queue's bound.
/// Its place in the queue takes up to 112, its body's count of references 32, and the tables of the
/// spool up to 173.
const BATCH_BYTES: usize = 320;

/// The most bytes of a body that are not its events.
const FRAME_BYTES_MAX: usize = 64;

/// The age at which an undelivered event is given up, as at Pusher.
const PATIENCE: Duration = Duration::from_secs(300);

/// The longest wait before the first repetition. It doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait before any repetition.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The shortest wait, because chance may give none.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The queue of one endpoint. [`next`](Self::next) gives a batch to send, after which
/// [`delivered`](Self::delivered) or [`failed`](Self::failed) has to follow before it gives
/// another.
#[derive(Debug)]
pub(super) struct EndpointQueue {
    /// The app as last configured. Its key and secret sign the requests.
    pub(super) app: Arc<App>,
    pub(super) webhook: Arc<Webhook>,
    /// The endpoint is no longer configured: the queue ends when it is empty.
    pub(super) retired: bool,
    bounds: QueueBounds,
    /// The batch that takes events.
    open: Option<OpenBatch>,
    /// Batches that take no more events, oldest first. The first may be in flight.
    sealed: VecDeque<SealedBatch>,
    /// Bytes of all batches.
    bytes: usize,
    state: SendState,
    /// Failures since the last success.
    failures: u32,
    /// The number of the next batch.
    batches: u64,
    /// Changes that the spool has not taken; none without a spool.
    changes: Vec<BatchChange>,
    /// Losses that have not been logged.
    pub(super) lost: LostEvents,
}

/// The settings that all queues share.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBounds {
    /// Bytes that may wait for one endpoint.
    pub(super) queue_bytes: usize,
    /// Batches are written to disk: they are sealed as soon as their window ends, and
    /// [`EndpointQueue::changes`] reports them.
    pub(super) spooled: bool,
}

/// Numbers of events that were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LostEvents {
    /// Events that found the queue full.
    pub(super) overflowed: u64,
    /// Events that were tried for five minutes.
    pub(super) given_up: u64,
}

/// A change of a batch, for the spool to follow.
#[derive(Debug)]
pub(super) enum BatchChange {
    /// The batch of this number, with this body and number of events, waits to be sent.
    Sealed(u64, Bytes, usize),
    /// The batch of this number was delivered or given up.
    Ended(u64),
}

/// The state of the first batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendState {
    /// It may be sent.
    Idle,
    /// It is in flight.
    Sending,
    /// It has failed and waits to be repeated.
    Waiting { until: Millis },
}

/// A batch that still takes events. Its body is not closed.
#[derive(Debug)]
struct OpenBatch {
    body: Vec<u8>,
    events: usize,
    since: Millis,
}

/// A batch that is ready to be sent.
#[derive(Debug)]
struct SealedBatch {
    number: u64,
    body: Bytes,
    events: usize,
    since: Millis,
}

impl SealedBatch {
    fn bytes(&self) -> usize {
        self.body.len() + BATCH_BYTES
    }
}

impl EndpointQueue {
    pub(super) const fn new(app: Arc<App>, webhook: Arc<Webhook>, bounds: QueueBounds) -> Self {
        Self {
            app,
            webhook,
            retired: false,
            bounds,
            open: None,
            sealed: VecDeque::new(),
            bytes: 0,
            state: SendState::Idle,
            failures: 0,
            batches: 0,
            changes: Vec::new(),
            lost: LostEvents { overflowed: 0, given_up: 0 },
        }
    }

    /// Changes the bound for events that come from now on.
    pub(super) const fn bound_queue(&mut self, queue_bytes: usize) {
        self.bounds.queue_bytes = queue_bytes;
    }

    /// Takes an event, or counts it as lost if the queue is full.
    pub(super) fn push(&mut self, event: &[u8], now: Millis, unix_ms: u64) {
        let room = self.bounds.queue_bytes.saturating_sub(self.bytes);
        if event.len() + BATCH_BYTES + FRAME_BYTES_MAX > room {
            self.lost.overflowed += 1;
            return;
        }
        let full = |open: &OpenBatch| {
            open.events >= self.webhook.batch_max || open.body.len() + event.len() >= BODY_BYTES_MAX
        };
        if self.open.as_ref().is_some_and(full) {
            self.seal();
        }
        let open = self.open.get_or_insert_with(|| {
            let body = body::opening(unix_ms).into_bytes();
            self.bytes += BATCH_BYTES + body.len() + body::CLOSING.len();
            OpenBatch { body, events: 0, since: now }
        });
        let before = open.body.len();
        if open.events > 0 {
            open.body.push(b',');
        }
        open.body.extend_from_slice(event);
        open.events += 1;
        self.bytes += open.body.len() - before;
    }

    /// Takes a batch of an earlier process and returns its number. `None`: the queue is full.
    pub(super) fn restore(&mut self, body: Bytes, events: usize, now: Millis) -> Option<u64> {
        let batch = SealedBatch { number: self.batches, body, events, since: now };
        if self.bytes + batch.bytes() > self.bounds.queue_bytes {
            self.lost.overflowed += events as u64;
            return None;
        }
        self.batches += 1;
        self.bytes += batch.bytes();
        self.sealed.push_back(batch);
        Some(self.batches - 1)
    }

    /// The next batch to send, if it is time for one.
    pub(super) fn next(&mut self, now: Millis) -> Option<Bytes> {
        let free = match self.state {
            SendState::Sending => false,
            SendState::Idle => true,
            SendState::Waiting { until } => until <= now,
        };
        let ripe = self.open.as_ref().is_some_and(|open| self.ripe(open) <= now);
        // While another batch is in flight, this one goes on growing.
        if ripe && (self.bounds.spooled || (free && self.sealed.is_empty())) {
            self.seal();
        }
        let first = self.sealed.front().filter(|_| free)?;
        self.state = SendState::Sending;
        Some(first.body.clone())
    }

    /// The time at which [`next`](Self::next) has to be called again.
    pub(super) fn next_due(&self) -> Option<Millis> {
        let ripe = self.open.as_ref().map(|open| self.ripe(open));
        let seal = ripe.filter(|_| self.bounds.spooled);
        let waiting = if self.sealed.is_empty() { ripe } else { Some(Millis(0)) };
        let send = match self.state {
            SendState::Sending => None,
            SendState::Idle => waiting,
            SendState::Waiting { until } => waiting.map(|due| due.max(until)),
        };
        [seal, send].into_iter().flatten().min()
    }

    /// The number of events of the first batch, and the time of the first of them.
    pub(super) fn first(&self) -> Option<(usize, Millis)> {
        self.sealed.front().map(|first| (first.events, first.since))
    }

    /// The batch in flight has arrived. Returns the number of failures before.
    pub(super) fn delivered(&mut self) -> u32 {
        self.drop_first();
        self.state = SendState::Idle;
        std::mem::take(&mut self.failures)
    }

    /// The batch in flight has not arrived. `chance` is a random number from 0 to 1. Returns the
    /// number of failures in a row.
    pub(super) fn failed(&mut self, now: Millis, chance: f64) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.state = SendState::Waiting { until: now + backoff(self.failures, chance) };
        // Batches that waited behind it for so long would have failed as well.
        while self.sealed.front().is_some_and(|first| now.since(first.since) >= PATIENCE) {
            self.lost.given_up += self.drop_first();
        }
        self.failures
    }

    /// Makes everything due now, because no more events will come.
    pub(super) fn flush(&mut self) {
        self.seal();
        if self.state != SendState::Sending {
            self.state = SendState::Idle;
        }
    }

    /// Events that wait or are in flight.
    pub(super) fn waiting(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.events);
        open + self.sealed.iter().map(|batch| batch.events).sum::<usize>()
    }

    /// Whether no event waits or is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.sealed.is_empty()
    }

    /// Whether it is empty and the spool has taken all changes.
    pub(super) fn is_done(&self) -> bool {
        self.is_empty() && self.changes.is_empty()
    }

    /// The changes of batches since the last call; none without a spool.
    pub(super) fn changes(&mut self) -> impl Iterator<Item = BatchChange> {
        self.changes.drain(..)
    }

    /// The time at which a batch is sealed.
    fn ripe(&self, open: &OpenBatch) -> Millis {
        let full = open.events >= self.webhook.batch_max;
        // With little room left, waiting for more events would only lose them.
        let pressed = self.bytes > self.bounds.queue_bytes / 2;
        if full || pressed { open.since } else { open.since + self.webhook.batch_window }
    }

    /// Closes the batch that takes events, if there is one.
    fn seal(&mut self) {
        let Some(OpenBatch { mut body, events, since }) = self.open.take() else { return };
        body.extend_from_slice(body::CLOSING);
        let batch = SealedBatch { number: self.batches, body: body.into(), events, since };
        self.batches += 1;
        if self.bounds.spooled {
            self.changes.push(BatchChange::Sealed(batch.number, batch.body.clone(), events));
        }
        self.sealed.push_back(batch);
    }

    /// Drops the first batch. Returns the number of its events.
    fn drop_first(&mut self) -> u64 {
        let Some(first) = self.sealed.pop_front() else { return 0 };
        self.bytes -= first.bytes();
        if self.bounds.spooled {
            self.changes.push(BatchChange::Ended(first.number));
        }
        first.events as u64
    }
}

/// The wait before a repetition: a random part of a bound that doubles ("full jitter"), so that
/// endpoints that failed together are not tried again together.
fn backoff(failures: u32, chance: f64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX).mul_f64(chance.clamp(0.0, 1.0)).max(BACKOFF_MIN)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::apps::test_app;
    use crate::apps::webhook::test_webhook;

    use super::*;

    const UNIX_MS: u64 = 1_700_000_000_000;
    const ROOMY: QueueBounds = QueueBounds { queue_bytes: 1 << 20, spooled: false };

    fn queue_with(bounds: QueueBounds, batch_max: usize) -> EndpointQueue {
        let webhook = Webhook { batch_max, ..test_webhook("http://a/") };
        EndpointQueue::new(Arc::new(test_app()), Arc::new(webhook), bounds)
    }

    fn queue() -> EndpointQueue {
        queue_with(ROOMY, 3)
    }

    fn push(queue: &mut EndpointQueue, event: u32, now: u64) {
        queue.push(event.to_string().as_bytes(), Millis(now), UNIX_MS + now);
    }

    /// The events of a body.
    fn events(body: Option<Bytes>) -> Vec<u64> {
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        body["events"].as_array().unwrap().iter().map(|event| event.as_u64().unwrap()).collect()
    }

    #[test]
    fn events_of_a_window_share_a_request_that_bears_the_time_of_the_first() {
        let mut queue = queue();
        push(&mut queue, 1, 0);
        push(&mut queue, 2, 49);
        assert!(queue.next(Millis(49)).is_none());
        assert_eq!(queue.next_due(), Some(Millis(50)));
        let body = queue.next(Millis(50)).unwrap();
        assert_eq!(&*body, br#"{"time_ms":1700000000000,"events":[1,2]}"#.as_slice());
        assert!(queue.next_due().is_none(), "one request at a time");
        assert_eq!(queue.delivered(), 0);
        assert!(queue.is_empty() && queue.bytes == 0 && queue.next_due().is_none());
    }

    #[test]
    fn a_full_batch_waits_for_nothing() {
        let mut queue = queue();
        (1..=7).for_each(|event| push(&mut queue, event, 0));
        assert_eq!(events(queue.next(Millis(0))), [1, 2, 3]);
        assert!(queue.next(Millis(1)).is_none());
        queue.delivered();
        assert_eq!(events(queue.next(Millis(1))), [4, 5, 6]);
        queue.delivered();
        assert!(queue.next(Millis(1)).is_none());
        assert_eq!(events(queue.next(Millis(50))), [7]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_a_larger_event_goes_alone() {
        let mut queue = queue_with(ROOMY, 1000);
        let half = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX / 2));
        let double = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX * 2));
        for event in [&half, &half, &double, &half] {
            queue.push(event.as_bytes(), Millis(0), 0);
        }
        let mut sizes = Vec::new();
        while let Some(body) = queue.next(Millis(50)) {
            sizes.push(body.len() > BODY_BYTES_MAX);
            queue.delivered();
        }
        assert_eq!(sizes, [false, false, true, false]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_overflows_is_counted_and_what_was_taken_stays_in_order() {
        let mut queue = queue_with(QueueBounds { queue_bytes: 1000, ..ROOMY }, 3);
        (100..1100).for_each(|event| push(&mut queue, event, 0));
        let taken = queue.waiting() as u64;
        assert!(queue.bytes <= 1000 && taken > 3);
        assert_eq!(queue.lost, LostEvents { overflowed: 1000 - taken, given_up: 0 });
        let mut seen = Vec::new();
        while !queue.is_empty() {
            seen.extend(events(queue.next(Millis(50))));
            queue.delivered();
        }
        assert_eq!(seen, (100..100 + taken).collect::<Vec<_>>());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_queue_that_is_half_full_waits_for_no_window() {
        let mut queue = queue_with(QueueBounds { queue_bytes: 2000, ..ROOMY }, 100);
        push(&mut queue, 1, 0);
        assert!(queue.next(Millis(0)).is_none());
        queue.push(format!("\"{}\"", "x".repeat(800)).as_bytes(), Millis(0), 0);
        assert!(queue.next(Millis(0)).is_some());
    }

    #[test]
    fn a_failed_batch_is_repeated_before_anything_else_goes() {
        let mut queue = queue();
        (1..=4).for_each(|event| push(&mut queue, event, 0));
        let first = queue.next(Millis(0)).unwrap();
        assert_eq!(queue.failed(Millis(10), 0.5), 1);
        assert!(queue.next(Millis(509)).is_none());
        assert_eq!(queue.next_due(), Some(Millis(510)));
        assert_eq!(queue.next(Millis(510)).unwrap(), first, "byte by byte the same");
        assert_eq!(queue.failed(Millis(510), 1.0), 2);
        assert_eq!(queue.next_due(), Some(Millis(2510)));
        assert!(queue.next(Millis(2510)).is_some());
        assert_eq!(queue.delivered(), 2);
        assert_eq!(events(queue.next(Millis(2510))), [4]);
    }

    #[test]
    fn after_five_minutes_an_event_is_given_up_with_all_that_are_as_old() {
        let mut queue = queue();
        (1..=6).for_each(|event| push(&mut queue, event, 0));
        push(&mut queue, 7, 1000);
        let (mut now, mut tries) = (0, 0);
        while queue.waiting() > 1 {
            assert!(queue.next(Millis(now)).is_some());
            queue.failed(Millis(now), 1.0);
            tries += 1;
            now = queue.next_due().unwrap().0;
        }
        assert_eq!(queue.lost.given_up, 6);
        // At 0, 1, 3, 7, 15, 31, 63, then every 60 s.
        assert_eq!(tries, 11);
        assert_eq!(events(queue.next(Millis(now))), [7], "younger ones are tried on");
    }

    #[test]
    fn a_slow_receiver_gets_even_what_is_old() {
        let mut queue = queue();
        (1..=6).for_each(|event| push(&mut queue, event, 0));
        assert!(queue.next(Millis(0)).is_some());
        queue.delivered();
        assert_eq!(events(queue.next(Millis(400_000))), [4, 5, 6]);
        queue.delivered();
        assert_eq!(queue.lost, LostEvents::default());
    }

    #[test]
    fn waits_double_up_to_a_minute_and_are_spread() {
        let longest: Vec<_> = (1..=9).map(|failures| backoff(failures, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(u32::MAX, 0.5), Duration::from_secs(30));
        assert_eq!(backoff(1, 0.0), BACKOFF_MIN);
    }

    #[test]
    fn at_the_end_nothing_waits_for_its_time() {
        let mut queue = queue();
        push(&mut queue, 1, 0);
        queue.flush();
        assert!(queue.next(Millis(0)).is_some());
        queue.failed(Millis(0), 1.0);
        queue.flush();
        assert_eq!(events(queue.next(Millis(0))), [1]);
    }

    #[test]
    fn a_spool_hears_of_every_batch_even_while_another_one_is_on_its_way() {
        let mut queue = queue_with(QueueBounds { spooled: true, ..ROOMY }, 3);
        let restored = queue.restore(Bytes::from_static(br#"{"events":[9]}"#), 1, Millis(0));
        assert_eq!(restored, Some(0));
        push(&mut queue, 1, 0);
        assert_eq!(events(queue.next(Millis(0))), [9]);
        assert_eq!(queue.next_due(), Some(Millis(50)));
        assert!(queue.next(Millis(50)).is_none());
        queue.delivered();
        let changes: Vec<_> = queue.changes().collect();
        assert!(
            matches!(changes[..], [BatchChange::Sealed(1, _, 1), BatchChange::Ended(0)]),
            "{changes:?}"
        );
        assert_eq!(events(queue.next(Millis(50))), [1]);
    }
}
