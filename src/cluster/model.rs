//! A model of the scripts in Redis, for simulations: the same calls on a state in memory, with the
//! time passed in. [`wire`](super::wire) is the contract of both, and a test drives a model and a
//! real Redis with the same calls.
//!
//! The model answers as the scripts do, and appends the same bytes to inboxes, but for orders that
//! Redis does not promise: nodes, members and users stand in the order of their ids.
//! A [clone](Model::clone) is a snapshot: to put it back is a failover that loses the last changes.
//! A new model in the place of another one is a Redis that came back empty.

mod channels;
mod inboxes;
mod nodes;
mod users;

#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::store::{CallHead, Executed};
use super::wire::{
    Batched, CallKind, Entered, Entrance, JoinFlags, Listed, MemberText, NodeId, Record, Values,
};
use crate::channels::{ChannelPath, UserPath};
use inboxes::Inbox;

/// If nobody has tended for so many milliseconds, leases are not to be trusted.
const STANDSTILL_MS: u64 = 2000;

/// The milliseconds after which webhooks are told of a departure.
const DEBOUNCE_MS: u64 = 3000;

/// The registrations that one call takes out of dead nodes at most.
const BURIALS: usize = 200;

/// The bytes of members behind which a call lists none of further channels.
const MEMBER_BYTES: usize = 4 << 20;

/// The state of a partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// The number of partitions; 0 before the first entrance.
    partitions: u16,
    epoch: Option<Box<str>>,
    run: Option<Box<str>>,
    /// The time of the last `tend`.
    tended_ms: Option<u64>,
    /// The nodes with the ends of their leases.
    leases: BTreeMap<NodeId, u64>,
    stale: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, Node>,
    inboxes: BTreeMap<NodeId, Inbox>,
    channels: BTreeMap<ChannelPath, BTreeMap<NodeId, u32>>,
    members: BTreeMap<ChannelPath, BTreeMap<Box<str>, PresentMember>>,
    /// Last events with the time at which they expire.
    events: BTreeMap<ChannelPath, (Bytes, u64)>,
    /// The channels that each node is registered for.
    interests: BTreeMap<NodeId, BTreeSet<ChannelPath>>,
    /// The registrations of each node that others see.
    marks: BTreeMap<NodeId, BTreeSet<Mark>>,
    users: BTreeMap<UserPath, BTreeSet<NodeId>>,
    watchers: BTreeMap<UserPath, BTreeSet<NodeId>>,
    quotas: BTreeMap<Box<str>, BTreeMap<NodeId, u32>>,
    /// Departures with the time at which they are due; without a user the channel was vacated.
    gone: BTreeMap<(ChannelPath, Box<str>), u64>,
}

/// The hash of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    address: Box<str>,
    apps: Box<str>,
    /// Its batches; `None` if the node has not entered.
    batched: Option<Batched>,
    /// The bytes that the node has read, by its own account.
    read: u64,
    unread: u64,
    cut: bool,
    dead: bool,
    /// The letters of entrances whose answers the node may not have heard.
    owed: Letters,
}

/// The letters of the answer to an entrance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Letters {
    unknown: bool,
    cut: bool,
    buried: bool,
    missed: bool,
}

/// A member of a presence channel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PresentMember {
    /// The number of nodes that have connections of the user.
    nodes: u32,
    text: MemberText,
}

/// A registration that leaves with the lease of its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Member(ChannelPath, Box<str>),
    Counted(ChannelPath),
    User(UserPath),
    Watch(UserPath),
    Quota(Box<str>),
}

/// A call while it is executed.
struct Call<'a> {
    model: &'a mut Model,
    head: &'a CallHead,
    now_ms: u64,
    /// The encoded records for each node.
    records: BTreeMap<NodeId, Vec<u8>>,
    /// The registrations that may still be taken out of dead nodes.
    burials: usize,
    /// The bytes of answers to the questions of each node.
    answers: BTreeMap<NodeId, u64>,
    /// The bytes of members that were listed.
    member_bytes: usize,
    /// Whether members were not listed for their number of bytes.
    withheld: bool,
}

impl Model {
    /// Introduces a node.
    ///
    /// # Errors
    /// The cluster has the number of partitions that is returned, which is another one.
    pub(crate) fn enter(
        &mut self,
        now_ms: u64,
        node: NodeId,
        entrance: &Entrance,
    ) -> Result<Entered, u16> {
        if self.partitions != 0 && self.partitions != entrance.partitions {
            return Err(self.partitions);
        }
        self.partitions = entrance.partitions;
        let lease_end = now_ms + entrance.lease_ms;
        let doubtful = self.may_have_forgotten(&entrance.run);
        if doubtful {
            self.make_others_stale(node, lease_end, &entrance.known);
        }
        let epoch = self.epoch.get_or_insert_with(|| entrance.epoch.clone()).clone();
        let entered = self.introduce(node, entrance);
        let Letters { unknown, cut, missed, .. } = self.node(node).owed;
        if doubtful || unknown || cut || missed || entrance.run.is_empty() {
            self.stale.insert(node);
        }
        self.leases.insert(node, lease_end);
        Ok(Entered { epoch, now_ms, ..entered })
    }

