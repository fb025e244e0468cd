//! The figures of a shard at one moment: a copy of its counters for a scrape.
//!
//! A copy costs some microseconds, whatever the number of connections and channels.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::Shard;
use crate::apps::Apps;
use crate::counters::{
    ByKind, ChannelCounters, ConnectionCounters, PerApp, RequestCounters, ShortDurations,
};
use crate::plane;
use crate::ring::Ring;

/// The figures of a shard at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The apps that the counters by app belong to.
    pub(crate) apps: Arc<Apps>,
    /// The counters of connections.
    pub(crate) connections: PerApp<ConnectionCounters>,
    /// The subscriptions of connections.
    pub(crate) subscriptions: PerApp<ByKind>,
    /// The counters of channels whose home is the shard.
    pub(crate) channels: PerApp<ChannelCounters>,
    /// The counters of the front.
    pub(crate) front: FrontFigures,
    /// The counters of sockets.
    pub(crate) plane: plane::Counters,
    /// Open WebSockets.
    pub(crate) open: usize,
    /// Bytes that are held for slow readers.
    pub(crate) backlog_bytes: usize,
    /// Cached events of channels whose home is the shard.
    pub(crate) cached_events: usize,
    /// Messages that wait in the mailbox.
    pub(crate) mailbox: usize,
    /// Messages that had to wait for room in the mailbox of another shard so far.
    pub(crate) spills: u64,
    /// The time that the processor has worked for the thread, in the kernel or not.
    pub(crate) busy: Duration,
    /// The durations of turns.
    pub(crate) turns: ShortDurations,
}

/// The figures of a shard's front.
#[derive(Clone, Debug)]
pub(crate) struct FrontFigures {
    /// The counters of requests.
    pub(crate) requests: PerApp<RequestCounters>,
    /// Handshakes with a key that no app has.
    pub(crate) strangers: u64,
}

impl<R: Ring> Shard<R> {
    /// The scrapes that have not been answered.
    pub(super) fn take_scrapes(&mut self) -> Vec<oneshot::Sender<Box<Figures>>> {
        std::mem::take(&mut self.scrapes)
    }

    /// The figures now, with those of the front and of the thread's loop.
    pub(super) fn figures(&self, front: FrontFigures, turns: ShortDurations) -> Figures {
        let Self { plane, subscribers, homes, .. } = self;
        Figures {
            apps: Arc::clone(&subscribers.apps),
            connections: subscribers.counters.clone(),
            subscriptions: subscribers.local.subscribed().clone(),
            channels: homes.counters().clone(),
            front,
            plane: *plane.counters(),
            open: plane.open_connections(),
            backlog_bytes: plane.backlog_bytes(),
            cached_events: homes.cached(),
            mailbox: self.port().waiting(),
            spills: self.port().spillings(),
            busy: busy(),
            turns,
        }
    }
}

/// The time that the processor has worked for this thread.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
