//! From a channel's messages of a turn to what each subscriber is owed.
//!
//! All messages become one run of bytes that every subscriber shares. Who is excepted from some of
//! them (the sender of a client event, `socket_id` of a publish) is owed the slices in between.

use bytes::{Bytes, BytesMut};

use crate::channels::{Batch, TopicBatch};
use crate::frame::Frame;
use crate::plane::Plane;
use crate::ring::Ring;

/// Owes a channel's messages to its subscribers.
pub(super) fn owe_batch<R: Ring>(plane: &mut Plane<R>, of: &TopicBatch<'_>) {
    let run = joined(&of.batch);
    let shared = plane.stage(&run);
    let mut exceptions: Vec<(u32, usize)> = of.batch.exceptions().collect();
    if exceptions.is_empty() {
        for subscriber in of.subscribers {
            plane.owe_staged(subscriber.slot, shared);
        }
        return;
    }
    exceptions.sort_unstable();
    let ends: Vec<usize> = ends(&of.batch);
    for subscriber in of.subscribers {
        let from = exceptions.partition_point(|&(slot, _)| slot < subscriber.slot);
        let to = exceptions.partition_point(|&(slot, _)| slot <= subscriber.slot);
        if from == to {
            plane.owe_staged(subscriber.slot, shared);
        } else {
            let left_out = exceptions[from..to].iter().map(|&(_, index)| index);
            for slice in slices(run.bytes(), &ends, left_out) {
                let staged = plane.stage(&Frame::from_encoded(slice));
                plane.owe_staged(subscriber.slot, staged);
            }
        }
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

/// Where each message of the run ends.
fn ends(batch: &Batch<'_>) -> Vec<usize> {
    let end = |end: &mut usize, frame: &Frame| {
        *end += frame.len();
        Some(*end)
    };
    batch.frames().scan(0, end).collect()
}

/// The run without some of its messages, whose indices ascend.
fn slices(run: &Bytes, ends: &[usize], left_out: impl Iterator<Item = usize>) -> Vec<Bytes> {
    let mut slices = Vec::new();
    let mut start = 0;
    for index in left_out {
        let begin = if index == 0 { 0 } else { ends[index - 1] };
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
        let without = |left_out: &[usize]| slices(&run, &ends, left_out.iter().copied()).concat();
        assert_eq!(without(&[]), b"aabbbcdd");
        assert_eq!(without(&[0]), b"bbbcdd");
        assert_eq!(without(&[3]), b"aabbbc");
        assert_eq!(without(&[1, 2]), b"aadd");
        assert_eq!(without(&[0, 2]), b"bbbdd");
        assert_eq!(without(&[0, 1, 2, 3]), b"");
        assert_eq!(slices(&run, &ends, [1, 2].into_iter()).len(), 2, "neighbours share a cut");
    }
}