    /// Executes the commands of a call, which are arguments as nodes encode them.
    pub(crate) fn call(&mut self, now_ms: u64, head: &CallHead, args: &[Bytes]) -> Executed {
        let node = self.nodes.get(&head.node).filter(|node| !node.cut && !node.dead);
        let Some(Batched { base, done }) = node.and_then(|node| node.batched) else {
            return Executed::Enter;
        };
        if self.epoch.as_ref() != Some(&head.epoch) {
            return Executed::Enter;
        }
        if head.kind == CallKind::Batch {
            if head.number <= done {
                return Executed::Done;
            }
            if head.number > done + 1 {
                return Executed::Enter;
            }
            self.node(head.node).batched = Some(Batched { base, done: head.number });
        }
        self.forget_expired_events(now_ms);
        for (node, records) in Call::new(self, head, now_ms).execute(args) {
            self.append(now_ms, head, node, records.into());
        }
        Executed::Done
    }

    /// The state that is kept beside the records of nodes and the permits that they keep in store:
    /// none once all clients have left.
    #[cfg(feature = "testing")]
    pub(crate) fn leftovers(&self) -> Vec<String> {
        fn filled<'a, K: std::fmt::Debug + 'a, V: std::fmt::Debug + 'a>(
            what: &'a str,
            map: impl IntoIterator<Item = (K, V)> + 'a,
            is_empty: impl Fn(&V) -> bool + 'a,
        ) -> impl Iterator<Item = String> + 'a {
            let filled = map.into_iter().filter(move |(_, value)| !is_empty(value));
            filled.map(move |(key, value)| format!("{what} {key:?}: {value:?}"))
        }
        let kept = |marks: &BTreeSet<Mark>| -> Vec<Mark> {
            marks.iter().filter(|mark| !matches!(mark, Mark::Quota(_))).cloned().collect()
        };
        let marks = self.marks.iter().map(|(node, marks)| (node, kept(marks)));
        filled("channel", &self.channels, |_| false)
            .chain(filled("members", &self.members, |of| of.is_empty()))
            .chain(filled("event", &self.events, |_| false))
            .chain(filled("interest", &self.interests, |of| of.is_empty()))
            .chain(filled("marks", marks, Vec::is_empty))
            .chain(filled("user", &self.users, |of| of.is_empty()))
            .chain(filled("watchers", &self.watchers, |of| of.is_empty()))
            .chain(filled("departure", &self.gone, |_| false))
            .collect()
    }

    /// Whether the server may have forgotten something since the last entrance.
    fn may_have_forgotten(&mut self, run: &str) -> bool {
        if run.is_empty() || self.run.as_deref() == Some(run) {
            return self.epoch.is_none();
        }
        self.run = Some(run.into());
        true
    }

    fn make_others_stale(&mut self, node: NodeId, lease_end: u64, known: &[NodeId]) {
        let buried = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.dead);
        let others = self.leases.keys().filter(|id| **id != node && !buried(id));
        self.stale.extend(others.copied().collect::<Vec<_>>());
        for &known in known {
            if let Entry::Vacant(vacant) = self.leases.entry(known) {
                vacant.insert(lease_end);
                self.stale.insert(known);
            }
        }
    }

    /// Whether others have made batches in this epoch while none of them knew the node.
    fn has_missed(&self, id: NodeId) -> bool {
        let mut others = self.leases.keys().filter_map(|other| self.nodes.get(other)?.batched);
        !self.leases.contains_key(&id) && others.any(|Batched { base, done }| done > base)
    }

    /// Makes a node known. The epoch and the time of the answer are not set.
    fn introduce(&mut self, id: NodeId, entrance: &Entrance) -> Entered {
        let (has_inbox, has_missed) = (self.inboxes.contains_key(&id), self.has_missed(id));
        let node = self.node(id);
        let cut = node.cut || (node.unread > 0 && !has_inbox);
        if cut {
            node.unread = 0;
        }
        let Letters { unknown, cut, buried, missed } = Letters {
            unknown: node.owed.unknown || node.batched.is_none(),
            cut: node.owed.cut || cut,
            buried: node.owed.buried || node.dead,
            missed: node.owed.missed || has_missed,
        };
        node.owed = Letters { unknown, cut, buried, missed };
        if cut || unknown {
            node.read = 0;
        }
        (node.cut, node.dead) = (false, false);
        let base = entrance.base;
        let known = node.batched.filter(|batched| batched.done >= base);
        let batched = known.unwrap_or(Batched { base, done: base });
        node.batched = Some(batched);
        node.address = entrance.address.clone();
        let (epoch, done) = ("".into(), batched.done);
        Entered { epoch, done, unknown, cut, buried, missed, now_ms: 0 }
    }

    /// The hash of a node, made if there is none.
    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.entry(id).or_default()
    }

    fn forget_expired_events(&mut self, now_ms: u64) {
        self.events.retain(|_, (_, expires_ms)| *expires_ms > now_ms);
    }

    /// Whether leases are not to be trusted, because nobody could renew them.
    fn stood_still(&self, now_ms: u64) -> bool {
        self.tended_ms.is_none_or(|tended| now_ms.saturating_sub(tended) > STANDSTILL_MS)
    }
}

