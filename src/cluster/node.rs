//! The node: all partitions, and what is between them and the homes of this process.
//!
//! A pure state machine. Messages of homes become commands of partitions; records of inboxes become
//! messages to homes. Names are translated by the [`directory`]. Questions about all nodes are
//! gathered in [`questions`], those of other nodes are answered in [`inquiries`], and the permits
//! for connections are in [`quotas`].

mod commands;
mod directory;
mod effects;
mod gather;
mod inquiries;
mod links;
mod names;
mod payload;
mod permits;
mod questions;
mod quotas;
mod records;
mod report;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::partition::{Bounds, Partition};
use super::settings::ClusterSettings;
use super::wire::{NodeId, NodeInfo};
use crate::apps::Apps;
use crate::channels::{KeyHash, PartitionId, Topology, UserPath};
use crate::id::ShardId;
use crate::time::Millis;

use directory::Directory;
use inquiries::Inquiries;
use questions::Questions;
use quotas::Quotas;

pub(crate) use effects::Effects;
pub(crate) use names::{Names, SEED_BYTES};
pub(crate) use quotas::lend_nothing;
#[cfg(any(test, feature = "testing"))]
pub(crate) use report::Report;

/// The parts that a node is made of.
#[derive(Debug)]
pub(crate) struct NodeParts {
    /// The settings of the cluster.
    pub(crate) settings: Arc<ClusterSettings>,
    /// The names of this process.
    pub(crate) names: Names,
    /// The host name and the listener of this node, for the operator.
    pub(crate) address: Box<str>,
    /// The apps that are served.
    pub(crate) apps: Arc<Apps>,
    /// The hash by which shards find homes.
    pub(crate) hash: KeyHash,
    /// The number of shards. The id of the cluster's port is the one behind theirs.
    pub(crate) shards: u16,
}

/// This process as a node of a cluster.
///
/// Homes and shards speak by [`handle`](Self::handle), [`answered`](Self::answered) and
/// [`terminated`](Self::terminated). The owner of a partition's connections calls
/// [`introduction`](Self::introduction), [`entered`](Self::entered),
/// [`next_call`](Self::next_call), [`executed`](Self::executed), [`read`](Self::read) and
/// [`lost`](Self::lost), in the order that [`Partition`] describes. [`tick`](Self::tick) is called
/// some times per second. After each call the [`effects`](Self::effects) are taken and carried out.
#[derive(Debug)]
pub(crate) struct Node {
    settings: Arc<ClusterSettings>,
    /// The id of the cluster's port, to which homes answer.
    port: ShardId,
    /// The names of this process.
    names: Names,
    /// The text with which the epochs of this node begin.
    epoch: Box<str>,
    /// The number of introductions so far.
    introductions: u64,
    address: Box<str>,
    /// The fingerprint of the apps.
    fingerprint: Box<str>,
    directory: Directory,
    partitions: Vec<Member>,
    questions: Questions,
    inquiries: Inquiries,
    quotas: Quotas,
    /// Whether homes answer themselves, because the cluster is away.
    alone: bool,
    /// The homes that have not answered that they are alone, and how often they have to: what they
    /// say until then is answered by themselves.
    unaware: BTreeMap<ShardId, u32>,
    /// Whether the node was ever in the cluster.
    joined: bool,
    /// Client events that found no room, since they were last reported.
    dropped: u64,
    /// Unreadable and foreign entries when they were last reported, and when that was.
    junk_reported: ((u64, u64), Option<Millis>),
    /// Calls that could not be kept, when they were last reported, and when that was.
    crowding_reported: (u64, Option<Millis>),
    /// The addresses of nodes that were reported to have other apps.
    differing: BTreeSet<Box<str>>,
    /// The time of the last work that is due each second.
    last_second: Millis,
    effects: Effects,
}

/// The node's part in one partition.
#[derive(Debug)]
struct Member {
    partition: Partition,
    /// All nodes, as of the last list.
    nodes: Vec<NodeInfo>,
    /// Whether all nodes have registered: otherwise Redis may not know all members and users.
    settled: bool,
    /// Users of whom something was reported while not all nodes had registered.
    doubtful: BTreeSet<UserPath>,
    /// The name under which the node last introduced itself.
    introduced: Option<NodeId>,
    /// Nodes that were reported as buried.
    buried: BTreeSet<NodeId>,
    /// Whether members that register anew are no news to other nodes.
    emptied: bool,
    /// The `run_id` of the server at the last introduction; empty if it was not told.
    run: Box<str>,
    /// Whether the server is another one than at the last entrance, which may lack the last changes
    /// of all nodes.
    replaced: bool,
}

