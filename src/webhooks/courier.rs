//! The thread that delivers: it drives `Dispatch` by the clock, by the taps of the shards, and by
//! what receivers answer.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;

use crate::protocol::app::Apps;
use crate::time::Millis;

use super::dispatch::{Delivery, Dispatch, LaneId};
use super::http::{Failure, Line, Tls};
use super::lane::Bounds;
use super::spool::Spool;
use super::tap::{self, Spout, Tap};

/// How long the thread sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Threads that look up names; they end when idle.
const RESOLVERS_MAX: usize = 4;

/// The settings of a courier.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Bytes of events that may wait for one endpoint.
    pub(crate) queue_bytes: usize,
    /// Bytes of notices that may wait for the thread, over all shards.
    pub(crate) notice_bytes: usize,
    /// The directory that keeps undelivered batches over a restart.
    pub(crate) spool: Option<PathBuf>,
}

/// The thread that delivers webhooks. Dropped without [`finish`](Self::finish), it delivers on for
/// as long as the process lives.
#[derive(Debug)]
pub(crate) struct Courier {
    tap: Tap,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Configure { apps: Arc<Apps>, queue_bytes: usize },
    Finish { within: Duration, done: oneshot::Sender<()> },
}

impl Courier {
    /// Starts the thread.
    ///
    /// # Errors
    /// The spool cannot be used, or the thread cannot be started.
    pub(crate) fn start(apps: Arc<Apps>, settings: Settings) -> io::Result<Self> {
        let spool = settings.spool.as_deref().map(Spool::open).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(RESOLVERS_MAX)
            .build()?;
        let (tap, spout) = tap::pair(settings.notice_bytes);
        let (orders, ordered) = mpsc::unbounded_channel();
        let run = move || {
            let round = Round::new(&apps, settings.queue_bytes, spool, spout);
            drop(apps);
            runtime.block_on(round.run(ordered));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        };
        thread::Builder::new().name("webhooks".to_owned()).spawn(run)?;
        Ok(Self { tap, orders })
    }

    /// The way in, for one shard.
    #[must_use]
    pub(crate) fn tap(&self) -> Tap {
        self.tap.clone()
    }

    /// Other apps, or the same ones with other webhooks. What waits for an endpoint that is no more
    /// is still delivered. `queue_bytes` is as in [`Settings`]: what waits already stays, whatever
    /// the new bound is. To be called before shards hear of the apps.
    pub(crate) fn configure(&self, apps: Arc<Apps>, queue_bytes: usize) {
        // Without its thread nothing is delivered anyhow, which was logged.
        let _gone = self.orders.send(Order::Configure { apps, queue_bytes });
    }

    /// Delivers what the taps have handed over, for at most this long, and ends. What is left then
    /// stays in the spool, if there is one; else it is logged and lost.
    pub(crate) async fn finish(self, within: Duration) {
        let (done, finished) = oneshot::channel();
        if self.orders.send(Order::Finish { within, done }).is_ok() {
            let _gone = finished.await;
        }
    }
}

/// The state of the thread.
struct Round {
    started: Instant,
    dispatch: Dispatch,
    spool: Option<Spool>,
    spout: Spout,
    tls: Tls,
    /// Connections that are not in use.
    lines: HashMap<LaneId, Line>,
    on_their_way: JoinSet<Returned>,
    /// The lane of each task in `on_their_way`.
    lanes: HashMap<task::Id, LaneId>,
    /// Endpoints whose failure was logged.
    failing: HashSet<LaneId>,
}

/// A line that comes back, with the result of its batch.
type Returned = (LaneId, Line, Result<(), Failure>);

