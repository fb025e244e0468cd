//! Questions of the control thread to all shards at once.
//!
//! Contract: the control thread never waits for a shard. A shard is asked only if its mailbox has
//! room, and has a bounded time to answer. If it does not, its answer is missing.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::bus::Outside;
use crate::shard::ShardMessage;

/// Asks all shards at once, by a message that is made of the sender of the answer. The future
/// returns the answers by shard, `None` for a shard that has not answered within `timeout`.
pub(super) fn ask<T>(
    bus: &Outside<ShardMessage>,
    timeout: Duration,
    question: fn(oneshot::Sender<T>) -> ShardMessage,
) -> impl Future<Output = Vec<Option<T>>> + use<T> {
    let mut asked = Vec::new();
    // If a mailbox is full, its shard hangs: the message is dropped, and the answer is missing.
    bus.offer(|| {
        let (sender, answer) = oneshot::channel();
        asked.push(answer);
        question(sender)
    });
    async move {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(timeout_at(deadline, answer).await.ok().and_then(Result::ok));
        }
        answers
    }
}
