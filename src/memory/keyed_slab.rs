//! A table of records that are found by a key and known by a number.
//!
//! A record keeps its number, and its place in memory, until it is removed; the number of a removed
//! record goes to a later one. So other tables refer to records by number, in four bytes, and a
//! search by key is needed only where a key arrives from outside.

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::invariant::broken;

use super::chunked::Chunked;
use super::trim::Trim;

/// A record that a [`KeyedSlab`] can hold: it has a key, which does not change while it is there.
pub(crate) trait Keyed {
    /// The hash of the key. It should be kept, not computed: the table asks for it when it grows.
    fn key_hash(&self) -> u64;
}

/// Records by key and by number.
///
/// A search takes the hash of a key and a test that tells the record of the key from others of the
/// same hash. A number is valid from [`insert`](Self::insert) to [`remove`](Self::remove): `get`
/// knows no other, and indexing by another one panics, unless the number has a new owner.
#[derive(Debug)]
pub(crate) struct KeyedSlab<T> {
    /// By number. `None` marks the numbers that `free` lists.
    records: Chunked<Option<T>>,
    /// The numbers that have no record, the one to use next at the end.
    free: Vec<u32>,
    /// The numbers of all records, by the hashes of their keys.
    by_hash: HashTable<u32>,
}

impl<T: Keyed> KeyedSlab<T> {
    /// An empty table, which allocates nothing yet.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { records: Chunked::new(), free: Vec::new(), by_hash: HashTable::new() }
    }

    /// The number of records.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// The end of the numbers: every record has a smaller one. A walk that is done in parts goes up
    /// to here, and [`get`](Self::get) skips the numbers without a record.
    #[must_use]
    pub(crate) fn end(&self) -> u32 {
        number(self.records.len())
    }

    /// Returns the number of the record with a key of this hash for which `is_wanted` says so.
    #[must_use]
    pub(crate) fn find(&self, hash: u64, is_wanted: impl Fn(&T) -> bool) -> Option<u32> {
        self.by_hash.find(hash, |&number| is(&self.records, number, &is_wanted)).copied()
    }

    /// Returns the number of the wanted record, as [`find`](Self::find) does. If there is none,
    /// inserts the record that `new` makes, whose key must have the same hash.
    pub(crate) fn find_or_insert(
        &mut self,
        hash: u64,
        is_wanted: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> u32 {
        let Self { records, free, by_hash } = self;
        let same = |&number: &u32| is(records, number, &is_wanted);
        match by_hash.entry(hash, same, |&number| hash_of(records, number)) {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(vacant) => {
                let new = new();
                debug_assert_eq!(
                    new.key_hash(),
                    hash,
                    "the record has another key than the search"
                );
                *vacant.insert(place(records, free, new)).get()
            }
        }
    }

    /// Inserts a record and returns its number. No other record may have the same key, because
    /// [`find`](Self::find) would return any one of them.
    pub(crate) fn insert(&mut self, record: T) -> u32 {
        let Self { records, free, by_hash } = self;
        let hash = record.key_hash();
        let number = place(records, free, record);
        by_hash.insert_unique(hash, number, |&number| hash_of(records, number));
        number
    }

    /// Takes out the record of this number, which becomes free.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let removed = self.records.get_mut(number as usize)?.take()?;
        let indexed = self.by_hash.find_entry(removed.key_hash(), |&found| found == number);
        match indexed {
            Ok(indexed) => drop(indexed.remove()),
            Err(_) => broken("the key of a record has changed"),
        }
        self.free.push(number);
        Some(removed)
    }

    /// The record of this number.
    #[must_use]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.records.get(number as usize)?.as_ref()
    }

    /// All records with their numbers, in the order of the numbers.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(self.records.iter())
            .filter_map(|(number, record)| Some((number, record.as_ref()?)))
    }
}

impl<T: Keyed> Trim for KeyedSlab<T> {
    /// Gives back the memory that a burst has left. Numbers of records stay as they are. The end of
    /// the table is looked at only when more than half of the numbers are free.
    fn trim(&mut self) {
        if self.is_empty() {
            *self = Self::new();
            return;
        }
        if self.free.len() > self.records.len() / 2 {
            self.records.trim_end(Option::is_none);
            let end = self.end();
            self.free.retain(|&number| number < end);
            self.free.shrink_to_fit();
        }
        if self.by_hash.len() < self.by_hash.capacity() / SPARSE {
            let Self { by_hash, records, .. } = self;
            by_hash.shrink_to(2 * by_hash.len(), |&number| hash_of(records, number));
        }
    }

    #[cfg(feature = "testing")]
    fn room(&self) -> usize {
        self.records.room() + self.free.room() + self.by_hash.allocation_size()
    }
}

impl<T: Keyed> Default for KeyedSlab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Keyed> Index<u32> for KeyedSlab<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        let Some(record) = &self.records[number as usize] else { unreachable!("{VACANT}") };
        record
    }
}

impl<T: Keyed> IndexMut<u32> for KeyedSlab<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        let Some(record) = &mut self.records[number as usize] else { unreachable!("{VACANT}") };
        record
    }
}

const VACANT: &str = "a number was used after its record had been removed";

/// The memory of one record beside the record: its number and the hash table's byte. The table is
/// between 7/16 and 7/8 full once it has grown, so up to twice that is allocated.
pub(crate) const INDEX_ENTRY_BYTES: usize = 2 * (size_of::<u32>() + 1);

/// An index that is filled to less than one part of this many gives back its spare memory.
const SPARSE: usize = 4;