impl Round {
    fn new(apps: &Apps, queue_bytes: usize, spool: Option<Spool>, spout: Spout) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        let bounds = Bounds { queue_bytes, spooled: spool.is_some() };
        let mut round = Self {
            started: Instant::now(),
            dispatch: Dispatch::new(apps, bounds, unix_ms),
            spool,
            spout,
            tls: Tls::default(),
            lines: HashMap::new(),
            on_their_way: JoinSet::new(),
            lanes: HashMap::new(),
            failing: HashSet::new(),
        };
        if let Some(spool) = &mut round.spool {
            spool.restore(&mut round.dispatch);
        }
        round.expect_trust(apps);
        round
    }

    /// Warns if a webhook goes to `https` and no receiver could be trusted: at once, and not only
    /// when the first event is lost.
    fn expect_trust(&self, apps: &Apps) {
        let mut webhooks = apps.iter().flat_map(|app| app.webhooks.iter());
        if let Some(webhook) = webhooks.find(|webhook| webhook.url.tls())
            && let Err(error) = self.tls.config()
        {
            let url = webhook.url.to_string();
            tracing::warn!(url, "webhooks to https cannot be delivered, because {error}");
        }
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            self.work();
            let wake_at = self.wake_at();
            tokio::select! {
                Some(turn) = self.spout.next() => {
                    let now = self.now();
                    turn.into_iter().for_each(|notice| self.dispatch.take(notice, now));
                }
                Some(joined) = self.on_their_way.join_next_with_id() => self.joined(joined),
                () = tokio::time::sleep_until(wake_at) => {}
                // `None` for good once all senders are gone: then this branch is disabled.
                Some(order) = orders.recv() => match order {
                    Order::Configure { apps, queue_bytes } => {
                        self.dispatch.bound_queues(queue_bytes);
                        self.dispatch.configure(&apps);
                        self.expect_trust(&apps);
                    }
                    Order::Finish { within, done } => {
                        self.finish(within).await;
                        let _gone = done.send(());
                        return;
                    }
                },
            }
        }
    }

    /// Delivers what is there, for at most `within`.
    async fn finish(&mut self, within: Duration) {
        while let Some(turn) = self.spout.try_next() {
            let now = self.now();
            turn.into_iter().for_each(|notice| self.dispatch.take(notice, now));
        }
        self.dispatch.hurry(self.now());
        let end = tokio::time::sleep(within);
        tokio::pin!(end);
        loop {
            self.work();
            if self.dispatch.is_empty() {
                return;
            }
            let wake_at = self.wake_at();
            tokio::select! {
                Some(joined) = self.on_their_way.join_next_with_id() => self.joined(joined),
                () = tokio::time::sleep_until(wake_at) => {}
                () = &mut end => break,
            }
        }
        let events = self.dispatch.waiting();
        match self.spool {
            Some(_) => tracing::info!(events, "undelivered webhook events stay in the spool"),
            None => tracing::warn!(events, "undelivered webhook events are lost by the stop"),
        }
    }

    /// Everything that can be done without waiting.
    fn work(&mut self) {
        let now = self.now();
        self.dispatch.tick(now);
        while let Some(delivery) = self.dispatch.next(now) {
            self.send(delivery);
        }
        let changes = self.dispatch.changes();
        if let Some(spool) = &mut self.spool {
            spool.follow(changes, &self.dispatch);
        }
        self.hang_up();
        self.complain(now);
    }

    /// Ends the connections to endpoints that are no more.
    fn hang_up(&mut self) {
        let Self { dispatch, lines, failing, .. } = self;
        lines.retain(|&lane, _| dispatch.lane(lane).is_some());
        failing.retain(|&lane| dispatch.lane(lane).is_some());
    }

    fn send(&mut self, delivery: Delivery) {
        let lane = delivery.lane;
        let line = self.lines.remove(&lane);
        let mut line = line.unwrap_or_else(|| Line::new(self.tls.clone()));
        let task = self.on_their_way.spawn(async move {
            let answer = line.post(&delivery).await;
            (lane, line, answer)
        });
        self.lanes.insert(task.id(), lane);
    }

    fn joined(&mut self, joined: Result<(task::Id, Returned), JoinError>) {
        match joined {
            Ok((task, returned)) => {
                self.lanes.remove(&task);
                self.returned(returned);
            }
            // A defect in one request must not hold up its endpoint for ever.
            Err(error) => {
                tracing::error!(%error, "a webhook failed by a mistake of ours");
                if let Some(lane) = self.lanes.remove(&error.id()) {
                    self.dispatch.failed(lane, self.now(), chance());
                }
            }
        }
    }

    fn returned(&mut self, (lane, line, answer): Returned) {
        let now = self.now();
        let Some((app, webhook)) = self.dispatch.lane(lane) else { return };
        let (app, url) = (app.id.clone(), webhook.url.to_string());
        match answer {
            Ok(()) => {
                let failures = self.dispatch.delivered(lane);
                tracing::debug!(app, url, failures, "a webhook was answered");
                if self.failing.remove(&lane) {
                    tracing::info!(app, url, failures, "the webhook is answered again");
                }
            }
            Err(failure) => {
                let failures = self.dispatch.failed(lane, now, chance());
                if self.dispatch.may_complain(lane, now) {
                    self.failing.insert(lane);
                    tracing::warn!(app, url, failures, %failure, "a webhook failed");
                }
            }
        }
        self.lines.insert(lane, line);
    }

    fn complain(&mut self, now: Millis) {
        for (app, webhook, lost) in self.dispatch.losses(now) {
            let (app, url) = (&app.id, webhook.url.to_string());
            let (overflowed, given_up) = (lost.overflowed, lost.given_up);
            tracing::warn!(app, url, overflowed, given_up, "webhook events are lost");
        }
        let lost = self.spout.lost();
        if lost > 0 {
            tracing::warn!(lost, "webhook events are lost: they come faster than they are sorted");
        }
    }

    fn now(&self) -> Millis {
        let elapsed = self.started.elapsed().as_millis();
        Millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// The time at which there is work even if nothing arrives.
    fn wake_at(&self) -> Instant {
        let due = self.dispatch.next_due();
        due.map_or_else(|| Instant::now() + IDLE, |due| self.started + Duration::from_millis(due.0))
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    // Without chance the waits are the longest: still right.
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::protocol::app::test_app;

    fn round() -> (Tap, Round) {
        let (tap, spout) = tap::pair(tap::WAITING_BYTES_MAX);
        (tap, Round::new(&Apps::new(vec![test_app()]), 1 << 16, None, spout))
    }

    #[tokio::test(start_paused = true)]
    async fn without_anything_to_do_it_sleeps_however_long_it_has_run() {
        let (_tap, round) = round();
        for _ in 0..3 {
            assert_eq!(round.wake_at(), Instant::now() + IDLE);
            tokio::time::advance(IDLE * 2).await;
        }
    }

    /// Whether a task wants to be polled again at once.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_anybody_who_orders_it_sleeps() {
        let (_tap, round) = round();
        let (orders, ordered) = mpsc::unbounded_channel();
        drop(orders);
        let woken = Arc::new(Woken::default());
        let mut run = pin!(round.run(ordered));
        let waker = Waker::from(Arc::clone(&woken));
        assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(!woken.0.load(Ordering::Relaxed));
    }
}
