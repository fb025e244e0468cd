//! Turns notices into requests: departures are debounced, counts are spaced out, and each event
//! goes to the queues of its app's endpoints that want it. A state machine: time and chance are
//! handed in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::apps::webhook::Webhook;
use crate::apps::{App, Apps};
use crate::channels::CountThrottle;
use crate::id::AppIndex;
use crate::protocol::names::ChannelName;
use crate::time::Millis;

use super::body;
use super::debounce::Debounce;
use super::endpoint_queue::{BatchChange, EndpointQueue, LostEvents, QueueBounds};
use crate::channels::{ChannelEvent, Notice};

/// The least time between two warnings about one endpoint, so that a dead one does not fill the
/// log.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// The id of a queue. It is never used for another one.
pub(super) type QueueId = u64;

/// The queues of all endpoints, and what happens to a notice before it reaches them.
///
/// Order of calls: [`take`](Self::take) for each notice; [`tick`](Self::tick), then
/// [`next`](Self::next) until it returns `None`, whenever anything happened and at
/// [`next_due`](Self::next_due); [`delivered`](Self::delivered) or [`failed`](Self::failed) for
/// each [`Delivery`]; [`changes`](Self::changes) after all of these.
#[derive(Debug)]
pub(super) struct Dispatch {
    bounds: QueueBounds,
    /// Unix time in milliseconds at time 0 of the process's clock.
    unix_ms: u64,
    queues: BTreeMap<QueueId, EndpointQueue>,
    /// The queues of each app with webhooks, in the order of the configuration.
    by_app: HashMap<AppIndex, Vec<QueueId>>,
    next_id: QueueId,
    /// Holds departures back. `None` on a node of a cluster, where the cluster does it, because a
    /// user may return on another node.
    debounce: Option<Debounce>,
    counts: CountThrottle<(AppIndex, ChannelName)>,
    /// The time of the last warning about each endpoint, for [`LOG_PAUSE`].
    logged_at: BTreeMap<QueueId, Millis>,
}

/// A batch to send. [`Dispatch::delivered`] or [`Dispatch::failed`] has to follow.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) queue: QueueId,
    pub(super) app: Arc<App>,
    pub(super) webhook: Arc<Webhook>,
    pub(super) body: Bytes,
}

impl Dispatch {
    /// Queues without events. With `debounces`, departures are held back.
    pub(super) fn new(apps: &Apps, bounds: QueueBounds, unix_ms: u64, debounces: bool) -> Self {
        let mut dispatch = Self {
            bounds,
            unix_ms,
            queues: BTreeMap::new(),
            by_app: HashMap::new(),
            next_id: 0,
            debounce: debounces.then(Debounce::default),
            counts: CountThrottle::default(),
            logged_at: BTreeMap::new(),
        };
        dispatch.configure(apps);
        dispatch
    }

    /// Takes the webhooks of these apps. Unchanged endpoints keep their queues; the queues of
    /// removed ones end when they are empty.
    pub(super) fn configure(&mut self, apps: &Apps) {
        self.queues.values_mut().for_each(|queue| queue.retired = true);
        self.by_app.clear();
        for app in apps.iter() {
            for webhook in app.webhooks.iter() {
                let queue = self.queue_of(app, webhook);
                self.by_app.entry(app.index).or_default().push(queue);
            }
        }
        self.end_retired();
    }

    /// Changes the bound of each queue. Events that wait already stay, even over the new bound.
    pub(super) fn bound_queues(&mut self, queue_bytes: usize) {
        self.bounds.queue_bytes = queue_bytes;
        self.queues.values_mut().for_each(|queue| queue.bound_queue(queue_bytes));
    }

    /// Takes a notice.
    pub(super) fn take(&mut self, notice: Notice, now: Millis) {
        let taken = match &mut self.debounce {
            Some(debounce) => debounce.take(notice, now),
            None => Some(notice),
        };
        let Some(notice) = taken else { return };
        if let ChannelEvent::SubscriptionCount(count) = notice.event
            && !self.counts.take(&(notice.app, notice.channel.clone()), count, now)
        {
            return;
        }
        self.enqueue(&notice, now);
    }

    /// Queues the events that have become due.
    pub(super) fn tick(&mut self, now: Millis) {
        while let Some(notice) = self.debounce.as_mut().and_then(|debounce| debounce.due(now)) {
            self.enqueue(&notice, now);
        }
        while let Some((channel, count)) = self.counts.due(now) {
            self.enqueue(&of_count(channel, count), now);
        }
    }

    /// Makes everything due that still waits, because no more notices will come.
    pub(super) fn flush(&mut self, now: Millis) {
        while let Some(notice) = self.debounce.as_mut().and_then(Debounce::rest) {
            self.enqueue(&notice, now);
        }
        while let Some((channel, count)) = self.counts.rest() {
            self.enqueue(&of_count(channel, count), now);
        }
        self.queues.values_mut().for_each(EndpointQueue::flush);
    }

    /// The next batch to send, of any endpoint.
    pub(super) fn next(&mut self, now: Millis) -> Option<Delivery> {
        self.queues.iter_mut().find_map(|(&id, queue)| {
            let body = queue.next(now)?;
            let (app, webhook) = (Arc::clone(&queue.app), Arc::clone(&queue.webhook));
            Some(Delivery { queue: id, app, webhook, body })
        })
    }

