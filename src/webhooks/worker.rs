//! The thread that delivers webhooks: it drives `Dispatch` by the clock, by the notices of the
//! shards and by the answers of receivers.

use std::collections::{HashMap, HashSet};
use std::future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinError, JoinSet};

use crate::apps::Apps;
use crate::text::WithCauses;
use crate::time::{Clock, Millis};

use super::dispatch::{Delivery, Dispatch, QueueId};
use super::endpoint_queue::QueueBounds;
use super::figures::WebhookFigures;
use super::http::{DeliveryError, HttpConnection};
use super::notice_queue::{NoticeReceiver, NoticeSender, notice_queue};
use super::resolver::Resolver;
use super::spool::{Spool, SpoolError};
use super::tls::TlsSetup;

/// The time for which the thread sleeps if nothing is due: any long time would do.
const IDLE: Duration = Duration::from_secs(3600);

/// The time for which the thread sleeps at most while files are under way. The runtime hands
/// operations to the kernel when it goes to sleep, and does not look whether the kernel has taken
/// them, which it refuses if memory is short: then the next sleep hands them over again.
const IDLE_WRITING: Duration = Duration::from_secs(1);

/// Entries of the ring: a round of files has one operation each under way, and one that the spool
/// waits for at its end. It is also the bound of the kernel's workers for these operations.
const RING_ENTRIES: u32 = 32;

/// The settings of the worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSettings {
    /// Bytes of events that may wait for one endpoint.
    pub(crate) queue_bytes: usize,
    /// Whether departures are held back here. On a node of a cluster the cluster does it.
    pub(crate) debounces: bool,
    /// Bytes of notices that may wait for the thread, over all shards.
    pub(crate) notice_bytes: usize,
    /// The directory that keeps undelivered batches over a restart; `None`: a restart loses them.
    pub(crate) spool: Option<PathBuf>,
}

/// The handle of the thread that delivers webhooks. If it is dropped without
/// [`finish`](Self::finish), the thread goes on for as long as the process lives.
#[derive(Debug)]
pub(crate) struct WebhookWorker {
    sender: NoticeSender,
    commands: mpsc::UnboundedSender<WorkerCommand>,
    figures: watch::Receiver<WebhookFigures>,
}

/// A command of the control thread.
#[derive(Debug)]
enum WorkerCommand {
    /// Work by these apps and this bound from now on.
    Configure { apps: Arc<Apps>, queue_bytes: usize },
    /// Deliver what waits, for at most this long, report it and end.
    Finish { within: Duration, done: oneshot::Sender<()> },
}

/// The reason for which webhooks cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The ring that writes the spool cannot be set up.
    #[error("cannot set up io_uring for the webhook thread")]
    Ring(#[source] io::Error),
    /// The thread cannot be started.
    #[error("cannot start the webhook thread")]
    Thread(#[source] io::Error),
}

impl WebhookWorker {
    /// Starts the thread. Blocks until its ring and its spool are there.
    ///
    /// # Errors
    /// The spool cannot be used, or the ring or the thread cannot be had.
    pub(crate) fn start(
        apps: Arc<Apps>,
        settings: WorkerSettings,
        clock: Clock,
    ) -> Result<Self, WorkerError> {
        let (sender, receiver) = notice_queue(settings.notice_bytes);
        let (commands, taken) = mpsc::unbounded_channel();
        let (started, starting) = sync_channel(1);
        let (publish, figures) = watch::channel(WebhookFigures::default());
        let run = move || {
            // Neither can leave its thread, so both are made here.
            let (runtime, spool) = match set_up(settings.spool.as_deref(), RING_ENTRIES) {
                Ok(parts) => parts,
                Err(error) => {
                    let _gone = started.send(Err(error));
                    return;
                }
            };
            let _gone = started.send(Ok(()));
            let mut delivery_loop = DeliveryLoop::new(&apps, &settings, spool, receiver, clock);
            delivery_loop.published = publish;
            drop(apps);
            // Once it is done, the runtime waits for name lookups and files under way. Nobody waits
            // for the thread.
            runtime.block_on(delivery_loop.run(taken));
        };
        let thread = thread::Builder::new().name("webhooks".to_owned());
        thread.spawn(run).map_err(WorkerError::Thread)?;
        starting.recv().unwrap_or_else(|gone| Err(WorkerError::Thread(io::Error::other(gone))))?;
        Ok(Self { sender, commands, figures })
    }

    /// A sender of notices, for one shard.
    #[must_use]
    pub(crate) fn notice_sender(&self) -> NoticeSender {
        self.sender.clone()
    }

    /// The figures of the thread.
    #[must_use]
    pub(crate) fn figures(&self) -> watch::Receiver<WebhookFigures> {
        self.figures.clone()
    }

    /// Replaces the apps and the bound of queues. Events that wait for a removed endpoint are still
    /// delivered, and those that wait already stay, even over the new bound. To be called before
    /// shards get the apps, because a shard may send a notice of an app as soon as it has it.
    pub(crate) fn configure(&self, apps: Arc<Apps>, queue_bytes: usize) {
        // If the thread is gone, nothing is delivered anyway; its panic was logged.
        let _gone = self.commands.send(WorkerCommand::Configure { apps, queue_bytes });
    }

    /// Delivers the notices that shards have sent, for at most this long, and ends the thread. What
    /// is left then stays in the spool. Without a spool it is lost, and the log says so.
    pub(crate) async fn finish(self, within: Duration) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(WorkerCommand::Finish { within, done }).is_ok() {
            let _gone = finished.await;
        }
    }
}