/// Puts a record into a free number, or into a new one.
fn place<T>(records: &mut Chunked<Option<T>>, free: &mut Vec<u32>, record: T) -> u32 {
    if let Some(number) = free.pop() {
        records[number as usize] = Some(record);
        return number;
    }
    records.push(Some(record));
    number(records.len() - 1)
}

fn is<T>(records: &Chunked<Option<T>>, number: u32, is_wanted: impl Fn(&T) -> bool) -> bool {
    records[number as usize].as_ref().is_some_and(is_wanted)
}

fn hash_of<T: Keyed>(records: &Chunked<Option<T>>, number: u32) -> u64 {
    records[number as usize].as_ref().map_or(0, T::key_hash)
}

/// The position of a record in a table or a list of one shard, in the four bytes by which other
/// records refer to it. 2^32 records would need more than 100 GiB, and admission by memory refuses
/// clients long before that.
#[must_use]
pub(crate) fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or_else(|_| {
        broken("a table of one shard has more than 2^32 records");
        u32::MAX
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Record {
        key: u16,
        value: u8,
    }

    /// Many keys share a hash, and some an extreme one.
    const fn hash(key: u16) -> u64 {
        match key % 7 {
            0 => 0,
            1 => u64::MAX,
            of => (of as u64) << 57,
        }
    }

    impl Keyed for Record {
        fn key_hash(&self) -> u64 {
            hash(self.key)
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Set(Record),
        Insert(Record),
        Remove(u16),
        Trim,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let record = || (0..3000_u16, any::<u8>()).prop_map(|(key, value)| Record { key, value });
        let op = prop_oneof![
            30 => record().prop_map(Op::Set),
            30 => record().prop_map(Op::Insert),
            40 => (0..3000_u16).prop_map(Op::Remove),
            1 => Just(Op::Trim),
        ];
        prop::collection::vec(op, 0..400)
    }

    /// A table and the model that it has to agree with: each key's number and value.
    #[derive(Default)]
    struct Both {
        slab: KeyedSlab<Record>,
        model: HashMap<u16, (u32, u8)>,
    }

    impl Both {
        fn find(&self, key: u16) -> Option<u32> {
            self.slab.find(hash(key), |record| record.key == key)
        }

        fn run(&mut self, op: &Op) {
            match *op {
                Op::Set(record) => {
                    let same = |other: &Record| other.key == record.key;
                    let number = self.slab.find_or_insert(hash(record.key), same, || record);
                    self.slab[number].value = record.value;
                    let earlier = self.model.insert(record.key, (number, record.value));
                    assert!(earlier.is_none_or(|(earlier, _)| earlier == number));
                }
                Op::Insert(record) => {
                    if self.find(record.key).is_none() {
                        let number = self.slab.insert(record);
                        self.model.insert(record.key, (number, record.value));
                    }
                }
                Op::Remove(key) => {
                    let expected = self.model.remove(&key);
                    let removed = self.find(key).and_then(|number| self.slab.remove(number));
                    let value = expected.map(|(_, value)| value);
                    assert_eq!(removed, value.map(|value| Record { key, value }));
                    if let Some((number, _)) = expected {
                        assert_eq!(self.slab.get(number), None);
                        assert_eq!(self.slab.remove(number), None);
                    }
                }
                Op::Trim => self.slab.trim(),
            }
        }

        fn check(&self) {
            assert_eq!(self.slab.len(), self.model.len());
            for (&key, &(number, value)) in &self.model {
                assert_eq!(self.find(key), Some(number));
                assert_eq!(self.slab.get(number), Some(&Record { key, value }));
                assert!(number < self.slab.end());
            }
            let listed = self.slab.iter().map(|(number, of)| (of.key, (number, of.value)));
            assert_eq!(listed.collect::<HashMap<_, _>>(), self.model);
            let free = self.slab.free.len() + self.slab.len();
            assert_eq!(free, self.slab.records.len(), "each number is free or has a record");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_finds_what_a_map_finds_and_no_record_moves(ops in ops()) {
            let mut both = Both::default();
            for op in &ops {
                both.run(op);
            }
            both.check();
            // The burst ends: all keys go, with a few left at the start or none.
            for key in 0..3000 {
                both.run(&Op::Remove(key));
                if key % 500 == 0 {
                    both.run(&Op::Trim);
                    both.check();
                }
            }
            both.run(&Op::Trim);
            prop_assert_eq!(both.slab.room(), 0);
        }
    }

    fn filled(keys: u16) -> KeyedSlab<Record> {
        let mut slab = KeyedSlab::new();
        for key in 0..keys {
            assert_eq!(slab.insert(Record { key, value: 0 }), u32::from(key));
        }
        slab
    }

    #[test]
    fn the_number_that_was_freed_last_is_used_first() {
        let mut slab = filled(10);
        slab.remove(3);
        slab.remove(7);
        let next = [20, 21, 22].map(|key| slab.insert(Record { key, value: 0 }));
        assert_eq!(next, [7, 3, 10]);
    }

    #[test]
    fn a_burst_gives_back_its_memory_but_for_what_is_behind_a_record() {
        let mut slab = filled(5000);
        let full = slab.room();
        assert!((100..5000).all(|number| slab.remove(number).is_some()));
        slab.trim();
        assert!(slab.room() < full / 8, "{} of {full} bytes are left", slab.room());
        assert_eq!((slab.len(), slab.end()), (100, 100));
        let first: Vec<_> = slab.iter().map(|(number, _)| number).collect();
        assert_eq!(first, Vec::from_iter(0..100));
    }

    #[test]
    #[should_panic(expected = "after its record had been removed")]
    fn a_number_without_a_record_is_a_fault_of_the_caller() {
        let mut slab = filled(2);
        slab.remove(0);
        let _ = slab[0];
    }
}