    /// The time at which [`tick`](Self::tick), [`next`](Self::next) and [`losses`](Self::losses)
    /// have to be called again.
    pub(super) fn next_due(&self) -> Option<Millis> {
        let queues = self.queues.values().filter_map(EndpointQueue::next_due);
        let losses = self.queues.iter().filter(|(_, queue)| queue.lost != LostEvents::default());
        let complaint = losses.filter_map(|(id, _)| self.logged_at.get(id)).min();
        let complaint = complaint.map(|&at| at + LOG_PAUSE);
        let departure = self.debounce.as_ref().and_then(Debounce::next_due);
        let others = [departure, self.counts.next_due(), complaint];
        queues.chain(others.into_iter().flatten()).min()
    }

    /// The batch in flight has arrived. Returns the number of failures before.
    pub(super) fn delivered(&mut self, queue: QueueId) -> u32 {
        let failures = self.queues.get_mut(&queue).map_or(0, EndpointQueue::delivered);
        self.end_retired();
        failures
    }

    /// The batch in flight has not arrived. `chance` is a random number from 0 to 1. Returns the
    /// number of failures in a row.
    pub(super) fn failed(&mut self, queue: QueueId, now: Millis, chance: f64) -> u32 {
        let failures = self.queues.get_mut(&queue).map_or(0, |queue| queue.failed(now, chance));
        self.end_retired();
        failures
    }

    /// Takes a batch that an earlier process left in the spool. `None`: its endpoint is no longer
    /// configured, or its queue is full.
    pub(super) fn restore(
        &mut self,
        app_id: &str,
        url: &str,
        (body, events): (&[u8], usize),
        now: Millis,
    ) -> Option<(QueueId, u64)> {
        let is_its =
            |queue: &EndpointQueue| queue.app.id == app_id && queue.webhook.url.whole() == url;
        let (&id, queue) = self.queues.iter_mut().find(|(_, queue)| is_its(queue))?;
        let body = body::restamped(body, self.unix_ms + now.0);
        queue.restore(body.into(), events, now).map(|number| (id, number))
    }

    /// The changes since the last call, for the spool to follow.
    pub(super) fn changes(&mut self) -> Vec<(QueueId, BatchChange)> {
        let queues = self.queues.iter_mut();
        let changes = queues
            .flat_map(|(&id, queue)| queue.changes().map(move |change| (id, change)))
            .collect();
        self.end_retired();
        changes
    }

    /// The number of events of a queue's first batch, and the time of the first of them.
    pub(super) fn first_of(&self, id: QueueId) -> Option<(usize, Millis)> {
        self.queues.get(&id).and_then(EndpointQueue::first)
    }

    /// The endpoint of a queue.
    pub(super) fn queue(&self, id: QueueId) -> Option<(&App, &Webhook)> {
        self.queues.get(&id).map(|queue| (&*queue.app, &*queue.webhook))
    }

    /// Events that wait or are in flight, over all endpoints.
    pub(super) fn waiting(&self) -> usize {
        self.queues.values().map(EndpointQueue::waiting).sum()
    }

    /// Whether no event waits in a queue or is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.values().all(EndpointQueue::is_empty)
    }

    /// Whether a warning about this endpoint may be logged now. If so, the next may be in ten
    /// seconds.
    pub(super) fn may_log(&mut self, queue: QueueId, now: Millis) -> bool {
        self.logged_at.retain(|_, at| now.since(*at) < LOG_PAUSE);
        let may = !self.logged_at.contains_key(&queue);
        if may {
            self.logged_at.insert(queue, now);
        }
        may
    }

    /// Losses that are to be logged now: those of each endpoint once in ten seconds.
    pub(super) fn losses(&mut self, now: Millis) -> Vec<(Arc<App>, Arc<Webhook>, LostEvents)> {
        let lossy = |queue: &EndpointQueue| queue.lost != LostEvents::default();
        let ids = self.queues.iter().filter(|(_, queue)| lossy(queue)).map(|(&id, _)| id);
        let ids: Vec<_> = ids.collect();
        let ids: Vec<_> = ids.into_iter().filter(|&id| self.may_log(id, now)).collect();
        let mut take = |id| {
            let queue = self.queues.get_mut(&id)?;
            let (app, webhook) = (Arc::clone(&queue.app), Arc::clone(&queue.webhook));
            Some((app, webhook, std::mem::take(&mut queue.lost)))
        };
        ids.into_iter().filter_map(&mut take).collect()
    }

    fn enqueue(&mut self, notice: &Notice, now: Millis) {
        let Some(queues) = self.by_app.get(&notice.app) else { return };
        let unix_ms = self.unix_ms + now.0;
        let mut encoded = None;
        for id in queues {
            let Some(queue) = self.queues.get_mut(id) else { continue };
            if queue.webhook.wants(notice.kind(), &notice.channel) {
                let event = encoded.get_or_insert_with(|| body::event(notice));
                queue.push(event, now, unix_ms);
            }
        }
    }

    /// The queue of a configured endpoint: its own from before, or a new one.
    fn queue_of(&mut self, app: &Arc<App>, webhook: &Arc<Webhook>) -> QueueId {
        let same = |queue: &EndpointQueue| {
            queue.retired && queue.app.id == app.id && queue.webhook == *webhook
        };
        if let Some((&id, queue)) = self.queues.iter_mut().find(|(_, queue)| same(queue)) {
            queue.retired = false;
            queue.app = Arc::clone(app);
            return id;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.queues
            .insert(id, EndpointQueue::new(Arc::clone(app), Arc::clone(webhook), self.bounds));
        id
    }

    fn end_retired(&mut self) {
        self.queues.retain(|_, queue| !(queue.retired && queue.is_done()));
    }
}

/// The notice of a count that was held back.
fn of_count((app, channel): (AppIndex, ChannelName), count: u32) -> Notice {
    Notice { app, channel, event: ChannelEvent::SubscriptionCount(count) }
}

#[cfg(test)]
mod tests;
