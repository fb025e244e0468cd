//! The lines that the node has for the operator's log.

use std::fmt;
use std::time::Duration;

use crate::text::Quoted;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The node is one of the cluster, for the first time.
    Joined {
        /// The name of the cluster.
        cluster: String,
        /// The servers of Redis.
        redis: String,
        /// The addresses of all nodes.
        nodes: Vec<Box<str>>,
    },
    /// Commands reach Redis again.
    Back {
        /// The partition.
        partition: u16,
        /// The time for which they did not.
        away: Duration,
        /// The calls that were sent again.
        repeated: u64,
    },
    /// Another node has come.
    Arrived(Box<str>),
    /// Another node is gone.
    Departed(Box<str>),
    /// The lease of another node is over.
    Buried(Box<str>),
    /// Redis was emptied.
    Emptied {
        /// The partition.
        partition: u16,
    },
    /// The members of this node have left, because its lease was over.
    LeaseLost {
        /// The partition.
        partition: u16,
    },
    /// Messages for this node are lost.
    CutOff {
        /// The partition.
        partition: u16,
    },
    /// The node serves its clients alone.
    Alone {
        /// The time for which Redis has been away.
        away: Duration,
    },
    /// The node gave up what waited for Redis.
    Overflowed {
        /// The bytes of it.
        bytes: usize,
    },
    /// Another node has other apps.
    AppsDiffer(Box<str>),
    /// Entries could not be read.
    Junk {
        /// Entries and records that have no form that this version knows.
        unreadable: u64,
        /// Entries of other versions.
        foreign: u64,
    },
    /// Events of clients found no room.
    Dropped(u64),
    /// Executed calls could not be kept for as long as Redis may forget them.
    CrowdedOut(u64),
}

/// The urgency of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// The operator may want to know.
    Info,
    /// Clients notice, or the operator has something to do.
    Warning,
}

impl Report {
    /// Its urgency.
    pub(crate) const fn urgency(&self) -> Urgency {
        match self {
            Self::Joined { .. } | Self::Back { .. } | Self::Arrived(_) | Self::Departed(_) => {
                Urgency::Info
            }
            _ => Urgency::Warning,
        }
    }

    /// Writes it to the log.
    pub(crate) fn log(&self) {
        match self.urgency() {
            Urgency::Info => tracing::info!("{self}"),
            Urgency::Warning => tracing::warn!("{self}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { cluster, redis, nodes } => {
                let s = if nodes.len() == 1 { "" } else { "s" };
                let (cluster, count) = (Quoted(cluster), nodes.len());
                write!(f, "joined the cluster {cluster} of {count} node{s} by {redis}: ")?;
                let shown: Vec<_> = nodes.iter().take(SHOWN).map(|node| node.to_string()).collect();
                f.write_str(&shown.join(", "))?;
                if nodes.len() > SHOWN { f.write_str(", …") } else { Ok(()) }
            }
            Self::Back { partition, away, repeated } => write!(
                f,
                "Redis is back after {:.1} s (partition {partition}, {repeated} calls repeated)",
                away.as_secs_f64()
            ),
            Self::Arrived(node) => write!(f, "the node {} has joined the cluster", Quoted(node)),
            Self::Departed(node) => write!(f, "the node {} has left the cluster", Quoted(node)),
            Self::Buried(node) => write!(
                f,
                "the node {} has been silent for longer than its lease (cluster.lease), so its \
                 members leave",
                Quoted(node)
            ),
            Self::Emptied { partition } => write!(
                f,
                "Redis was emptied (partition {partition}): everything is registered anew"
            ),
            Self::LeaseLost { partition } => write!(
                f,
                "this node was cut off from Redis for longer than its lease (cluster.lease), so \
                 its members have left (partition {partition}); they return now"
            ),
            Self::CutOff { partition } => write!(
                f,
                "messages for this node are lost (partition {partition}), because it did not read \
                 its inbox for too long (cluster.retention, cluster.inbox): connections that \
                 subscribe there are closed with 4200, and return"
            ),
            Self::Alone { away } => write!(
                f,
                "Redis has been away for {:.1} s: this node serves its clients alone until it is \
                 back (cluster.when_away = \"local\")",
                away.as_secs_f64()
            ),
            Self::Overflowed { bytes } => write!(
                f,
                "{bytes} bytes of changes wait for Redis, more than cluster.backlog allows: they \
                 are given up, and everything is registered anew when Redis is back"
            ),
            Self::AppsDiffer(node) => write!(
                f,
                "the node {} has other apps than this one: give all nodes the same apps",
                Quoted(node)
            ),
            Self::Junk { unreadable, foreign } => write!(
                f,
                "{unreadable} entries from Redis cannot be read and {foreign} are of another \
                 version: nothing but nodes of one version of Ringwave may write to the keys of \
                 the cluster (cluster.name)"
            ),
            Self::Dropped(count) => write!(
                f,
                "{count} client events are lost, because Redis is away and they waited for too long \
                 (cluster.patience) or found no room (cluster.backlog)"
            ),
            Self::CrowdedOut(count) => write!(
                f,
                "{count} calls were not kept for as long as a Redis that fails over may forget \
                 them: to keep what this node sends in two leases, raise cluster.backlog"
            ),
        }
    }
}

/// The nodes that a line names.
const SHOWN: usize = 10;
