//! The batches that wait, and the state of the file of each: which are to be written, and which to
//! be removed. A state machine: the disk is the caller's.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;

use super::super::dispatch::QueueId;

/// Files of one round: the most that are open, and that the kernel works on, at a time. Writes that
/// wait for the disk together share its flush. The reserve of descriptors has room for these.
pub(super) const ROUND_FILES_MAX: usize = 16;

/// A batch, by its queue and its number there.
pub(super) type BatchId = (QueueId, u64);

/// The files of the batches that wait. A batch that ends before its file is begun never gets one.
///
/// Order of calls: [`restored`](Self::restored) at the start; [`sealed`](Self::sealed) and
/// [`ended`](Self::ended) as it happens; [`next_round`](Self::next_round) when no round is under
/// way, then [`written`](Self::written) for each of its writes.
#[derive(Debug, Default)]
pub(super) struct BatchFiles {
    /// The number of the file of each batch that waits.
    numbers: HashMap<BatchId, u64>,
    /// The files of these batches by number. Files are read back in this order.
    files: BTreeMap<u64, BatchFile>,
    /// The number of the next file.
    next: u64,
    /// The number from which on no round has taken a file.
    unwritten: u64,
    /// Files whose batches have ended, oldest first.
    removals: VecDeque<u64>,
}

/// The file of a batch that waits.
#[derive(Debug)]
struct BatchFile {
    batch: BatchId,
    events: usize,
    state: FileState,
}

#[derive(Debug)]
enum FileState {
    /// No round has taken this body.
    Unwritten(Bytes),
    /// It is part of the round under way.
    Writing,
    /// It is on disk.
    Written,
}

/// The files that are worked on together.
#[derive(Debug)]
pub(super) struct Round {
    /// Files to write, in the order in which they have to appear.
    pub(super) writes: Vec<FileWrite>,
    /// The numbers of files to remove.
    pub(super) removals: Vec<u64>,
}

/// A file to write.
#[derive(Debug)]
pub(super) struct FileWrite {
    pub(super) number: u64,
    pub(super) queue: QueueId,
    pub(super) events: usize,
    pub(super) body: Bytes,
}

impl BatchFiles {
    /// The file with this number was found at the start, and holds this batch, if it still waits.
    /// Numbers come in ascending order.
    pub(super) fn restored(&mut self, number: u64, batch: Option<(BatchId, usize)>) {
        self.next = number + 1;
        self.unwritten = self.next;
        if let Some((batch, events)) = batch {
            self.track(number, BatchFile { batch, events, state: FileState::Written });
        }
    }

    /// A batch waits to be sent.
    pub(super) fn sealed(&mut self, batch: BatchId, body: Bytes, events: usize) {
        let number = self.next;
        self.next += 1;
        self.track(number, BatchFile { batch, events, state: FileState::Unwritten(body) });
    }

    /// A batch was delivered or given up.
    pub(super) fn ended(&mut self, batch: BatchId) {
        let Some(number) = self.numbers.remove(&batch) else { return };
        let file = self.files.remove(&number);
        if file.is_some_and(|file| !matches!(file.state, FileState::Unwritten(_))) {
            self.removals.push_back(number);
        }
    }

    /// The next files to work on. Removals come first: each follows a write, so that they cannot
    /// keep writes waiting, and the disk never holds many more files than batches wait.
    pub(super) fn next_round(&mut self) -> Option<Round> {
        let removed = self.removals.len().min(ROUND_FILES_MAX);
        let removals: Vec<_> = self.removals.drain(..removed).collect();
        let mut writes = Vec::new();
        let unwritten = self.files.range_mut(self.unwritten..);
        for (&number, file) in unwritten.take(ROUND_FILES_MAX - removed) {
            let BatchFile { batch: (queue, _), events, .. } = *file;
            if let FileState::Unwritten(body) =
                std::mem::replace(&mut file.state, FileState::Writing)
            {
                writes.push(FileWrite { number, queue, events, body });
            }
        }
        if let Some(last) = writes.last() {
            self.unwritten = last.number + 1;
        }
        (!writes.is_empty() || !removals.is_empty()).then_some(Round { writes, removals })
    }