/// The runtime of the thread and its spool, if it has one.
fn set_up(
    spool: Option<&Path>,
    ring_entries: u32,
) -> Result<(tokio_uring::Runtime, Option<Spool>), WorkerError> {
    let mut builder = tokio_uring::builder();
    builder.entries(ring_entries);
    let runtime = tokio_uring::Runtime::new(&builder).map_err(WorkerError::Ring)?;
    Ok((runtime, spool.map(Spool::open).transpose()?))
}

/// The state of the thread.
struct DeliveryLoop {
    clock: Clock,
    dispatch: Dispatch,
    spool: Option<Spool>,
    receiver: NoticeReceiver,
    tls: TlsSetup,
    resolver: Resolver,
    /// Connections without a request under way.
    connections: HashMap<QueueId, HttpConnection>,
    /// Requests under way, one task each.
    in_flight: JoinSet<Returned>,
    /// The queue of each task in `in_flight`.
    queues: HashMap<task::Id, QueueId>,
    /// Endpoints whose failure was logged, and whose recovery will be.
    failing: HashSet<QueueId>,
    figures: WebhookFigures,
    /// Takes the figures for the control thread.
    published: watch::Sender<WebhookFigures>,
}

/// A connection that comes back, with the result of its batch.
type Returned = (QueueId, HttpConnection, Result<(), DeliveryError>);

impl DeliveryLoop {
    fn new(
        apps: &Apps,
        settings: &WorkerSettings,
        spool: Option<Spool>,
        receiver: NoticeReceiver,
        clock: Clock,
    ) -> Self {
        let now = clock.now();
        let unix_ms = unix_now_ms().saturating_sub(now.0);
        let &WorkerSettings { queue_bytes, debounces, .. } = settings;
        let bounds = QueueBounds { queue_bytes, spooled: spool.is_some() };
        let mut delivery_loop = Self {
            clock,
            dispatch: Dispatch::new(apps, bounds, unix_ms, debounces),
            spool,
            receiver,
            tls: TlsSetup::default(),
            resolver: Resolver::default(),
            connections: HashMap::new(),
            in_flight: JoinSet::new(),
            queues: HashMap::new(),
            failing: HashSet::new(),
            figures: WebhookFigures::default(),
            published: watch::Sender::default(),
        };
        if let Some(spool) = &mut delivery_loop.spool {
            spool.restore(&mut delivery_loop.dispatch, now);
        }
        delivery_loop.check_trust(apps);
        delivery_loop
    }

