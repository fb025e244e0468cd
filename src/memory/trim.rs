//! Lists that give back the memory that a burst has left.

use std::collections::VecDeque;

/// A list that is filled and emptied turn by turn, and keeps its memory for the next one.
pub(crate) trait Trim {
    /// Gives back the memory that a burst has left. An empty list keeps the memory of a usual turn.
    fn trim(&mut self);

    /// The bytes that the list holds, in use or not.
    #[cfg(feature = "testing")]
    fn room(&self) -> usize;
}

/// The number of entries that an empty list keeps memory for: those of a usual turn.
const KEPT: usize = 256;

/// Implements [`Trim`] for a list of the standard library: no trait of it has these methods.
macro_rules! trim {
    ($list:ident) => {
        impl<T> Trim for $list<T> {
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
    };
}

trim!(Vec);
trim!(VecDeque);

#[cfg(test)]
mod tests {
    use super::*;

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
