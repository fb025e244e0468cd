//! The way from the shards to the worker: what happened in a turn is handed over as one piece, or
//! counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::channels::{ChannelEvent, Notice};

/// Turns that may wait for the worker: some seconds of a busy shard, if the worker stands still.
const TURNS_MAX: usize = 4096;

/// Bytes of notices that may wait for the worker, over all shards, where memory allows it.
pub(crate) const WAITING_BYTES_MAX: usize = 32 << 20;

/// Bytes of notices of one turn, so that one shard alone cannot fill the queue.
const TURN_BYTES_MAX: usize = 8 << 20;

/// A shard's end of the queue. In each turn: [`push`](Self::push) for each notice, then
/// [`send`](Self::send) once. The default one has no other end and takes nothing.
#[derive(Debug, Default)]
pub struct NoticeSender {
    sender: Option<Sender<Vec<Notice>>>,
    counts: Arc<QueueCounts>,
    /// The notices of this turn.
    turn: Vec<Notice>,
    /// Their weight.
    turn_bytes: usize,
}

/// The numbers that both ends share.
#[derive(Debug, Default)]
struct QueueCounts {
    /// The most bytes that may wait.
    waiting_max: usize,
    /// The bytes that wait.
    waiting: AtomicUsize,
    /// Notices that found no room, since the worker last asked.
    lost: AtomicU64,
}

/// The worker's end of the queue.
#[derive(Debug)]
pub struct NoticeReceiver {
    receiver: Receiver<Vec<Notice>>,
    counts: Arc<QueueCounts>,
}

/// Makes both ends of a queue that holds at most this many bytes of notices. Each shard gets a
/// clone of the sender.
pub fn notice_queue(waiting_max: usize) -> (NoticeSender, NoticeReceiver) {
    let (sender, receiver) = channel(TURNS_MAX);
    let counts = Arc::new(QueueCounts { waiting_max, ..QueueCounts::default() });
    let sender = Some(sender);
    let sender = NoticeSender { sender, counts: Arc::clone(&counts), ..NoticeSender::default() };
    (sender, NoticeReceiver { receiver, counts })
}

impl Clone for NoticeSender {
    /// A sender for another shard. The notices of the turn are not cloned.
    fn clone(&self) -> Self {
        let (sender, counts) = (self.sender.clone(), Arc::clone(&self.counts));
        Self { sender, counts, turn: Vec::new(), turn_bytes: 0 }
    }
}

impl NoticeSender {
    /// Takes a notice, to be handed over at the end of the turn.
    pub(crate) fn push(&mut self, notice: Notice) {
        if self.sender.is_none() {
            return;
        }
        if let ChannelEvent::SubscriptionCount(count) = &notice.event
            && let Some(last) = self.turn.last_mut()
            && let ChannelEvent::SubscriptionCount(earlier) = &mut last.event
            && (last.app, &last.channel) == (notice.app, &notice.channel)
        {
            // If many clients subscribe in one turn, only the last count is of interest.
            *earlier = *count;
            return;
        }
        let weight = notice.weight();
        if self.turn_bytes + weight > TURN_BYTES_MAX.min(self.counts.waiting_max) {
            self.lose(1);
            return;
        }
        self.turn_bytes += weight;
        self.turn.push(notice);
    }

    /// Hands over the notices of the turn. Costs nothing if there are none.
    pub(crate) fn send(&mut self) {
        let Some(sender) = self.sender.as_ref().filter(|_| !self.turn.is_empty()) else { return };
        let bytes = std::mem::take(&mut self.turn_bytes);
        let turn = std::mem::take(&mut self.turn);
        let count = turn.len() as u64;
        let waiting = self.counts.waiting.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > self.counts.waiting_max || sender.try_send(turn).is_err() {
            self.counts.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.lose(count);
        }
    }

    fn lose(&self, notices: u64) {
        self.counts.lost.fetch_add(notices, Ordering::Relaxed);
    }
}

impl NoticeReceiver {
    /// Waits for the notices of a turn of any shard. `None`: all senders are gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Notice>> {
        let turn = self.receiver.recv().await;
        turn.inspect(|turn| self.taken(turn))
    }

    /// The notices of a turn, if any wait.
    pub fn try_next(&mut self) -> Option<Vec<Notice>> {
        let turn = self.receiver.try_recv().ok();
        turn.inspect(|turn| self.taken(turn))
    }

    /// The number of notices that were lost since the last call.
    pub(super) fn lost(&self) -> u64 {
        self.counts.lost.swap(0, Ordering::Relaxed)
    }

    fn taken(&self, turn: &[Notice]) {
        let bytes: usize = turn.iter().map(Notice::weight).sum();
        self.counts.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_one_piece_and_keeps_its_order() {
        let (mut sender, mut receiver) = notice_queue(WAITING_BYTES_MAX);
        sender.push(Notice::of("a", ChannelEvent::Occupied));
        sender.push(Notice::of("b", ChannelEvent::Occupied));
        assert!(receiver.try_next().is_none());
        sender.send();
        sender.send();
        let turn = receiver.try_next().unwrap();
        assert_eq!(turn.iter().map(|of| of.channel.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(receiver.try_next().is_none());
        assert_eq!(receiver.counts.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_goes_on() {
        let (mut sender, mut receiver) = notice_queue(WAITING_BYTES_MAX);
        for _ in 0..TURNS_MAX + 3 {
            sender.push(Notice::of("a", ChannelEvent::CacheMiss));
            sender.send();
        }
        assert_eq!((receiver.lost(), receiver.lost()), (3, 0));
        let turns = std::iter::from_fn(|| receiver.try_next()).count();
        assert_eq!((turns, receiver.counts.waiting.load(Ordering::Relaxed)), (TURNS_MAX, 0));
        sender.push(Notice::of("a", ChannelEvent::CacheMiss));
        sender.send();
        assert!(receiver.try_next().is_some());
    }

    #[test]
    fn a_turn_is_bounded_in_bytes() {
        let (mut sender, mut receiver) = notice_queue(WAITING_BYTES_MAX);
        let weight = Notice::of("a", ChannelEvent::CacheMiss).weight();
        let most = TURN_BYTES_MAX / weight;
        (0..most + 5).for_each(|_| sender.push(Notice::of("a", ChannelEvent::CacheMiss)));
        sender.send();
        assert_eq!(receiver.lost(), 5);
        assert_eq!(receiver.try_next().unwrap().len(), most);
    }

    #[test]
    fn counts_of_one_channel_that_follow_each_other_are_one() {
        let (mut sender, mut receiver) = notice_queue(WAITING_BYTES_MAX);
        for (channel, count) in [("a", 1), ("a", 2), ("b", 1), ("a", 3)] {
            sender.push(Notice::of(channel, ChannelEvent::SubscriptionCount(count)));
        }
        sender.send();
        let count = |of: &Notice| match of.event {
            ChannelEvent::SubscriptionCount(count) => (of.channel.to_string(), count),
            _ => unreachable!(),
        };
        let counts: Vec<_> = receiver.try_next().unwrap().iter().map(count).collect();
        assert_eq!(counts, [("a".into(), 2), ("b".into(), 1), ("a".into(), 3)]);
    }

    #[test]
    fn a_sender_without_a_receiver_takes_nothing() {
        let mut sender = NoticeSender::default();
        sender.push(Notice::of("a", ChannelEvent::Occupied));
        sender.send();
        assert!(sender.turn.is_empty() && sender.counts.lost.load(Ordering::Relaxed) == 0);
    }
}
