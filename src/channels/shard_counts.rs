//! Counts by shard: how many subscribers of a channel, or subscriptions of a user, each shard has.

use smallvec::SmallVec;

use crate::id::ShardId;

/// The count of each shard that has any. The count of a single shard is in the record itself,
/// because most channels and members have a single subscriber.
#[derive(Debug, Default)]
pub(super) enum ShardCounts {
    #[default]
    None,
    One((ShardId, u32)),
    Many(Box<SmallVec<[(ShardId, u32); INLINE]>>),
}

/// The number of counts that one allocation holds: those of a cache line, less the length.
const INLINE: usize = 6;

impl ShardCounts {
    /// Counts one more of a shard.
    pub(super) fn add(&mut self, shard: ShardId) {
        if let Some((_, count)) = self.as_mut_slice().iter_mut().find(|(of, _)| *of == shard) {
            *count += 1;
            return;
        }
        *self = match std::mem::take(self) {
            Self::None => Self::One((shard, 1)),
            Self::One(first) => Self::Many(Box::new(SmallVec::from_slice(&[first, (shard, 1)]))),
            Self::Many(mut many) => {
                many.push((shard, 1));
                Self::Many(many)
            }
        };
    }

    /// Counts one less of a shard. Returns `false`, and does nothing, if the shard has none.
    pub(super) fn remove(&mut self, shard: ShardId) -> bool {
        let Some(at) = self.as_slice().iter().position(|&(of, _)| of == shard) else {
            return false;
        };
        let (_, count) = &mut self.as_mut_slice()[at];
        *count -= 1;
        if *count == 0 {
            *self = match std::mem::take(self) {
                Self::None | Self::One(_) => Self::None,
                Self::Many(mut many) => {
                    many.swap_remove(at);
                    match many[..] {
                        [last] => Self::One(last),
                        _ => Self::Many(many),
                    }
                }
            };
        }
        true
    }

    /// The sum over all shards.
    pub(super) fn total(&self) -> u32 {
        self.as_slice().iter().map(|&(_, count)| count).sum()
    }

    /// Whether no shard has any.
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The shards that have any.
    pub(super) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.as_slice().iter().map(|&(shard, _)| shard)
    }

    fn as_slice(&self) -> &[(ShardId, u32)] {
        match self {
            Self::None => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [(ShardId, u32)] {
        match self {
            Self::None => &mut [],
            Self::One(only) => std::slice::from_mut(only),
            Self::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_as_a_map_has_them(
            steps in prop::collection::vec((any::<bool>(), 0..9_u16), 0..200),
        ) {
            let (mut counts, mut model) = (ShardCounts::default(), BTreeMap::new());
            for (add, shard) in steps {
                if add {
                    counts.add(ShardId(shard));
                    *model.entry(shard).or_insert(0) += 1;
                } else {
                    let had = model.get_mut(&shard).map(|count| *count -= 1).is_some();
                    prop_assert_eq!(counts.remove(ShardId(shard)), had);
                    model.retain(|_, count| *count > 0);
                }
                prop_assert_eq!(counts.total(), model.values().sum::<u32>());
                prop_assert_eq!(counts.is_empty(), model.is_empty());
                let mut shards: Vec<_> = counts.shards().map(|shard| shard.0).collect();
                shards.sort_unstable();
                prop_assert_eq!(shards, model.keys().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn counts_take_two_words() {
        assert_eq!(size_of::<ShardCounts>(), 16);
    }
}
