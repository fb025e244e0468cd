//! Records of inboxes become messages to homes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Node;
use super::report::Report;
use crate::channels::{
    ChannelEvent, ChannelKey, ChannelPath, ClusterJoined, EnterOutcome, Event, FromCluster, Notice,
    Retain, UserPath,
};
use crate::cluster::wire::{Admitted, MemberText, NodeId, NodeInfo, Record, Retained};
use crate::frame::Frame;
use crate::protocol::auth::Member;
use crate::text::{self, SHOWN_CHARS};
use crate::time::Millis;

/// The users of a partition that are looked at once more at most, after all nodes have registered.
const DOUBTFUL_MAX: usize = 100_000;

impl Node {
    /// Handles records of a partition, in their order.
    pub(crate) fn records(&mut self, partition: u16, records: Vec<Record>, now: Millis) {
        for record in records {
            self.record(partition, record, now);
        }
    }

    fn record(&mut self, partition: u16, record: Record, now: Millis) {
        match record {
            Record::Question(node, request, payload) => {
                self.inquire(partition, node, request, &payload, now);
            }
            Record::Asked { request, members, last, nodes } => {
                let last = last.map(|(retained, _)| retained);
                let done = self.questions.asked(request, members, last, nodes);
                self.done(done);
            }
            Record::Users(request, users) => {
                let done = self.questions.users(request, users);
                self.done(done);
            }
            Record::Answer(node, request, payload) => {
                let done = self.questions.answered(node, request, &payload);
                self.done(done);
            }
            Record::Gone(channel, user_id) => self.gone(&channel, &user_id),
            Record::Tended(_, nodes) => self.tended(partition, nodes, now),
            Record::Dead(node) => self.dead(partition, node),
            Record::Settled => self.settled(partition, now),
            Record::Permits(app, held) => self.permits(partition, &app, held, now),
            Record::Recall(app) => self.recalled(&app, now),
            Record::Online(user, online) => self.online(partition, &user, online),
            record => self.about_channel(record),
        }
    }

    /// Hands a record to the home of its channel.
    fn about_channel(&mut self, record: Record) {
        let Some(path) = channel_of(&record) else { return };
        // Another node may have apps that this one does not have.
        let Some((home, key)) = self.directory.channel(path) else { return };
        if let Some(message) = message_of(record, key) {
            self.effects.tell(home, message);
        }
    }

    /// Tells whether a user is online. While nodes have to register, one may have the user who has
    /// not said so, and Redis may have forgotten that another one has the user no more.
    fn online(&mut self, partition: u16, path: &UserPath, online: bool) {
        let Some(member) = self.member(partition) else { return };
        if !member.settled && member.doubtful.len() < DOUBTFUL_MAX {
            member.doubtful.insert(path.clone());
            if !online {
                return;
            }
        }
        if let Some((home, user)) = self.directory.user(path) {
            self.effects.tell(home, FromCluster::Online(user, online));
        }
    }

    /// All nodes have registered: what Redis knows is all there is.
    fn settled(&mut self, partition: u16, now: Millis) {
        let Some(member) = self.member(partition) else { return };
        member.settled = true;
        for path in std::mem::take(&mut member.doubtful) {
            // Only the home knows whether the user is still watched.
            if let Some((home, user)) = self.directory.user(&path) {
                self.effects.tell(home, FromCluster::Certain(user));
            }
        }
        let shards = self.directory.topology().shards();
        let id = self.partition_id(partition);
        self.effects.tell_all(shards, || FromCluster::Settled(id));
        self.ask_held(partition, now);
    }

    /// A departure is to be told to webhooks. Redis has waited for a return.
    fn gone(&mut self, path: &ChannelPath, user_id: &str) {
        let Some((_, key)) = self.directory.channel(path) else { return };
        let event = match user_id {
            "" => ChannelEvent::Vacated,
            user_id if self.directory.takes_user(key.app(), user_id) => {
                ChannelEvent::MemberRemoved(user_id.into())
            }
            _ => return,
        };
        let notice = Notice { app: key.app(), channel: key.name().clone(), event };
        let wanted = self.directory.app(key.app()).map(|app| app.webhooks.watched());
        if wanted.is_some_and(|wanted| wanted.contains(notice.kind())) {
            self.effects.notices.push(notice);
        }
    }

    /// Takes the list of all nodes.
    fn tended(&mut self, partition: u16, nodes: Vec<NodeInfo>, now: Millis) {
        let Some(member) = self.member(partition) else { return };
        let own = member.partition.node();
        let nodes: Vec<_> = nodes.into_iter().map(legible).collect();
        let ids: BTreeSet<NodeId> = nodes.iter().map(|node| node.id).collect();
        let lost = member.partition.tended(nodes.iter().map(|of| (of.id, of.batched)), now);
        member.buried.retain(|node| ids.contains(node));
        let before = member.addresses();
        member.nodes = nodes;
        let done = self.questions.gone(partition, |node| ids.contains(&node));
        done.into_iter().for_each(|done| self.done(Some(done)));
        if lost {
            self.cut_off(partition);
        }
        // All partitions have the same nodes: one of them is enough for the log.
        if partition == 0 {
            self.report_nodes(&before, own);
        }
    }

