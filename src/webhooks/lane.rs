//! The way to one endpoint: events become batches, one batch at a time is on its way, a failed one
//! is repeated. A state machine: time and chance are handed in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::apps::App;
use crate::apps::webhook::Webhook;
use crate::time::Millis;

use super::body;

/// Bytes of one body; a single larger event goes alone.
const BODY_BYTES_MAX: usize = 256 << 10;

/// The bytes that a batch holds beside its events, counted against the queue's bound.
const BATCH_BYTES: usize = 160;

/// The most bytes around the events of a body.
const FRAME_BYTES_MAX: usize = 64;

/// How old an undelivered event may get, as at Pusher.
const PATIENCE: Duration = Duration::from_secs(300);

/// The longest wait before the first repetition; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait of all.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The shortest wait: chance may well give none.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The way to one endpoint.
#[derive(Debug)]
pub(super) struct Lane {
    /// As of the last configuration: its key and secret sign.
    pub(super) app: Arc<App>,
    pub(super) webhook: Arc<Webhook>,
    /// The configuration has it no more: it ends when it is empty.
    pub(super) retired: bool,
    bounds: Bounds,
    /// Takes events.
    open: Option<Open>,
    /// Take none any more, oldest first. The first may be on its way.
    sealed: VecDeque<Batch>,
    /// Bytes of all of them.
    bytes: usize,
    state: State,
    /// Failures since the last success.
    failures: u32,
    batches: u64,
    changes: Vec<Change>,
    pub(super) counters: Counters,
}

/// The bounds that all lanes share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes that may wait for one endpoint.
    pub(super) queue_bytes: usize,
    /// Batches are written to disk: they are sealed as soon as their window ends, and
    /// [`Lane::changes`] tells of them.
    pub(super) spooled: bool,
}

/// Events that did not arrive, since they were last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Found the queue full.
    pub(super) overflowed: u64,
    /// Were tried for five minutes.
    pub(super) given_up: u64,
}

/// A change that a spool has to follow.
#[derive(Debug)]
pub(super) enum Change {
    /// A batch, by its number, waits.
    Sealed(u64, Bytes, usize),
    /// A batch, by its number, waits no more.
    Gone(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// The first batch is on its way.
    Sending,
    /// After a failure.
    Waiting {
        until: Millis,
    },
}

#[derive(Debug)]
struct Open {
    body: Vec<u8>,
    events: usize,
    since: Millis,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    body: Bytes,
    events: usize,
    since: Millis,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.body.len() + BATCH_BYTES
    }
}

impl Lane {
    pub(super) const fn new(app: Arc<App>, webhook: Arc<Webhook>, bounds: Bounds) -> Self {
        Self {
            app,
            webhook,
            retired: false,
            bounds,
            open: None,
            sealed: VecDeque::new(),
            bytes: 0,
            state: State::Idle,
            failures: 0,
            batches: 0,
            changes: Vec::new(),
            counters: Counters { overflowed: 0, given_up: 0 },
        }
    }

    /// Bounds what may wait from now on.
    pub(super) const fn bound_queue(&mut self, queue_bytes: usize) {
        self.bounds.queue_bytes = queue_bytes;
    }

    /// Takes an event, or counts it when the queue is full.
    pub(super) fn push(&mut self, event: &[u8], now: Millis, unix_ms: u64) {
        let room = self.bounds.queue_bytes.saturating_sub(self.bytes);
        if event.len() + BATCH_BYTES + FRAME_BYTES_MAX > room {
            self.counters.overflowed += 1;
            return;
        }
        let full = |open: &Open| {
            open.events >= self.webhook.batch_max || open.body.len() + event.len() >= BODY_BYTES_MAX
        };
        if self.open.as_ref().is_some_and(full) {
            self.seal();
        }
        let open = self.open.get_or_insert_with(|| {
            let body = body::opening(unix_ms).into_bytes();
            self.bytes += BATCH_BYTES + body.len() + body::CLOSING.len();
            Open { body, events: 0, since: now }
        });
        let before = open.body.len();
        if open.events > 0 {
            open.body.push(b',');
        }
        open.body.extend_from_slice(event);
        open.events += 1;
        self.bytes += open.body.len() - before;
    }

