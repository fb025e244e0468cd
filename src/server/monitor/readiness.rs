//! Whether the node takes clients, for `/ready`.

use crate::cluster::{ClusterState, ClusterStatus};
use crate::memory::Headroom;

/// The phase of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Phase {
    /// The shards do not all accept connections yet.
    Starting,
    /// They do.
    Serving,
    /// The process stops.
    Draining,
}

/// The reason for which the node takes no clients, in words; `None` if it takes them.
///
/// A node that serves its clients alone while Redis is away (`cluster.when_away`) takes them,
/// because its operator has chosen so.
pub(super) fn unready(
    phase: Phase,
    headroom: Headroom,
    cluster: Option<&ClusterStatus>,
) -> Option<&'static str> {
    let away = cluster.is_some_and(|cluster| cluster.state == ClusterState::Away);
    match phase {
        Phase::Starting => Some("starting"),
        Phase::Draining => Some("draining"),
        Phase::Serving if headroom != Headroom::Enough => Some("out of memory"),
        Phase::Serving if away => Some("away from Redis"),
        Phase::Serving => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_keeps_clients_away_is_named() {
        let cluster = |state| ClusterStatus { state, ..ClusterStatus::default() };
        let (away, alone) = (cluster(ClusterState::Away), cluster(ClusterState::Alone));
        let enough = |phase, cluster| unready(phase, Headroom::Enough, cluster);
        assert_eq!(enough(Phase::Starting, None), Some("starting"));
        assert_eq!(enough(Phase::Draining, Some(&away)), Some("draining"));
        assert_eq!(enough(Phase::Serving, Some(&away)), Some("away from Redis"));
        assert_eq!(enough(Phase::Serving, Some(&alone)), None);
        assert_eq!(enough(Phase::Serving, None), None);
        for headroom in [Headroom::Short, Headroom::Spent] {
            assert_eq!(unready(Phase::Serving, headroom, Some(&away)), Some("out of memory"));
        }
    }
}
