//! Names for connections: unguessable, never used twice, and telling their own shard whose they
//! are.

use std::hash::{BuildHasher, RandomState};
use std::io;

use crate::id::{ShardId, SocketId};

/// Bits of `low` that hold shard (16) and slot (24), masked.
const PLACE_BITS: u32 = 40;

/// Random bytes that are fetched at a time: one system call for 64 connections.
const RANDOM_BYTES: usize = 512;

/// The distance of two numbers of a simulation: 2^64 divided by the golden ratio, which is odd.
#[cfg(feature = "testing")]
const SEEDED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes socket ids. Clones share their key, so that any shard can tell where an id belongs.
#[derive(Clone, Debug)]
pub struct SocketIds {
    mask: Mask,
    random: Random,
}

/// The mask that hides the place in an id.
#[derive(Clone, Debug)]
enum Mask {
    Keyed(RandomState),
    /// Hides nothing, in a simulation.
    #[cfg(feature = "testing")]
    Seeded,
}

/// Where random numbers come from.
#[derive(Clone, Debug)]
enum Random {
    /// The system; what was fetched and not used yet.
    System(Vec<u8>),
    /// A simulation: the last number. They follow each other at a distance that is odd, so that
    /// none comes twice (a Weyl sequence), and have as many digits as random ones.
    #[cfg(feature = "testing")]
    Seeded(u64),
}

impl SocketIds {
    /// With a key of its own.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { mask: Mask::Keyed(RandomState::new()), random: Random::System(Vec::new()) }
    }

    /// For a simulation: the same ids in every run, and no secret.
    #[cfg(feature = "testing")]
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self { mask: Mask::Seeded, random: Random::Seeded(seed) }
    }

    /// An id for the connection in `slot` of `shard`.
    ///
    /// # Errors
    /// The system has no random numbers (`getrandom(2)`).
    pub(crate) fn name(&mut self, shard: ShardId, slot: u32) -> io::Result<SocketId> {
        // 63 bits, and not zero, which is in no connection's id.
        let high = (self.random()? >> 1).max(1);
        let place = (u64::from(shard.0) << 24) | u64::from(slot & 0x00ff_ffff);
        Ok(SocketId { high, low: place ^ self.mask_of(high) })
    }

    /// The shard that an id names; one that was made elsewhere may name any.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "16 bits")]
    pub(crate) fn shard_of(&self, id: SocketId) -> ShardId {
        let place = id.low ^ self.mask_of(id.high);
        ShardId((place >> 24) as u16)
    }

    /// The slot on `shard` that an id names; the connection there may be another by now.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "24 bits")]
    pub(crate) fn slot_on(&self, shard: ShardId, id: SocketId) -> Option<u32> {
        let place = id.low ^ self.mask_of(id.high);
        (place >> 24 == u64::from(shard.0)).then_some((place & 0x00ff_ffff) as u32)
    }

    /// Hides the place: neighbouring connections have unrelated ids.
    fn mask_of(&self, high: u64) -> u64 {
        match &self.mask {
            Mask::Keyed(key) => key.hash_one(high) & ((1 << PLACE_BITS) - 1),
            #[cfg(feature = "testing")]
            Mask::Seeded => 0,
        }
    }

    fn random(&mut self) -> io::Result<u64> {
        let random = match &mut self.random {
            Random::System(random) => random,
            #[cfg(feature = "testing")]
            Random::Seeded(last) => {
                *last = last.wrapping_add(SEEDED_STEP);
                return Ok(*last);
            }
        };
        if random.is_empty() {
            random.resize(RANDOM_BYTES, 0);
            getrandom::fill(random).map_err(io::Error::other)?;
        }
        let rest = random.len() - size_of::<u64>();
        let taken = random.split_off(rest);
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
