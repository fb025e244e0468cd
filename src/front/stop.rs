//! The wait for the stop of the front.

use tokio::sync::watch;

/// Resolves when the front is told to stop.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender is gone only when the shard is: that is a stop as well.
    let _ = stop.wait_for(|&stop| stop).await;
}
