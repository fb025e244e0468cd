//! A table that grows by chunks, so that its entries never move.

use std::ops::{Index, IndexMut};

/// A table by number whose entries never move. It grows by a chunk at a time, so that it has little
/// more memory than it needs, and never two copies of an entry.
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    /// The chunks. The compiler knows their length, which spares the bounds check inside a chunk.
    chunks: Vec<Box<[T; CHUNK]>>,
    /// The number of entries in use. The entries behind them hold default values.
    len: usize,
}

/// The entries of a chunk: a page or more of any record, and little against a full table.
const CHUNK: usize = 512;

impl<T: Default> Chunked<T> {
    /// An empty table.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// The number of entries.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The number of entries that the table has memory for.
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

    /// All entries, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len)
    }

    /// The bytes that the table holds, in use or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) const fn room(&self) -> usize {
        self.capacity() * size_of::<T>()
    }

    /// Removes the entries at the end for which `is_free` returns true, and gives their memory
    /// back. Stops at the first other entry. The caller then has to remove their numbers from any
    /// list of free ones.
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
}