impl Member {
    /// The addresses of all nodes that have entered themselves. Others are only known to be alive,
    /// because a Redis that was emptied heard of them from another node. A node that came back
    /// under another name is told once.
    fn addresses(&self) -> BTreeSet<Box<str>> {
        let addresses = self.nodes.iter().map(|node| node.address.clone());
        addresses.filter(|address| !address.is_empty()).collect()
    }
}

impl Node {
    /// A node that has not entered any partition.
    pub(crate) fn new(parts: NodeParts, now: Millis) -> Self {
        let NodeParts { settings, mut names, address, apps, hash, shards } = parts;
        let bounds = Bounds {
            lease: settings.lease,
            retention: settings.retention,
            // As many bytes can be kept as can wait.
            keep_bytes: settings.backlog / usize::from(settings.partitions.max(1)),
            inbox_bytes: settings.inbox,
        };
        let directory =
            Directory::new(Arc::clone(&apps), hash, Topology::new(shards), settings.partitions);
        let (id, fingerprint) = (names.next(), directory.fingerprint());
        let members = (0..settings.partitions.max(1)).map(|_| Member {
            partition: Partition::new(id, bounds, fingerprint.clone(), now),
            nodes: Vec::new(),
            settled: false,
            doubtful: BTreeSet::new(),
            introduced: None,
            buried: BTreeSet::new(),
            emptied: false,
            run: Box::default(),
            replaced: false,
        });
        let mut node = Self {
            port: ShardId(shards),
            epoch: names.next().to_string().into(),
            introductions: 0,
            names,
            address,
            partitions: members.collect(),
            fingerprint,
            directory,
            questions: Questions::default(),
            inquiries: Inquiries::default(),
            quotas: Quotas::default(),
            alone: false,
            unaware: BTreeMap::new(),
            joined: false,
            dropped: 0,
            junk_reported: ((0, 0), None),
            crowding_reported: (0, None),
            differing: BTreeSet::new(),
            last_second: now,
            effects: Effects::default(),
            settings,
        };
        node.adopt_quotas(&apps, now);
        node
    }

    /// Takes other apps. To be called before shards get them.
    pub(crate) fn adopt(&mut self, apps: Arc<Apps>, now: Millis) {
        self.directory.adopt(Arc::clone(&apps));
        let before = std::mem::replace(&mut self.fingerprint, self.directory.fingerprint());
        if self.fingerprint != before {
            for member in &mut self.partitions {
                member.partition.adopt(self.fingerprint.clone(), now);
            }
        }
        self.differing.clear();
        self.adopt_quotas(&apps, now);
    }

    /// The effects of the calls so far. The owner takes everything out.
    pub(crate) const fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// The number of partitions.
    pub(crate) fn partitions(&self) -> u16 {
        // As many as the settings have, which is a u16.
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    /// Whether Redis has executed everything.
    pub(crate) fn is_settled(&self) -> bool {
        self.partitions.iter().all(|member| member.partition.is_settled())
    }

    /// A partition as homes and shards know it.
    fn partition_id(&self, number: u16) -> PartitionId {
        PartitionId { number, of: self.partitions() }
    }

    /// Leaves it to other nodes to tell webhooks of departures, because the node is about to stop.
    pub(crate) fn leave_departures(&mut self) {
        self.partitions.iter_mut().for_each(|member| member.partition.leave_departures());
    }

    /// Has the node leave the cluster behind everything that it was told.
    pub(crate) fn quit(&mut self) {
        self.partitions.iter_mut().for_each(|member| member.partition.quit());
    }

    /// Whether the node has left a partition for good.
    pub(crate) fn has_quit(&self, partition: u16) -> bool {
        self.partition(partition).is_some_and(Partition::has_quit)
    }

    /// Whether commands of a partition reach Redis.
    pub(crate) fn is_serving(&self, partition: u16) -> bool {
        self.partition(partition).is_some_and(|partition| partition.away_since().is_none())
    }

    /// Whether the node is in a partition; otherwise it has to introduce itself first.
    pub(crate) fn has_entered(&self, partition: u16) -> bool {
        self.partition(partition).is_some_and(Partition::has_entered)
    }

    fn partition(&self, number: u16) -> Option<&Partition> {
        self.partitions.get(usize::from(number)).map(|member| &member.partition)
    }

    fn member(&mut self, partition: u16) -> Option<&mut Member> {
        self.partitions.get_mut(usize::from(partition))
    }

    /// The bytes of events that may wait for each partition.
    fn backlog_share(&self) -> usize {
        self.settings.backlog / self.partitions.len().max(1)
    }

    /// The bytes of all commands that were not executed.
    fn waiting_bytes(&self) -> usize {
        self.partitions.iter().map(|member| member.partition.waiting_bytes()).sum()
    }
}

#[cfg(test)]
mod tests;