impl<'a> Call<'a> {
    fn new(model: &'a mut Model, head: &'a CallHead, now_ms: u64) -> Self {
        Self {
            model,
            head,
            now_ms,
            records: BTreeMap::new(),
            burials: BURIALS,
            answers: BTreeMap::new(),
            member_bytes: 0,
            withheld: false,
        }
    }

    /// Executes the commands. Returns the encoded records for each node.
    fn execute(mut self, args: &[Bytes]) -> BTreeMap<NodeId, Vec<u8>> {
        let mut args = Listed(args.iter());
        while let Some(verb) = args.next() {
            self.run(&verb, &mut args);
        }
        if self.withheld && self.model.stale.is_empty() {
            self.tell_own(&Record::Settled);
        }
        self.records
    }

    /// Executes a command. One that cannot be read does nothing: Redis would end the call with an
    /// error.
    fn run(&mut self, verb: &[u8], args: &mut Listed<'_>) -> Option<()> {
        match verb {
            b"join" => self.join(&args.channel()?, args.number()?, JoinFlags::of(&args.next()?)),
            b"leave" => self.leave(&args.channel()?, JoinFlags::of(&args.next()?)),
            b"count" => self.count(&args.channel()?, args.number()?),
            b"enter" => {
                let (channel, user_id) = (args.channel()?, args.text()?);
                let member = MemberText::from_text(args.next()?);
                self.enter(
                    &channel,
                    &user_id,
                    member,
                    args.number()?,
                    JoinFlags::of(&args.next()?),
                );
            }
            b"part" => self.part(&args.channel()?, &args.text()?, JoinFlags::of(&args.next()?)),
            b"publish" => {
                let (channel, record) = (args.channel()?, args.next()?);
                self.publish(&channel, &record);
            }
            b"retain" => self.retain(args.channel()?, args.number()?, args.next()?),
            b"keep" => self.keep(&args.channel()?, args.number()?, args.next()?),
            b"online" => self.online(&args.user()?),
            b"offline" => self.offline(&args.user()?),
            b"watch" => self.watch(&args.user()?),
            b"unwatch" => self.unwatch(&args.user()?),
            b"state" => self.state(&args.channel()?, args.number()?, &args.next()?),
            b"users" => self.users(&args.channel()?, args.number()?),
            b"ask" => self.ask(args.number()?, &args.next()?),
            b"answer" => self.answer(args.node()?, args.number()?, args.next()?),
            b"tend" => {
                let (read_id, read_bytes) = (args.text()?, args.number()?);
                self.tend(&read_id, read_bytes, args.flag()?, args.text()?);
            }
            b"ready" => self.ready(),
            b"bury" => self.bury(args.node()?),
            b"quit" => self.quit(),
            b"permits" => self.permits(&args.text()?, args.number()?, args.number()?),
            b"return" => self.give_back(&args.text()?, args.number()?),
            _ => return None,
        }
        Some(())
    }

    fn tell(&mut self, node: NodeId, record: &Record) {
        self.tell_encoded(node, &record.encode());
    }

    fn tell_encoded(&mut self, node: NodeId, record: &[u8]) {
        self.records.entry(node).or_default().extend_from_slice(record);
    }

    fn tell_own(&mut self, record: &Record) {
        self.tell(self.head.node, record);
    }

    fn tell_all(&mut self, nodes: impl IntoIterator<Item = NodeId>, record: &Record) {
        let record = record.encode();
        for node in nodes {
            self.tell_encoded(node, &record);
        }
    }

    /// The registrations of the calling node that leave with its lease.
    fn marks(&mut self) -> &mut BTreeSet<Mark> {
        self.model.marks.entry(self.head.node).or_default()
    }
}
