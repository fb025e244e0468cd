//! The fan-out: from a channel's messages of a turn to the bytes that each subscriber is owed.
//!
//! All messages become one run of bytes that every subscriber shares. A subscriber that is excepted
//! from some of them (the sender of a client event, `socket_id` of a publish) is owed the slices in
//! between; one that joined after some of them is owed the rest of the run.

use bytes::{Bytes, BytesMut};

use crate::channels::{Batch, TopicBatch};
use crate::frame::Frame;
use crate::plane::Plane;
use crate::ring::Ring;

/// The messages that subscribers were owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deliveries {
    /// Their number, once for each subscriber.
    pub(super) messages: u64,
    /// Their bytes, once for each subscriber.
    pub(super) bytes: u64,
}

/// Owes a channel's messages to its subscribers.
pub(super) fn owe_batch<R: Ring>(plane: &mut Plane<R>, of: &TopicBatch<'_>) -> Deliveries {
    let run = joined(&of.batch);
    let shared = plane.stage(&run);
    let mut exceptions: Vec<(u32, usize)> = of.batch.exceptions().collect();
    let whole = Deliveries { messages: of.batch.frames().len() as u64, bytes: run.len() as u64 };
    if exceptions.is_empty() && of.batch.late().is_empty() {
        for subscriber in of.subscribers {
            plane.owe_staged(subscriber.slot, shared);
        }
        return whole.times(of.subscribers.len() as u64);
    }
    let mut deliveries = Deliveries::default();
    exceptions.sort_unstable();
    let mut late = of.batch.late().to_vec();
    late.sort_unstable();
    let ends: Vec<usize> = ends(&of.batch);
    for subscriber in of.subscribers {
        let from = exceptions.partition_point(|&(slot, _)| slot < subscriber.slot);
        let to = exceptions.partition_point(|&(slot, _)| slot <= subscriber.slot);
        let behind = late.partition_point(|&(slot, _)| slot <= subscriber.slot);
        let last = behind.checked_sub(1).map(|last| late[last]);
        let first = last.filter(|&(slot, _)| slot == subscriber.slot).map_or(0, |(_, first)| first);
        if from == to && first == 0 {
            plane.owe_staged(subscriber.slot, shared);
            deliveries.add(whole);
        } else {
            let left_out = || exceptions[from..to].iter().map(|&(_, index)| index);
            let left_behind = left_out().filter(|&index| index >= first).count();
            deliveries.messages += (ends.len() - first - left_behind) as u64;
            for slice in slices(run.bytes(), &ends, first, left_out()) {
                deliveries.bytes += slice.len() as u64;
                let staged = plane.stage(&Frame::from_encoded(slice));
                plane.owe_staged(subscriber.slot, staged);
            }
        }
    }
    deliveries
}

impl Deliveries {
    /// The same for so many subscribers.
    const fn times(self, subscribers: u64) -> Self {
        Self { messages: self.messages * subscribers, bytes: self.bytes * subscribers }
    }

    const fn add(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

/// A turn's messages of a channel as one run of bytes; a single one is not copied.
fn joined(batch: &Batch<'_>) -> Frame {
    let mut frames = batch.frames();
    if let (1, Some(only)) = (frames.len(), frames.next()) {
        return only.clone();
    }
    let mut run = BytesMut::with_capacity(batch.frames().map(Frame::len).sum());
    batch.frames().for_each(|frame| run.extend_from_slice(frame.bytes()));
    Frame::from_encoded(run.freeze())
}

/// The offset in the run at which each message ends.
fn ends(batch: &Batch<'_>) -> Vec<usize> {
    let end = |end: &mut usize, frame: &Frame| {
        *end += frame.len();
        Some(*end)
    };
    batch.frames().scan(0, end).collect()
}

/// The slices of the run from message `first` on, without the messages of `left_out`, whose indices
/// ascend.
fn slices(
    run: &Bytes,
    ends: &[usize],
    first: usize,
    left_out: impl Iterator<Item = usize>,
) -> Vec<Bytes> {
    let begin = |index: usize| if index == 0 { 0 } else { ends[index - 1] };
    let mut slices = Vec::new();
    let mut start = begin(first);
    for index in left_out.skip_while(|&index| index < first) {
        let begin = begin(index);
        if start < begin {
            slices.push(run.slice(start..begin));
        }
        start = ends[index];
    }
    if start < run.len() {
        slices.push(run.slice(start..));
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_left_out_the_rest_stays_in_order() {
        let run = Bytes::from_static(b"aabbbcdd");
        let ends = [2, 5, 6, 8];
        let from = |first, left_out: &[usize]| {
            slices(&run, &ends, first, left_out.iter().copied()).concat()
        };
        let without = |left_out: &[usize]| from(0, left_out);
        assert_eq!(without(&[]), b"aabbbcdd");
        assert_eq!(without(&[0]), b"bbbcdd");
        assert_eq!(without(&[3]), b"aabbbc");
        assert_eq!(without(&[1, 2]), b"aadd");
        assert_eq!(without(&[0, 2]), b"bbbdd");
        assert_eq!(without(&[0, 1, 2, 3]), b"");
        assert_eq!(slices(&run, &ends, 0, [1, 2].into_iter()).len(), 2, "neighbours share a cut");
        assert_eq!((from(1, &[]), from(3, &[0])), (b"bbbcdd".to_vec(), b"dd".to_vec()));
        assert_eq!((from(1, &[0, 2]), from(2, &[2, 3])), (b"bbbdd".to_vec(), b"".to_vec()));
        assert_eq!(from(4, &[]), b"", "everything was before");
    }
}
