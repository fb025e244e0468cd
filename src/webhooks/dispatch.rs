//! From what happened to what is sent: departures settle, numbers pause, each event goes to the
//! lanes of its app that want it. A state machine: time and chance are handed in.

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

use super::lane::{Bounds, Change, Counters, Lane};
use super::settling::Settling;
use super::{Notice, NoticeKind, body};

/// The time between two complaints about one endpoint.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Names a lane. Never used twice.
pub(super) type LaneId = u64;

/// See the module.
#[derive(Debug)]
pub(super) struct Dispatch {
    bounds: Bounds,
    /// Unix time at 0 of our clock.
    unix_ms: u64,
    lanes: BTreeMap<LaneId, Lane>,
    /// The lanes of each app that has any, in the order of the configuration.
    by_app: HashMap<AppIndex, Vec<LaneId>>,
    next_lane: LaneId,
    settling: Settling,
    counts: CountThrottle<(AppIndex, ChannelName)>,
    /// The time of the last complaint about each endpoint, as far as that is not long ago.
    complained: BTreeMap<LaneId, Millis>,
}

/// A batch on its way. [`Dispatch::delivered`] or [`Dispatch::failed`] has to follow.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) lane: LaneId,
    pub(super) app: Arc<App>,
    pub(super) webhook: Arc<Webhook>,
    pub(super) body: Bytes,
}

impl Dispatch {
    pub(super) fn new(apps: &Apps, bounds: Bounds, unix_ms: u64) -> Self {
        let mut dispatch = Self {
            bounds,
            unix_ms,
            lanes: BTreeMap::new(),
            by_app: HashMap::new(),
            next_lane: 0,
            settling: Settling::default(),
            counts: CountThrottle::default(),
            complained: BTreeMap::new(),
        };
        dispatch.configure(apps);
        dispatch
    }

    /// Takes the webhooks of these apps. Endpoints that stay as they are keep their queues; those
    /// that are no more deliver what they have.
    pub(super) fn configure(&mut self, apps: &Apps) {
        self.lanes.values_mut().for_each(|lane| lane.retired = true);
        self.by_app.clear();
        for app in apps.iter() {
            for webhook in app.webhooks.iter() {
                let lane = self.lane_of(app, webhook);
                self.by_app.entry(app.index).or_default().push(lane);
            }
        }
        self.end_retired();
    }

    /// Bounds what may wait for an endpoint from now on. What waits already stays.
    pub(super) fn bound_queues(&mut self, queue_bytes: usize) {
        self.bounds.queue_bytes = queue_bytes;
        self.lanes.values_mut().for_each(|lane| lane.bound_queue(queue_bytes));
    }

    /// Takes what happened.
    pub(super) fn take(&mut self, notice: Notice, now: Millis) {
        let Some(notice) = self.settling.take(notice, now) else { return };
        if let NoticeKind::SubscriptionCount(count) = notice.what
            && !self.counts.take(&(notice.app, notice.channel.clone()), count, now)
        {
            return;
        }
        self.tell(&notice, now);
    }

    /// Tells what has become due.
    pub(super) fn tick(&mut self, now: Millis) {
        while let Some(notice) = self.settling.due(now) {
            self.tell(&notice, now);
        }
        while let Some((channel, count)) = self.counts.due(now) {
            self.tell(&of_count(channel, count), now);
        }
    }

    /// Nothing more will come: whatever still waits becomes due.
    pub(super) fn hurry(&mut self, now: Millis) {
        while let Some(notice) = self.settling.rest() {
            self.tell(&notice, now);
        }
        while let Some((channel, count)) = self.counts.rest() {
            self.tell(&of_count(channel, count), now);
        }
        self.lanes.values_mut().for_each(Lane::hurry);
    }

    /// The next batch to send.
    pub(super) fn next(&mut self, now: Millis) -> Option<Delivery> {
        self.lanes.iter_mut().find_map(|(&id, lane)| {
            let body = lane.next(now)?;
            let (app, webhook) = (Arc::clone(&lane.app), Arc::clone(&lane.webhook));
            Some(Delivery { lane: id, app, webhook, body })
        })
    }

    /// The time at which [`tick`](Self::tick), [`next`](Self::next) and [`losses`](Self::losses)
    /// have to be called again.
    pub(super) fn next_due(&self) -> Option<Millis> {
        let lanes = self.lanes.values().filter_map(Lane::next_due);
        let losses = self.lanes.iter().filter(|(_, lane)| lane.counters != Counters::default());
        let complaint = losses.filter_map(|(id, _)| self.complained.get(id)).min();
        let complaint = complaint.map(|&at| at + COMPLAINT_PAUSE);
        let others = [self.settling.next_due(), self.counts.next_due(), complaint];
        lanes.chain(others.into_iter().flatten()).min()
    }