    /// Warns if a webhook uses `https` and this host cannot verify any receiver. The warning comes
    /// at the start and at a reload, rather than with the first event that is lost.
    fn check_trust(&self, apps: &Apps) {
        let mut webhooks = apps.iter().flat_map(|app| app.webhooks.iter());
        if let Some(webhook) = webhooks.find(|webhook| webhook.url.tls())
            && let Err(error) = self.tls.check()
        {
            let url = webhook.url.to_string();
            let error = WithCauses(&error);
            tracing::warn!(url, "webhooks to https cannot be delivered, because {error}");
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
        loop {
            self.work();
            let pause = self.pause();
            tokio::select! {
                Some(turn) = self.receiver.next() => {
                    let now = self.now();
                    turn.into_iter().for_each(|notice| self.dispatch.take(notice, now));
                }
                Some(joined) = self.in_flight.join_next_with_id() => self.joined(joined),
                () = settled(&mut self.spool) => {}
                () = tokio::time::sleep(pause) => {}
                // `None` once the handle is gone: then select! disables this branch.
                Some(command) = commands.recv() => match command {
                    WorkerCommand::Configure { apps, queue_bytes } => {
                        self.dispatch.bound_queues(queue_bytes);
                        self.dispatch.configure(&apps);
                        self.check_trust(&apps);
                    }
                    WorkerCommand::Finish { within, done } => {
                        self.finish(within).await;
                        let _gone = done.send(());
                        return;
                    }
                },
            }
        }
    }

    /// Delivers the events that wait, for at most `within`.
    async fn finish(&mut self, within: Duration) {
        while let Some(turn) = self.receiver.try_next() {
            let now = self.now();
            turn.into_iter().for_each(|notice| self.dispatch.take(notice, now));
        }
        self.dispatch.flush(self.now());
        let end = tokio::time::sleep(within);
        tokio::pin!(end);
        loop {
            self.work();
            if self.dispatch.is_empty() && self.spool.as_ref().is_none_or(Spool::is_settled) {
                return;
            }
            let pause = self.pause();
            tokio::select! {
                Some(joined) = self.in_flight.join_next_with_id() => self.joined(joined),
                () = settled(&mut self.spool) => {}
                () = tokio::time::sleep(pause) => {}
                () = &mut end => break,
            }
        }
        self.log_undelivered();
    }

    /// Logs the events that a stop leaves undelivered.
    fn log_undelivered(&self) {
        let kept = self.spool.as_ref().map_or(0, Spool::events_on_disk);
        let lost = self.dispatch.waiting().saturating_sub(kept);
        if kept > 0 {
            tracing::info!(events = kept, "undelivered webhook events stay in the spool");
        }
        if lost > 0 && self.spool.is_some() {
            tracing::warn!(
                events = lost,
                "undelivered webhook events are lost by the stop: the disk of the spool is too \
                 slow, or fails"
            );
        } else if lost > 0 {
            tracing::warn!(events = lost, "undelivered webhook events are lost by the stop");
        }
    }

    /// Does everything that can be done without waiting.
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
        self.close_retired();
        self.log_losses(now);
        self.figures.waiting = self.dispatch.waiting() as u64;
        self.published.send_replace(self.figures);
    }

    /// Closes the connections to endpoints whose queues have ended.
    fn close_retired(&mut self) {
        let Self { dispatch, connections, failing, .. } = self;
        connections.retain(|&queue, _| dispatch.queue(queue).is_some());
        failing.retain(|&queue| dispatch.queue(queue).is_some());
    }

    fn send(&mut self, delivery: Delivery) {
        let queue = delivery.queue;
        let connection = self.connections.remove(&queue);
        let mut connection = connection
            .unwrap_or_else(|| HttpConnection::new(self.tls.clone(), self.resolver.clone()));
        let task = self.in_flight.spawn(async move {
            let answer = connection.post(&delivery).await;
            (queue, connection, answer)
        });
        self.queues.insert(task.id(), queue);
    }

    fn joined(&mut self, joined: Result<(task::Id, Returned), JoinError>) {
        match joined {
            Ok((task, returned)) => {
                self.queues.remove(&task);
                self.returned(returned);
            }
            // A bug in one request must not stop its endpoint for ever.
            Err(error) => {
                tracing::error!(
                    %error,
                    "a webhook failed because of a bug in Ringwave, and is repeated: please report it"
                );
                if let Some(queue) = self.queues.remove(&error.id()) {
                    self.dispatch.failed(queue, self.now(), chance());
                }
            }
        }
    }

