//! Socket ids: unguessable, never used twice, and readable by every shard as the place of the
//! connection.

use std::hash::{BuildHasher, RandomState};
use std::io;

use crate::id::{ShardId, SocketId};

/// Bits of `low` that hold shard (16) and slot (24), masked.
const PLACE_BITS: u32 = 40;

/// Random bytes that are fetched at a time: one system call for 64 connections.
const RANDOM_BYTES: usize = 512;

/// The difference between two consecutive numbers of a simulation: 2^64 divided by the golden
/// ratio, which is odd.
#[cfg(feature = "testing")]
const SEEDED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes socket ids. Clones share the key, so that every shard can read the place from an id.
#[derive(Clone, Debug)]
pub struct SocketIds {
    /// The key of the mask that hides the place in an id.
    key: RandomState,
    /// Random bytes of the system that have not been used yet.
    random: Vec<u8>,
    /// The last number of a simulation, whose ids have no mask. Consecutive numbers differ by an
    /// odd constant, so that none repeats (a Weyl sequence), and they have as many digits as random
    /// ones. `None` outside of simulations.
    #[cfg(feature = "testing")]
    seeded: Option<u64>,
}

impl SocketIds {
    /// Makes ids with a new random key.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            key: RandomState::new(),
            random: Vec::new(),
            #[cfg(feature = "testing")]
            seeded: None,
        }
    }

    /// Makes the ids of a simulation: the same in every run, and not secret.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seeded: Some(seed), ..Self::new() }
    }

    /// Makes an id for the connection in `slot` of `shard`.
    ///
    /// # Errors
    /// The system has no random numbers (`getrandom(2)`).
    pub(crate) fn name(&mut self, shard: ShardId, slot: u32) -> io::Result<SocketId> {
        // 63 bits, and not zero, which is in no connection's id.
        let high = (self.random()? >> 1).max(1);
        let place = (u64::from(shard.0) << 24) | u64::from(slot & 0x00ff_ffff);
        Ok(SocketId { high, low: place ^ self.mask_of(high) })
    }

    /// The shard that an id names. An id that another server made may name any shard.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "16 bits")]
    pub(crate) fn shard_of(&self, id: SocketId) -> ShardId {
        let place = id.low ^ self.mask_of(id.high);
        ShardId((place >> 24) as u16)
    }

    /// The slot of an id on `shard`, or `None` if the id names another shard. The slot may have
    /// another connection by now.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "24 bits")]
    pub(crate) fn slot_on(&self, shard: ShardId, id: SocketId) -> Option<u32> {
        let place = id.low ^ self.mask_of(id.high);
        (place >> 24 == u64::from(shard.0)).then_some((place & 0x00ff_ffff) as u32)
    }

    /// The mask that hides the place, so that neighbouring connections have unrelated ids.
    fn mask_of(&self, high: u64) -> u64 {
        #[cfg(feature = "testing")]
        if self.seeded.is_some() {
            return 0;
        }
        self.key.hash_one(high) & ((1 << PLACE_BITS) - 1)
    }

    fn random(&mut self) -> io::Result<u64> {
        #[cfg(feature = "testing")]
        if let Some(last) = &mut self.seeded {
            *last = last.wrapping_add(SEEDED_STEP);
            return Ok(*last);
        }
        if self.random.is_empty() {
            self.random.resize(RANDOM_BYTES, 0);
            getrandom::fill(&mut self.random).map_err(io::Error::other)?;
        }
        let rest = self.random.len() - size_of::<u64>();
        let taken = self.random.split_off(rest);
        Ok(taken.into_iter().fold(0, |number, byte| (number << 8) | u64::from(byte)))
    }
}

impl Default for SocketIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_id_leads_back_to_its_slot_on_its_shard_only() {
        let mut ids = SocketIds::new();
        let others = ids.clone();
        for (shard, slot) in [(0, 0), (1, 5), (65_534, 0x00ff_ffff)] {
            let id = ids.name(ShardId(shard), slot).unwrap();
            assert_eq!(others.shard_of(id), ShardId(shard));
            assert_eq!(others.slot_on(ShardId(shard), id), Some(slot));
            assert_eq!(others.slot_on(ShardId(shard ^ 1), id), None);
        }
    }

    #[test]
    fn ids_differ_and_do_not_show_their_place() {
        let mut ids = SocketIds::new();
        let made: Vec<_> = (0..1000).map(|slot| ids.name(ShardId(0), slot).unwrap()).collect();
        let distinct: HashSet<_> = made.iter().copied().collect();
        assert_eq!(distinct.len(), made.len());
        let ascending = made.windows(2).filter(|pair| pair[0].low < pair[1].low).count();
        assert!((300..700).contains(&ascending), "{ascending} of 999 ascend");
    }
}