    /// The write of a file has ended. If it has failed, its batch is in memory only.
    pub(super) fn written(&mut self, number: u64, on_disk: bool) {
        match self.files.get_mut(&number) {
            Some(file) if on_disk => file.state = FileState::Written,
            Some(file) => {
                self.numbers.remove(&file.batch);
                self.files.remove(&number);
            }
            // The batch ended during the write, and its file has to go if it is there.
            None if on_disk => {}
            None => self.removals.retain(|&removal| removal != number),
        }
    }

    /// Whether no file has to be written or removed, apart from the round under way.
    pub(super) fn is_done(&self) -> bool {
        self.removals.is_empty() && self.files.range(self.unwritten..).next().is_none()
    }

    /// Events on disk, of batches that wait.
    pub(super) fn events_on_disk(&self) -> usize {
        let on_disk = self.files.values().filter(|file| matches!(file.state, FileState::Written));
        on_disk.map(|file| file.events).sum()
    }

    fn track(&mut self, number: u64, file: BatchFile) {
        self.numbers.insert(file.batch, number);
        self.files.insert(number, file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(round: &Round) -> (Vec<u64>, Vec<u64>) {
        let writes = round.writes.iter().map(|write| write.number).collect();
        (writes, round.removals.clone())
    }

    fn sealed(files: &mut BatchFiles, batches: std::ops::Range<u64>) {
        batches.for_each(|batch| files.sealed((7, batch), Bytes::from_static(b"{}"), 2));
    }

    #[test]
    fn a_round_is_bounded_and_goes_on_where_the_last_one_ended() {
        let mut files = BatchFiles::default();
        let max = ROUND_FILES_MAX as u64;
        sealed(&mut files, 0..max + 2);
        let first = files.next_round().unwrap();
        assert_eq!(numbers(&first), ((0..max).collect(), vec![]));
        first.writes.iter().for_each(|write| files.written(write.number, true));
        assert_eq!(files.events_on_disk(), 2 * ROUND_FILES_MAX);
        (0..max - 1).for_each(|batch| files.ended((7, batch)));
        let second = files.next_round().unwrap();
        assert_eq!(numbers(&second), (vec![max], (0..max - 1).collect()));
        assert!(!files.is_done());
        assert_eq!(numbers(&files.next_round().unwrap()).0, [max + 1]);
        assert!(files.is_done() && files.next_round().is_none());
    }

    #[test]
    fn a_batch_that_ends_before_its_file_is_begun_never_gets_one() {
        let mut files = BatchFiles::default();
        sealed(&mut files, 0..3);
        files.ended((7, 1));
        assert_eq!(numbers(&files.next_round().unwrap()), (vec![0, 2], vec![]));
    }

    #[test]
    fn a_batch_that_ends_during_its_write_is_removed_after_it() {
        let mut files = BatchFiles::default();
        sealed(&mut files, 0..2);
        assert_eq!(files.next_round().unwrap().writes.len(), 2);
        (0..2).for_each(|batch| files.ended((7, batch)));
        files.written(0, true);
        files.written(1, false);
        assert_eq!(files.events_on_disk(), 0);
        assert_eq!(numbers(&files.next_round().unwrap()), (vec![], vec![0]));
        assert!(files.next_round().is_none(), "a write that has failed left no file");
    }

    #[test]
    fn a_write_that_fails_is_not_tried_again() {
        let mut files = BatchFiles::default();
        sealed(&mut files, 0..1);
        files.next_round().unwrap();
        files.written(0, false);
        assert!(files.next_round().is_none() && files.numbers.is_empty());
        files.ended((7, 0));
        assert!(files.is_done());
    }

    #[test]
    fn numbers_go_on_after_those_that_were_found() {
        let mut files = BatchFiles::default();
        files.restored(4, Some(((7, 0), 3)));
        files.restored(9, None);
        assert_eq!(files.events_on_disk(), 3);
        sealed(&mut files, 1..2);
        files.ended((7, 0));
        assert_eq!(numbers(&files.next_round().unwrap()), (vec![10], vec![4]));
    }
}
