//! The names of this process: those that it has as a node, one after another.

use sha2::{Digest, Sha256};

use crate::cluster::wire::NodeId;

/// Makes names: 128 bits each, which nobody can guess who does not know the seed.
#[derive(Debug)]
pub(crate) struct Names {
    seed: [u8; SEED_BYTES],
    /// The names so far.
    made: u64,
}

impl Names {
    /// The names by a random seed, or by a number if they are to be the same in each run.
    pub(crate) const fn new(seed: [u8; SEED_BYTES]) -> Self {
        Self { seed, made: 0 }
    }

    /// Another name.
    pub(crate) fn next(&mut self) -> NodeId {
        self.made += 1;
        let hash = Sha256::new().chain_update(self.seed).chain_update(self.made.to_be_bytes());
        let digest: [u8; SEED_BYTES] = hash.finalize().into();
        NodeId(digest.iter().take(16).fold(0, |name, byte| name << 8 | u128::from(*byte)))
    }
}

/// The bytes of a seed: as many as a hash has.
pub(crate) const SEED_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_another_one_and_the_same_in_each_run() {
        let names = |seed| {
            let mut names = Names::new([seed; SEED_BYTES]);
            [names.next(), names.next()]
        };
        let [[a, b], [c, d]] = [names(1), names(2)];
        assert_eq!(names(1), [a, b]);
        let all = std::collections::BTreeSet::from([a, b, c, d]);
        assert_eq!(all.len(), 4);
    }
}
