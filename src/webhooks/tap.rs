//! A shard's end: what happened in a turn goes to the courier as one piece, or is counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Notice, What};

/// Turns that may wait for the courier.
const TURNS_MAX: usize = 4096;

/// Bytes of notices that may wait for the courier, over all shards, where memory allows it.
pub(crate) const WAITING_BYTES_MAX: usize = 32 << 20;

/// Bytes of notices of one turn.
const TURN_BYTES_MAX: usize = 8 << 20;

/// A shard's end of the way to the courier. The default one leads nowhere.
#[derive(Debug, Default)]
pub struct Tap {
    sender: Option<Sender<Vec<Notice>>>,
    shared: Arc<Shared>,
    /// The notices of this turn.
    turn: Vec<Notice>,
    /// Their weight.
    turn_bytes: usize,
}

/// The state that both ends share.
#[derive(Debug, Default)]
struct Shared {
    /// The most bytes that may be on the way.
    waiting_max: usize,
    /// Bytes on the way.
    waiting: AtomicUsize,
    /// Notices that found no room and that the courier has not heard of.
    lost: AtomicU64,
}

/// The courier's end.
#[derive(Debug)]
pub(super) struct Spout {
    receiver: Receiver<Vec<Notice>>,
    shared: Arc<Shared>,
}

/// Makes both ends, with at most so many bytes of notices between them. Clone the tap for each
/// shard.
pub(super) fn pair(waiting_max: usize) -> (Tap, Spout) {
    let (sender, receiver) = channel(TURNS_MAX);
    let shared = Arc::new(Shared { waiting_max, ..Shared::default() });
    let tap = Tap { sender: Some(sender), shared: Arc::clone(&shared), ..Tap::default() };
    (tap, Spout { receiver, shared })
}

impl Clone for Tap {
    /// Another end for another shard: what one of them holds back is its own.
    fn clone(&self) -> Self {
        let (sender, shared) = (self.sender.clone(), Arc::clone(&self.shared));
        Self { sender, shared, turn: Vec::new(), turn_bytes: 0 }
    }
}

impl Tap {
    /// Takes what happened, for the end of the turn.
    pub(crate) fn note(&mut self, notice: Notice) {
        if self.sender.is_none() {
            return;
        }
        if let What::SubscriptionCount(count) = &notice.what
            && let Some(last) = self.turn.last_mut()
            && let What::SubscriptionCount(earlier) = &mut last.what
            && (last.app, &last.channel) == (notice.app, &notice.channel)
        {
            // If many subscribers come in one turn, only the last count is of interest.
            *earlier = *count;
            return;
        }
        let weight = notice.weight();
        if self.turn_bytes + weight > TURN_BYTES_MAX.min(self.shared.waiting_max) {
            self.lose(1);
            return;
        }
        self.turn_bytes += weight;
        self.turn.push(notice);
    }

    /// Hands over what happened in the turn. Costs nothing when that was nothing.
    pub(crate) fn hand_over(&mut self) {
        let Some(sender) = self.sender.as_ref().filter(|_| !self.turn.is_empty()) else { return };
        let bytes = std::mem::take(&mut self.turn_bytes);
        let turn = std::mem::take(&mut self.turn);
        let count = turn.len() as u64;
        let waiting = self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > self.shared.waiting_max || sender.try_send(turn).is_err() {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.lose(count);
        }
    }

    fn lose(&self, notices: u64) {
        self.shared.lost.fetch_add(notices, Ordering::Relaxed);
    }
}

impl Spout {
    /// The notices of the next turn of a shard. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Notice>> {
        let turn = self.receiver.recv().await;
        turn.inspect(|turn| self.taken(turn))
    }

    /// The next turn that is there already.
    pub(super) fn try_next(&mut self) -> Option<Vec<Notice>> {
        let turn = self.receiver.try_recv().ok();
        turn.inspect(|turn| self.taken(turn))
    }

    /// Notices lost since it was last asked.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lost.swap(0, Ordering::Relaxed)
    }

    fn taken(&self, turn: &[Notice]) {
        let bytes: usize = turn.iter().map(Notice::weight).sum();
        self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{What, notice};
    use super::*;

    #[test]
    fn a_turn_is_one_piece_and_keeps_its_order() {
        let (mut tap, mut spout) = pair(WAITING_BYTES_MAX);
        tap.note(notice("a", What::Occupied));
        tap.note(notice("b", What::Occupied));
        assert!(spout.try_next().is_none());
        tap.hand_over();
        tap.hand_over();
        let turn = spout.try_next().unwrap();
        assert_eq!(turn.iter().map(|of| of.channel.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(spout.try_next().is_none());
        assert_eq!(spout.shared.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_goes_on() {
        let (mut tap, mut spout) = pair(WAITING_BYTES_MAX);
        for _ in 0..TURNS_MAX + 3 {
            tap.note(notice("a", What::CacheMiss));
            tap.hand_over();
        }
        assert_eq!((spout.lost(), spout.lost()), (3, 0));
        let turns = std::iter::from_fn(|| spout.try_next()).count();
        assert_eq!((turns, spout.shared.waiting.load(Ordering::Relaxed)), (TURNS_MAX, 0));
        tap.note(notice("a", What::CacheMiss));
        tap.hand_over();
        assert!(spout.try_next().is_some());
    }

    #[test]
    fn a_turn_is_bounded_in_bytes() {
        let (mut tap, mut spout) = pair(WAITING_BYTES_MAX);
        let weight = notice("a", What::CacheMiss).weight();
        let most = TURN_BYTES_MAX / weight;
        (0..most + 5).for_each(|_| tap.note(notice("a", What::CacheMiss)));
        tap.hand_over();
        assert_eq!(spout.lost(), 5);
        assert_eq!(spout.try_next().unwrap().len(), most);
    }

    #[test]
    fn counts_of_one_channel_that_follow_each_other_are_one() {
        let (mut tap, mut spout) = pair(WAITING_BYTES_MAX);
        for (channel, count) in [("a", 1), ("a", 2), ("b", 1), ("a", 3)] {
            tap.note(notice(channel, What::SubscriptionCount(count)));
        }
        tap.hand_over();
        let count = |of: &Notice| match of.what {
            What::SubscriptionCount(count) => (of.channel.to_string(), count),
            _ => unreachable!(),
        };
        let counts: Vec<_> = spout.try_next().unwrap().iter().map(count).collect();
        assert_eq!(counts, [("a".into(), 2), ("b".into(), 1), ("a".into(), 3)]);
    }

    #[test]
    fn a_tap_that_leads_nowhere_takes_nothing() {
        let mut tap = Tap::default();
        tap.note(notice("a", What::Occupied));
        tap.hand_over();
        assert!(tap.turn.is_empty() && tap.shared.lost.load(Ordering::Relaxed) == 0);
    }
}