    fn report_nodes(&mut self, before: &BTreeSet<Box<str>>, own: NodeId) {
        let Some(member) = self.partitions.first() else { return };
        let nodes = member.addresses();
        let differs = |node: &&NodeInfo| {
            !node.apps.is_empty() && node.apps != self.fingerprint && node.id != own
        };
        let differing: BTreeSet<_> =
            member.nodes.iter().filter(differs).map(|node| node.address.clone()).collect();
        if self.joined {
            let arrived = nodes.difference(before).cloned().map(Report::Arrived);
            let departed = before.difference(&nodes).cloned().map(Report::Departed);
            self.effects.reports.extend(arrived.chain(departed));
        } else {
            self.joined = true;
            let (cluster, nodes) = (self.settings.name.clone(), nodes.into_iter().collect());
            let redis = self.settings.place.to_string();
            self.effects.report(Report::Joined { cluster, redis, nodes });
        }
        for address in differing.difference(&self.differing) {
            self.effects.report(Report::AppsDiffer(address.clone()));
        }
        self.differing = differing;
    }

    /// The lease of a node is over.
    fn dead(&mut self, partition: u16, node: NodeId) {
        let Some(member) = self.member(partition) else { return };
        member.partition.bury(node);
        let address = member.nodes.iter().find(|of| of.id == node).map(|of| of.address.clone());
        let first = member.buried.insert(node) && partition == 0;
        // This node itself may have had another name, and a node without an address never entered.
        if let Some(address) = address.filter(|_| first)
            && !address.is_empty()
            && address != self.address
        {
            self.effects.report(Report::Buried(address));
        }
        let done = self.questions.gone(partition, |of| of != node);
        done.into_iter().for_each(|done| self.done(Some(done)));
    }
}

/// The node with an address that is fit for a log and a terminal.
fn legible(node: NodeInfo) -> NodeInfo {
    let address = node.address.chars().filter(|&char| !text::is_unsafe(char)).take(SHOWN_CHARS);
    NodeInfo { address: address.collect::<String>().into(), ..node }
}

/// The channel that a record is about.
const fn channel_of(record: &Record) -> Option<&ChannelPath> {
    match record {
        Record::Message { channel, .. }
        | Record::Joined { channel, .. }
        | Record::Left(channel, _)
        | Record::Count(channel, ..)
        | Record::Added(channel, _)
        | Record::Removed(channel, _)
        | Record::Entered(channel, ..)
        | Record::Parted(channel, _) => Some(channel),
        _ => None,
    }
}

/// The message to the home of the channel `key`; `None` if a member cannot be read.
fn message_of(record: Record, key: ChannelKey) -> Option<FromCluster> {
    Some(match record {
        Record::Message { except, retained, frame, .. } => {
            let retain = retained.map(|retained| Box::new(retain(retained)));
            FromCluster::Event(Event { key, frame, except, retain })
        }
        Record::Joined { first, exact, last, members, .. } => {
            FromCluster::Joined(Box::new(joined(key, (first, exact), last, &members)))
        }
        Record::Left(..) => FromCluster::Left(key),
        Record::Count(_, total, own) => FromCluster::Count(key, total, own),
        Record::Added(_, member) => FromCluster::Added(key, Arc::new(member.member()?)),
        Record::Removed(_, user_id) => FromCluster::Removed(key, user_id.into()),
        Record::Entered(_, user_id, admitted) => {
            FromCluster::Entered(key, user_id.into(), outcome(admitted))
        }
        Record::Parted(_, user_id) => FromCluster::Parted(key, user_id.into()),
        _ => return None,
    })
}

fn joined(
    key: ChannelKey,
    (occupied, exact): (bool, bool),
    last: Option<(Retained, Frame)>,
    members: &[MemberText],
) -> ClusterJoined {
    let members = members.iter().filter_map(MemberText::member);
    let members: Vec<Arc<Member>> = members.map(Arc::new).collect();
    let last = last.map(|(retained, frame)| (frame, Box::new(retain(retained))));
    ClusterJoined { key, occupied, exact, last, members }
}

/// The part of an event that a home keeps.
pub(super) fn retain(Retained { data, ttl_ms }: Retained) -> Retain {
    Retain { data, ttl: Duration::from_millis(ttl_ms) }
}

const fn outcome(admitted: Admitted) -> EnterOutcome {
    match admitted {
        Admitted::New => EnterOutcome::Entered { told: true },
        Admitted::Again | Admitted::Returned => EnterOutcome::Entered { told: false },
        Admitted::Full => EnterOutcome::Full,
    }
}