    /// Takes a batch of an earlier process. `None`: it has no room.
    pub(super) fn restore(&mut self, body: Bytes, events: usize, now: Millis) -> Option<u64> {
        let batch = Batch { number: self.batches, body, events, since: now };
        if self.bytes + batch.bytes() > self.bounds.queue_bytes {
            self.counters.overflowed += events as u64;
            return None;
        }
        self.batches += 1;
        self.bytes += batch.bytes();
        self.sealed.push_back(batch);
        Some(self.batches - 1)
    }

    /// The next batch to send, if it is time for one. [`delivered`](Self::delivered) or
    /// [`failed`](Self::failed) has to follow.
    pub(super) fn next(&mut self, now: Millis) -> Option<Bytes> {
        let free = match self.state {
            State::Sending => false,
            State::Idle => true,
            State::Waiting { until } => until <= now,
        };
        let ripe = self.open.as_ref().is_some_and(|open| self.ripe(open) <= now);
        // While another one is on its way, a batch goes on growing.
        if ripe && (self.bounds.spooled || (free && self.sealed.is_empty())) {
            self.seal();
        }
        let first = self.sealed.front().filter(|_| free)?;
        self.state = State::Sending;
        Some(first.body.clone())
    }

    /// The time at which [`next`](Self::next) has to be called again.
    pub(super) fn next_due(&self) -> Option<Millis> {
        let ripe = self.open.as_ref().map(|open| self.ripe(open));
        let seal = ripe.filter(|_| self.bounds.spooled);
        let waiting = if self.sealed.is_empty() { ripe } else { Some(Millis(0)) };
        let send = match self.state {
            State::Sending => None,
            State::Idle => waiting,
            State::Waiting { until } => waiting.map(|due| due.max(until)),
        };
        [seal, send].into_iter().flatten().min()
    }

    /// The batch on its way has arrived. Returns after how many failures.
    pub(super) fn delivered(&mut self) -> u32 {
        self.drop_first();
        self.state = State::Idle;
        std::mem::take(&mut self.failures)
    }

    /// The batch on its way has not arrived. `chance` is from 0 to 1. Returns how often that has
    /// been so in a row.
    pub(super) fn failed(&mut self, now: Millis, chance: f64) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + backoff(self.failures, chance) };
        // Batches that waited behind it for so long would have failed as well.
        while self.sealed.front().is_some_and(|first| now.since(first.since) >= PATIENCE) {
            self.counters.given_up += self.drop_first();
        }
        self.failures
    }

    /// Nothing more will come: the rest goes without delay.
    pub(super) fn hurry(&mut self) {
        self.seal();
        if self.state != State::Sending {
            self.state = State::Idle;
        }
    }

    /// Events that wait or are on their way.
    pub(super) fn waiting(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| open.events);
        open + self.sealed.iter().map(|batch| batch.events).sum::<usize>()
    }

    /// Whether nothing waits or is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.sealed.is_empty()
    }

    /// Whether it is empty and a spool has heard of that.
    pub(super) fn is_done(&self) -> bool {
        self.is_empty() && self.changes.is_empty()
    }

    /// The changes of batches since the last call; none if there is no spool.
    pub(super) fn changes(&mut self) -> impl Iterator<Item = Change> {
        self.changes.drain(..)
    }

    fn ripe(&self, open: &Open) -> Millis {
        let full = open.events >= self.webhook.batch_max;
        // With little room left, waiting for more would only lose it.
        let pressed = self.bytes > self.bounds.queue_bytes / 2;
        if full || pressed { open.since } else { open.since + self.webhook.batch_window }
    }

    fn seal(&mut self) {
        let Some(Open { mut body, events, since }) = self.open.take() else { return };
        body.extend_from_slice(body::CLOSING);
        let batch = Batch { number: self.batches, body: body.into(), events, since };
        self.batches += 1;
        if self.bounds.spooled {
            self.changes.push(Change::Sealed(batch.number, batch.body.clone(), events));
        }
        self.sealed.push_back(batch);
    }

    /// Returns how many events it had.
    fn drop_first(&mut self) -> u64 {
        let Some(first) = self.sealed.pop_front() else { return 0 };
        self.bytes -= first.bytes();
        if self.bounds.spooled {
            self.changes.push(Change::Gone(first.number));
        }
        first.events as u64
    }
}