    /// A batch has arrived. Returns after how many failures.
    pub(super) fn delivered(&mut self, lane: LaneId) -> u32 {
        let failures = self.lanes.get_mut(&lane).map_or(0, Lane::delivered);
        self.end_retired();
        failures
    }

    /// A batch has not arrived. `chance` is from 0 to 1.
    pub(super) fn failed(&mut self, lane: LaneId, now: Millis, chance: f64) -> u32 {
        let failures = self.lanes.get_mut(&lane).map_or(0, |lane| lane.failed(now, chance));
        self.end_retired();
        failures
    }

    /// Takes a batch that an earlier process left behind. `None`: no endpoint wants it any more.
    pub(super) fn restore(
        &mut self,
        app_id: &str,
        url: &str,
        (body, events): (&[u8], usize),
        now: Millis,
    ) -> Option<(LaneId, u64)> {
        let goes_there = |lane: &Lane| lane.app.id == app_id && lane.webhook.url.whole() == url;
        let (&id, lane) = self.lanes.iter_mut().find(|(_, lane)| goes_there(lane))?;
        let body = body::restamped(body, self.unix_ms + now.0);
        lane.restore(body.into(), events, now).map(|number| (id, number))
    }

    /// The changes since the last call, which a spool has to follow.
    pub(super) fn changes(&mut self) -> Vec<(LaneId, Change)> {
        let lanes = self.lanes.iter_mut();
        let changes =
            lanes.flat_map(|(&id, lane)| lane.changes().map(move |change| (id, change))).collect();
        self.end_retired();
        changes
    }

    /// The endpoint of a lane.
    pub(super) fn lane(&self, id: LaneId) -> Option<(&App, &Webhook)> {
        self.lanes.get(&id).map(|lane| (&*lane.app, &*lane.webhook))
    }

    /// Events that wait or are on their way, over all endpoints.
    pub(super) fn waiting(&self) -> usize {
        self.lanes.values().map(Lane::waiting).sum()
    }

    /// Whether nothing waits in a lane or is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.values().all(Lane::is_empty)
    }

    /// Whether the log may be told about this endpoint: not more often than every ten seconds.
    pub(super) fn may_complain(&mut self, lane: LaneId, now: Millis) -> bool {
        self.complained.retain(|_, at| now.since(*at) < COMPLAINT_PAUSE);
        let may = !self.complained.contains_key(&lane);
        if may {
            self.complained.insert(lane, now);
        }
        may
    }

    /// Losses that the log has not heard of: of each endpoint once in ten seconds.
    pub(super) fn losses(&mut self, now: Millis) -> Vec<(Arc<App>, Arc<Webhook>, Counters)> {
        let lossy = |lane: &Lane| lane.counters != Counters::default();
        let ids = self.lanes.iter().filter(|(_, lane)| lossy(lane)).map(|(&id, _)| id);
        let ids: Vec<_> = ids.collect();
        let ids: Vec<_> = ids.into_iter().filter(|&id| self.may_complain(id, now)).collect();
        let mut take = |id| {
            let lane = self.lanes.get_mut(&id)?;
            let (app, webhook) = (Arc::clone(&lane.app), Arc::clone(&lane.webhook));
            Some((app, webhook, std::mem::take(&mut lane.counters)))
        };
        ids.into_iter().filter_map(&mut take).collect()
    }

    fn tell(&mut self, notice: &Notice, now: Millis) {
        let Some(lanes) = self.by_app.get(&notice.app) else { return };
        let unix_ms = self.unix_ms + now.0;
        let mut encoded = None;
        for id in lanes {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            if lane.webhook.wants(notice.what.event_kind(), &notice.channel) {
                let event = encoded.get_or_insert_with(|| body::event(notice));
                lane.push(event, now, unix_ms);
            }
        }
    }

    /// The lane of a configured endpoint: the one that it had, or a new one.
    fn lane_of(&mut self, app: &Arc<App>, webhook: &Arc<Webhook>) -> LaneId {
        let same = |lane: &Lane| lane.retired && lane.app.id == app.id && lane.webhook == *webhook;
        if let Some((&id, lane)) = self.lanes.iter_mut().find(|(_, lane)| same(lane)) {
            lane.retired = false;
            lane.app = Arc::clone(app);
            return id;
        }
        let id = self.next_lane;
        self.next_lane += 1;
        self.lanes.insert(id, Lane::new(Arc::clone(app), Arc::clone(webhook), self.bounds));
        id
    }

    fn end_retired(&mut self) {
        self.lanes.retain(|_, lane| !(lane.retired && lane.is_done()));
    }
}

/// A number of subscribers that has waited.
fn of_count((app, channel): (AppIndex, ChannelName), count: u32) -> Notice {
    Notice { app, channel, what: NoticeKind::SubscriptionCount(count) }
}

#[cfg(test)]
mod tests;