    fn returned(&mut self, (queue, connection, answer): Returned) {
        let now = self.now();
        let Some((app, webhook)) = self.dispatch.queue(queue) else { return };
        let (app, url) = (app.id.clone(), webhook.url.to_string());
        match answer {
            Ok(()) => {
                self.count_delivery(queue, now);
                let failures = self.dispatch.delivered(queue);
                tracing::debug!(app, url, failures, "a webhook was answered");
                if self.failing.remove(&queue) {
                    tracing::info!(app, url, failures, "the webhook is answered again");
                }
            }
            Err(failure) => {
                self.figures.requests_failed += 1;
                let failures = self.dispatch.failed(queue, now, chance());
                if self.dispatch.may_log(queue, now) {
                    self.failing.insert(queue);
                    let failure = WithCauses(&failure);
                    tracing::warn!(
                        app,
                        url,
                        failures,
                        %failure,
                        "a webhook failed, and is repeated until its events are five minutes old"
                    );
                }
            }
        }
        self.connections.insert(queue, connection);
    }

    /// Counts the delivery of a queue's first batch.
    fn count_delivery(&mut self, queue: QueueId, now: Millis) {
        self.figures.requests_answered += 1;
        if let Some((events, since)) = self.dispatch.first_of(queue) {
            self.figures.delivered += events as u64;
            self.figures.delays.add(now.since(since));
        }
    }

    fn log_losses(&mut self, now: Millis) {
        for (app, webhook, lost) in self.dispatch.losses(now) {
            let (app, url) = (&app.id, webhook.url.to_string());
            let (overflowed, given_up) = (lost.overflowed, lost.given_up);
            self.figures.overflowed += overflowed;
            self.figures.given_up += given_up;
            tracing::warn!(
                app,
                url,
                overflowed,
                given_up,
                "webhook events are lost: the endpoint is too slow (overflowed: raise \
                 server.webhook_queue) or has failed for five minutes (given_up)"
            );
        }
        let lost = self.receiver.lost();
        self.figures.unqueued += lost;
        if lost > 0 {
            tracing::warn!(
                lost,
                "webhook events are lost: they happen faster than the webhook thread can queue \
                 them; subscribe the webhooks to fewer kinds of events"
            );
        }
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The time until there is work even if nothing arrives.
    fn pause(&self) -> Duration {
        let writing = self.spool.as_ref().is_some_and(Spool::is_working);
        let idle = if writing { IDLE_WRITING } else { IDLE };
        self.dispatch.next_due().map_or(idle, |due| due.since(self.now()).min(idle))
    }
}

/// Waits until the files under way are done, if there are any.
async fn settled(spool: &mut Option<Spool>) {
    match spool {
        Some(spool) => spool.settled().await,
        None => future::pending().await,
    }
}

/// Unix time in milliseconds.
fn unix_now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    // A date before 1970 counts as 1970. 64 bits last for 584 million years.
    u64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    // If there are no random numbers, the waits are the longest, which is still right.
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::super::notice_queue::WAITING_BYTES_MAX;
    use super::*;
    use crate::apps::test_app;

    fn delivery_loop() -> (NoticeSender, DeliveryLoop) {
        let (sender, receiver) = notice_queue(WAITING_BYTES_MAX);
        let apps = Apps::new(vec![test_app()]);
        let settings = WorkerSettings {
            queue_bytes: 1 << 16,
            notice_bytes: 1 << 16,
            debounces: true,
            spool: None,
        };
        (sender, DeliveryLoop::new(&apps, &settings, None, receiver, Clock::start()))
    }

    #[test]
    fn it_sleeps_if_nothing_is_due() {
        let (_sender, delivery_loop) = delivery_loop();
        assert_eq!(delivery_loop.pause(), IDLE);
    }

    #[test]
    fn a_ring_that_cannot_be_set_up_is_an_error() {
        // This is more than the kernel allows (`IORING_MAX_ENTRIES`).
        let refused = set_up(None, 1 << 20).err().unwrap();
        let text = WithCauses(&refused).to_string();
        assert_eq!(text, "cannot set up io_uring for the webhook thread: invalid argument");
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
    async fn without_a_handle_it_sleeps() {
        let (_sender, delivery_loop) = delivery_loop();
        let (commands, taken) = mpsc::unbounded_channel();
        drop(commands);
        let woken = Arc::new(Woken::default());
        let mut run = pin!(delivery_loop.run(taken));
        let waker = Waker::from(Arc::clone(&woken));
        assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(!woken.0.load(Ordering::Relaxed));
    }
}
