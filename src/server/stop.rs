//! The stop, in steps, so that clients and publishers notice as little as possible.
//!
//! 1. Connections are closed, as [`Drain`] says. Everything else goes on: publishes are answered,
//!    and new WebSockets wait for the end.
//! 2. The listeners stay open for slower work: requests that began before the stop, and webhooks.
//! 3. The listeners close, and then the threads end; that of a cluster is the last one.
//!
//! From the first step on, nothing is accepted from sockets that outlive the process (those of
//! systemd): clients that connect wait in their queues for the next process.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::cluster::ClusterWorker;
use crate::shard::{Drain, RETURN, ShardMessage};
use crate::webhooks::WebhookWorker;

use super::shards::{ShardError, Shards};
use super::{mailboxes, notify};

/// The time of a drain beyond its window: for the close handshakes of the last connections, and for
/// requests that are still being sent.
const DRAIN_GRACE: Duration = Duration::from_secs(4);

/// The time for the last webhooks, when no connection is left.
const WEBHOOK_GRACE: Duration = Duration::from_secs(3);

/// The time in which homes learn of the last subscriptions that ended: a turn of each.
const HOMES_GRACE: Duration = Duration::from_millis(500);

/// The time from the order to close the listeners to the end of the last requests.
const LISTENERS_GRACE: Duration = Duration::from_secs(1);

/// The time that threads have to end. The last requests of the front get half a second of it.
const THREADS_GRACE: Duration = Duration::from_secs(2);

/// The listeners may close up to this long after the last close, because no client is back by then:
/// clients return after [`RETURN`].
const UNTIL_FIRST_RETURN: Duration = Duration::from_millis(500);

/// Otherwise the listeners close this long after [`RETURN`], when all clients are back and were
/// asked to return later once more.
const ALL_BACK: Duration = Duration::from_millis(150);

/// The time in which Redis learns that the node's members and subscriptions are gone. A node that
/// cannot tell it is buried by the others when its lease is over.
const CLUSTER_GRACE: Duration = Duration::from_secs(2);

/// The threads that end behind the connections.
pub(super) struct Workers {
    /// The webhooks.
    pub(super) webhooks: WebhookWorker,
    /// The cluster; `None` if the server stands alone.
    pub(super) cluster: Option<ClusterWorker>,
}

/// The longest time that a stop takes, for a service manager.
pub(super) fn patience(drain: Drain) -> Duration {
    drain.lasts()
        + DRAIN_GRACE
        + HOMES_GRACE
        + WEBHOOK_GRACE
        + RETURN
        + LISTENERS_GRACE
        + THREADS_GRACE
        + CLUSTER_GRACE
}

/// Ends all connections, then all threads.
///
/// # Errors
/// A shard fails meanwhile.
pub(super) async fn run(
    shards: &mut Shards,
    workers: Workers,
    drain: Drain,
) -> Result<(), ShardError> {
    let bus = shards.bus();
    // A drain lasts for longer than the answer with the last departures, which webhooks still get.
    workers.cluster.iter().for_each(ClusterWorker::leave_departures);
    let emptied = async {
        bus.broadcast(|| ShardMessage::Drain(drain));
        shards.until(|progress| progress.emptied).await
    };
    match timeout(drain.lasts() + DRAIN_GRACE, emptied).await {
        Ok(emptied) => emptied?,
        Err(_elapsed) => tracing::warn!("requests or connections that do not end in time are cut"),
    }
    // When a shard is empty, the ends of its subscriptions are in the mailboxes of their homes,
    // which still have to send notices for webhooks.
    let _silent = timeout(HOMES_GRACE, notify::roll_call(&bus, HOMES_GRACE)).await;
    workers.webhooks.finish(WEBHOOK_GRACE).await;
    if !drain.successor {
        sleep(shards.since_last_close().map_or(Duration::ZERO, until_no_client_returns)).await;
    }
    shards.remove_socket_files();
    let drained = async {
        bus.broadcast(|| ShardMessage::CloseListeners);
        shards.until(|progress| progress.drained).await
    };
    if let Ok(drained) = timeout(LISTENERS_GRACE, drained).await {
        drained?;
    }
    let ended = async {
        bus.broadcast(|| ShardMessage::Stop);
        shards.ended().await;
    };
    if timeout(THREADS_GRACE, ended).await.is_err() {
        let running = mailboxes::names(&shards.running());
        tracing::error!("{running} did not end and is cut off");
    }
    if let Some(cluster) = workers.cluster {
        cluster.finish(CLUSTER_GRACE).await;
    }
    Ok(())
}

/// The time for which the listeners have to stay open so that no client finds them closed. Clients
/// return after [`RETURN`], and again after each Close that asks them to.
fn until_no_client_returns(since_last_close: Duration) -> Duration {
    let return_ms = RETURN.as_millis();
    let phase = since_last_close.as_millis() % return_ms;
    // Less than `RETURN`, which is some seconds.
    let phase = Duration::from_millis(phase as u64);
    let all_back = if since_last_close < RETURN { Duration::ZERO } else { ALL_BACK };
    if (all_back..=UNTIL_FIRST_RETURN).contains(&phase) {
        return Duration::ZERO;
    }
    let next = if phase < all_back { Duration::ZERO } else { RETURN };
    next + ALL_BACK - phase
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn listeners_close_before_the_first_is_back_or_when_all_have_been_told_again() {
        let waits = [0, 500, 501, 999, 1000, 1100, 1150, 1500, 1501, 2150];
        let ends = waits.map(|since| ms(since) + until_no_client_returns(ms(since)));
        let expected = [0, 500, 1150, 1150, 1150, 1150, 1150, 1500, 2150, 2150];
        assert_eq!(ends, expected.map(ms));
    }
}
