//! Floor 0. What memory costs and how it is held: tables that grow in place, lists that give back
//! what a burst left, the lines of the budget that `ringwave doctor` prints, and how much may be
//! taken before the memory is measured again.

mod allowance;

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

pub(crate) use allowance::{Allowance, Gauge, Lease, Reading, reserve};

/// A holder of memory, for one line of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The purpose of the memory.
    pub(crate) name: &'static str,
    /// The size, without the allocator's rounding.
    pub(crate) bytes: usize,
    /// The kind of object that has one of these.
    pub(crate) per: Per,
}

/// The unit by which a [`Holder`] is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    /// A shard, with or without connections.
    Shard,
    /// An open connection.
    Connection,
    /// A subscription of a connection.
    Subscription,
    /// A channel that is occupied, at the shard of its only subscriber and at its home.
    Channel,
    /// A member of a presence channel, beside the subscription.
    Member,
}

/// Something that clients can make the process hold, for one line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Its name in the ledger.
    pub(crate) name: &'static str,
    /// The size of one of them, the largest or a usual one; as text, since some depend on names.
    pub(crate) each: String,
    /// Bytes of all of them together, over all shards. `None` is as many as memory allows, because
    /// new ones are refused when it is short.
    pub(crate) total: Option<u64>,
    /// The setting that changes the total, or what else bounds it.
    pub(crate) by: &'static str,
}

/// A table by number that never moves: it grows by a chunk at a time, so that it has little more
/// memory than it needs, and none twice while it grows.
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    /// Chunks have a length that the compiler knows, which spares the bounds check inside a chunk.
    chunks: Vec<Box<[T; CHUNK]>>,
    /// The number of entries in use. Those behind them exist, but have no owner.
    len: usize,
}

/// Entries of a chunk: a page or more of any record, and little against a full table.
const CHUNK: usize = 512;

impl<T: Default> Chunked<T> {
    /// An empty table.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// How many entries there are.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// How many entries it has memory for.
    #[must_use]
    pub(crate) const fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, value: T) {
        if self.len == self.capacity() {
            let chunk: Box<[T]> = (0..CHUNK).map(|_| T::default()).collect();
            self.chunks.extend(chunk.try_into().ok());
        }
        self.len += 1;
        let last = self.len - 1;
        self[last] = value;
    }

    /// Adds entries until there are `len`.
    pub(crate) fn extend_to(&mut self, len: usize) {
        while self.len < len {
            self.push(T::default());
        }
    }

    /// The entry of this number.
    #[must_use]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        (index < self.len).then(|| &self[index])
    }

    /// The entry of this number.
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        (index < self.len).then(|| &mut self[index])
    }

    /// All entries by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len)
    }

    /// Bytes that it holds, in use or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) const fn room(&self) -> usize {
        self.capacity() * size_of::<T>()
    }

    /// Takes out the entries at the end for which `is_free` says so, and gives their memory back.
    /// Looks at no more entries than it takes out, and one. The caller then has to take their
    /// numbers out of any list of free ones.
    pub(crate) fn trim_end(&mut self, is_free: impl Fn(&T) -> bool) {
        while self.len > 0 && is_free(&self[self.len - 1]) {
            self.len -= 1;
        }
        let len = self.len;
        self.chunks.truncate(len.div_ceil(CHUNK));
        for at in len..self.capacity() {
            self[at] = T::default();
        }
    }

    /// Removes all entries and gives their memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

impl<T: Default> Default for Chunked<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunked<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}

/// A list that is filled and emptied turn by turn, and keeps its memory for the next one.
pub(crate) trait Trim {
    /// Gives memory back that a burst has left: of an empty list all beyond a usual turn's.
    fn trim(&mut self);

    /// Bytes that it holds, in use or not.
    #[cfg(feature = "testing")]
    fn room(&self) -> usize;
}

/// Entries that a list keeps room for.
const KEPT: usize = 256;

impl<T> Trim for Vec<T> {
    fn trim(&mut self) {
        if self.is_empty() && self.capacity() > KEPT {
            self.shrink_to(KEPT);
        }
    }

    #[cfg(feature = "testing")]
    fn room(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

impl<T> Trim for VecDeque<T> {
    fn trim(&mut self) {
        if self.is_empty() && self.capacity() > KEPT {
            self.shrink_to(KEPT);
        }
    }

    #[cfg(feature = "testing")]
    fn room(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

/// Hands pages that hold nothing any more back to the system: those that this thread had, and those
/// that any thread has freed. They are kept otherwise, for good when a thread allocates little.
pub(crate) fn give_back() {
    #[expect(unsafe_code, reason = "the allocator's own interface")]
    // SAFETY: it takes no pointers, and any thread may call it at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_entries_in_place_while_it_grows() {
        let mut table = Chunked::new();
        table.push(0);
        let first = &raw const table[0];
        table.extend_to(10 * CHUNK);
        table.push(7);
        assert_eq!(&raw const table[0], first);
        assert_eq!((table.len(), table.iter().count()), (10 * CHUNK + 1, 10 * CHUNK + 1));
        assert_eq!(table.capacity(), 11 * CHUNK);
        table[CHUNK] = 9;
        assert_eq!([CHUNK - 1, CHUNK, CHUNK + 1].map(|at| table[at]), [0, 9, 0]);
        assert_eq!((table.get(10 * CHUNK), table.get(10 * CHUNK + 1)), (Some(&7), None));
        table.clear();
        assert_eq!((table.len(), table.capacity(), table.get_mut(0)), (0, 0, None));
    }

    #[test]
    fn free_entries_at_the_end_of_a_table_give_their_chunks_back() {
        let mut table = Chunked::new();
        (0..4 * CHUNK).for_each(|n| table.push(n));
        table.trim_end(|&n| n > CHUNK || n == 7);
        assert_eq!((table.len(), table.capacity()), (CHUNK + 1, 2 * CHUNK));
        table.extend_to(CHUNK + 2);
        assert_eq!((table[CHUNK], table[CHUNK + 1]), (CHUNK, 0));
        table.trim_end(|_| true);
        assert_eq!((table.len(), table.capacity()), (0, 0));
    }

    #[test]
    fn only_an_empty_list_is_trimmed_and_a_usual_one_keeps_its_memory() {
        let mut list: Vec<u8> = Vec::with_capacity(100_000);
        list.push(1);
        list.trim();
        assert!(list.capacity() >= 100_000);
        list.clear();
        list.trim();
        assert_eq!(list.capacity(), KEPT);
        let mut usual: VecDeque<u8> = VecDeque::with_capacity(100);
        usual.trim();
        assert!(usual.capacity() >= 100);
    }
}