/// The wait before a repetition: anything up to a bound that doubles ("full jitter"), so that
/// endpoints that failed together do not return together.
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
    const ROOMY: Bounds = Bounds { queue_bytes: 1 << 20, spooled: false };

    fn lane_with(bounds: Bounds, batch_max: usize) -> Lane {
        let webhook = Webhook { batch_max, ..test_webhook("http://a/") };
        Lane::new(Arc::new(test_app()), Arc::new(webhook), bounds)
    }

    fn lane() -> Lane {
        lane_with(ROOMY, 3)
    }

    fn push(lane: &mut Lane, event: u32, now: u64) {
        lane.push(event.to_string().as_bytes(), Millis(now), UNIX_MS + now);
    }

    /// The events of a body.
    fn events(body: Option<Bytes>) -> Vec<u64> {
        let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
        body["events"].as_array().unwrap().iter().map(|event| event.as_u64().unwrap()).collect()
    }

    #[test]
    fn events_of_a_window_share_a_request_that_bears_the_time_of_the_first() {
        let mut lane = lane();
        push(&mut lane, 1, 0);
        push(&mut lane, 2, 49);
        assert!(lane.next(Millis(49)).is_none());
        assert_eq!(lane.next_due(), Some(Millis(50)));
        let body = lane.next(Millis(50)).unwrap();
        assert_eq!(&*body, br#"{"time_ms":1700000000000,"events":[1,2]}"#.as_slice());
        assert!(lane.next_due().is_none(), "one request at a time");
        assert_eq!(lane.delivered(), 0);
        assert!(lane.is_empty() && lane.bytes == 0 && lane.next_due().is_none());
    }

    #[test]
    fn a_full_batch_waits_for_nothing() {
        let mut lane = lane();
        (1..=7).for_each(|event| push(&mut lane, event, 0));
        assert_eq!(events(lane.next(Millis(0))), [1, 2, 3]);
        assert!(lane.next(Millis(1)).is_none());
        lane.delivered();
        assert_eq!(events(lane.next(Millis(1))), [4, 5, 6]);
        lane.delivered();
        assert!(lane.next(Millis(1)).is_none());
        assert_eq!(events(lane.next(Millis(50))), [7]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_a_larger_event_goes_alone() {
        let mut lane = lane_with(ROOMY, 1000);
        let half = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX / 2));
        let double = format!("\"{}\"", "x".repeat(BODY_BYTES_MAX * 2));
        for event in [&half, &half, &double, &half] {
            lane.push(event.as_bytes(), Millis(0), 0);
        }
        let mut sizes = Vec::new();
        while let Some(body) = lane.next(Millis(50)) {
            sizes.push(body.len() > BODY_BYTES_MAX);
            lane.delivered();
        }
        assert_eq!(sizes, [false, false, true, false]);
        assert_eq!(lane.bytes, 0);
    }

    #[test]
    fn what_overflows_is_counted_and_what_was_taken_stays_in_order() {
        let mut lane = lane_with(Bounds { queue_bytes: 1000, ..ROOMY }, 3);
        (100..1100).for_each(|event| push(&mut lane, event, 0));
        let taken = lane.waiting() as u64;
        assert!(lane.bytes <= 1000 && taken > 3);
        assert_eq!(lane.counters, Counters { overflowed: 1000 - taken, given_up: 0 });
        let mut seen = Vec::new();
        while !lane.is_empty() {
            seen.extend(events(lane.next(Millis(50))));
            lane.delivered();
        }
        assert_eq!(seen, (100..100 + taken).collect::<Vec<_>>());
        assert_eq!(lane.bytes, 0);
    }

    #[test]
    fn a_queue_that_is_half_full_waits_for_no_window() {
        let mut lane = lane_with(Bounds { queue_bytes: 1000, ..ROOMY }, 100);
        push(&mut lane, 1, 0);
        assert!(lane.next(Millis(0)).is_none());
        lane.push(format!("\"{}\"", "x".repeat(400)).as_bytes(), Millis(0), 0);
        assert!(lane.next(Millis(0)).is_some());
    }

    #[test]
    fn a_failed_batch_is_repeated_before_anything_else_goes() {
        let mut lane = lane();
        (1..=4).for_each(|event| push(&mut lane, event, 0));
        let first = lane.next(Millis(0)).unwrap();
        assert_eq!(lane.failed(Millis(10), 0.5), 1);
        assert!(lane.next(Millis(509)).is_none());
        assert_eq!(lane.next_due(), Some(Millis(510)));
        assert_eq!(lane.next(Millis(510)).unwrap(), first, "byte by byte the same");
        assert_eq!(lane.failed(Millis(510), 1.0), 2);
        assert_eq!(lane.next_due(), Some(Millis(2510)));
        assert!(lane.next(Millis(2510)).is_some());
        assert_eq!(lane.delivered(), 2);
        assert_eq!(events(lane.next(Millis(2510))), [4]);
    }

    #[test]
    fn after_five_minutes_an_event_is_given_up_with_all_that_are_as_old() {
        let mut lane = lane();
        (1..=6).for_each(|event| push(&mut lane, event, 0));
        push(&mut lane, 7, 1000);
        let (mut now, mut tries) = (0, 0);
        while lane.waiting() > 1 {
            assert!(lane.next(Millis(now)).is_some());
            lane.failed(Millis(now), 1.0);
            tries += 1;
            now = lane.next_due().unwrap().0;
        }
        assert_eq!(lane.counters.given_up, 6);
        // At 0, 1, 3, 7, 15, 31, 63, then every 60 s.
        assert_eq!(tries, 11);
        assert_eq!(events(lane.next(Millis(now))), [7], "younger ones are tried on");
    }

    #[test]
    fn a_slow_receiver_gets_even_what_is_old() {
        let mut lane = lane();
        (1..=6).for_each(|event| push(&mut lane, event, 0));
        assert!(lane.next(Millis(0)).is_some());
        lane.delivered();
        assert_eq!(events(lane.next(Millis(400_000))), [4, 5, 6]);
        lane.delivered();
        assert_eq!(lane.counters, Counters::default());
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
        let mut lane = lane();
        push(&mut lane, 1, 0);
        lane.hurry();
        assert!(lane.next(Millis(0)).is_some());
        lane.failed(Millis(0), 1.0);
        lane.hurry();
        assert_eq!(events(lane.next(Millis(0))), [1]);
    }

    #[test]
    fn a_spool_hears_of_every_batch_even_while_another_one_is_on_its_way() {
        let mut lane = lane_with(Bounds { spooled: true, ..ROOMY }, 3);
        let restored = lane.restore(Bytes::from_static(br#"{"events":[9]}"#), 1, Millis(0));
        assert_eq!(restored, Some(0));
        push(&mut lane, 1, 0);
        assert_eq!(events(lane.next(Millis(0))), [9]);
        assert_eq!(lane.next_due(), Some(Millis(50)));
        assert!(lane.next(Millis(50)).is_none());
        lane.delivered();
        let changes: Vec<_> = lane.changes().collect();
        assert!(matches!(changes[..], [Change::Sealed(1, _, 1), Change::Gone(0)]), "{changes:?}");
        assert_eq!(events(lane.next(Millis(50))), [1]);
    }
}
