//! The question, before anything is bound, whether the Redis of the cluster would let this node in.

use std::time::Duration;

use tokio::time::timeout;

use crate::cluster::{self, ClusterError, ClusterSettings};

/// The time for the question: the start waits no longer for a Redis that does not answer than a
/// client's next attempt to connect takes.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Refuses a start that could only wait for somebody to change the settings or the rights at Redis:
/// such a node would serve and never be one of the cluster. A Redis that cannot be reached now is
/// waited for while the node serves, and the log says so. Once the node serves, these faults are
/// waited for as well, because its clients would lose more by its end.
///
/// # Errors
/// Redis refuses this node, as `ringwave check` would say.
pub(super) async fn refuse_outsider(settings: &ClusterSettings) -> Result<(), ClusterError> {
    match timeout(TIME_MAX, cluster::probe(settings)).await {
        Ok(Err(error)) if error.is_permanent() => Err(ClusterError::Redis(error)),
        _ => Ok(()),
    }
}
