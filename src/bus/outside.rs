//! The sender for a thread that is not a shard. It never waits for a shard, so a shard that hangs
//! delays neither the others nor a reload or a stop.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::sync::{Arc, PoisonError};

use tokio::sync::Notify;

use crate::id::ShardId;

use super::peer::Peer;
use super::sync::{Mutex, MutexGuard};

/// Sends to all shards, for the control thread. Clones share the waiting messages, so that order
/// holds among them.
///
/// Contract:
/// - [`broadcast`](Self::broadcast) never blocks. A message that finds a mailbox full waits for its
///   shard, and everything that is broadcast later waits behind it.
/// - Of each variant of the message's enum only the newest waits: it replaces an earlier one, which
///   is dropped. So the number of variants bounds the waiting messages, whatever a shard does.
/// - When [`begun`](Self::begun) resolves, [`flush`](Self::flush) has to be called repeatedly,
///   until it returns no shards.
#[derive(Debug)]
pub struct Outside<M> {
    peers: Arc<[Peer<M>]>,
    /// The number of the peers that are shards, which come first.
    shards: usize,
    waiting: Arc<Waiting<M>>,
}

/// The messages that wait for room in a mailbox.
#[derive(Debug)]
struct Waiting<M> {
    /// Messages that did not fit into a mailbox, by shard, oldest first.
    queues: Mutex<Box<[VecDeque<M>]>>,
    /// Notified when a message begins to wait.
    begun: Notify,
}

// A derived impl would demand that messages are `Clone`.
impl<M> Clone for Outside<M> {
    fn clone(&self) -> Self {
        let (peers, waiting) = (Arc::clone(&self.peers), Arc::clone(&self.waiting));
        Self { peers, shards: self.shards, waiting }
    }
}

impl<M> Outside<M> {
    pub(super) fn new(peers: Arc<[Peer<M>]>, shards: u16) -> Self {
        let queues = Mutex::new((0..shards).map(|_| VecDeque::new()).collect());
        let waiting = Arc::new(Waiting { queues, begun: Notify::new() });
        Self { peers, shards: shards.into(), waiting }
    }

    /// The shards as their senders see them.
    fn shards(&self) -> &[Peer<M>] {
        self.peers.get(..self.shards).unwrap_or_default()
    }

    /// Locks the queues. A poisoned lock is taken all the same, because queues have no state that a
    /// panic could leave inconsistent.
    fn queues(&self) -> MutexGuard<'_, Box<[VecDeque<M>]>> {
        self.waiting.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Send> Outside<M> {
    /// Sends to every shard a message that `message` makes. A shard whose mailbox is full gets it
    /// with a later [`flush`](Self::flush), unless one of the same variant replaces it.
    pub fn broadcast(&self, mut message: impl FnMut() -> M) {
        let mut queues = self.queues();
        for (peer, queue) in self.shards().iter().zip(queues.iter_mut()) {
            let message = message();
            queue.retain(|earlier| discriminant(earlier) != discriminant(&message));
            queue.push_back(message);
            if !peer.take_from(queue) {
                self.waiting.begun.notify_one();
            }
        }
    }

    /// Sends to every shard that has room and for which nothing waits, and drops the messages for
    /// the others. It is for questions that are asked again later.
    pub fn offer(&self, mut message: impl FnMut() -> M) {
        let queues = self.queues();
        for (peer, queue) in self.shards().iter().zip(queues.iter()) {
            let message = message();
            if queue.is_empty() && peer.mailbox.try_send(message).is_ok() {
                peer.wake.notify();
            }
        }
    }

    /// Delivers waiting messages as far as there is room. Returns the shards for which some still
    /// wait.
    pub fn flush(&self) -> Vec<ShardId> {
        let mut queues = self.queues();
        let shards = (0..).map(ShardId).zip(self.shards().iter().zip(queues.iter_mut()));
        let full = shards.filter_map(|(id, (peer, queue))| (!peer.take_from(queue)).then_some(id));
        full.collect()
    }

    /// Resolves when a message has begun to wait since this last resolved.
    pub(crate) async fn begun(&self) {
        self.waiting.begun.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Port, connect};
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Said {
        Settings(u32),
        Memory(u32),
        Stop,
    }

    fn received(port: &mut Port<Said>) -> Vec<Said> {
        std::iter::from_fn(|| port.receive()).collect()
    }

    #[test]
    fn a_full_mailbox_holds_nobody_up_and_keeps_the_order() {
        let mut ports = connect::<Said>(2, 1).unwrap();
        let outside = ports[0].outside();
        outside.broadcast(|| Said::Settings(1));
        outside.broadcast(|| Said::Memory(2));
        outside.broadcast(|| Said::Stop);
        assert_eq!(outside.flush(), [ShardId(0), ShardId(1)]);
        // The first shard takes its messages, the second does not.
        let mut heard = Vec::new();
        while heard.len() < 3 {
            heard.extend(received(&mut ports[0]));
            assert!(outside.flush().contains(&ShardId(1)));
        }
        assert_eq!(heard, [Said::Settings(1), Said::Memory(2), Said::Stop]);
        assert_eq!(outside.flush(), [ShardId(1)]);
    }

    #[test]
    fn of_what_waits_the_newest_of_each_variant_is_delivered() {
        let mut ports = connect::<Said>(1, 1).unwrap();
        let outside = ports[0].outside();
        let twin = outside.clone();
        for number in 0..1000 {
            outside.broadcast(|| Said::Settings(number));
            twin.broadcast(|| Said::Memory(number));
        }
        assert_eq!(outside.queues()[0].len(), 2, "bounded");
        let mut heard = Vec::new();
        loop {
            heard.extend(received(&mut ports[0]));
            if twin.flush().is_empty() && ports[0].is_quiet() {
                break;
            }
        }
        assert_eq!(heard, [Said::Settings(0), Said::Settings(999), Said::Memory(999)]);
    }

    #[test]
    fn a_question_does_not_overtake_what_waits_and_waits_for_nothing() {
        let mut ports = connect::<Said>(1, 1).unwrap();
        let outside = ports[0].outside();
        outside.broadcast(|| Said::Settings(1));
        outside.broadcast(|| Said::Settings(2));
        assert_eq!(received(&mut ports[0]), [Said::Settings(1)]);
        outside.offer(|| Said::Memory(3));
        assert!(outside.flush().is_empty());
        assert_eq!(received(&mut ports[0]), [Said::Settings(2)]);
        outside.offer(|| Said::Memory(4));
        assert_eq!(received(&mut ports[0]), [Said::Memory(4)]);
    }

    #[test]
    fn a_shard_that_has_ended_is_not_waited_for() {
        let mut ports = connect::<Said>(2, 1).unwrap();
        let outside = ports[0].outside();
        drop(ports.pop());
        outside.broadcast(|| Said::Memory(1));
        outside.broadcast(|| Said::Stop);
        assert_eq!(received(&mut ports[0]), [Said::Memory(1)]);
        assert!(outside.flush().is_empty());
    }
}
