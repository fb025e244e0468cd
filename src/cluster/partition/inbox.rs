//! The reading side of a partition: entries go in, and those that are new come out as records.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::wire::{Batched, CallKind, Command, Entry, EntryError, NodeId, Record};
use crate::time::Millis;

/// The most origins whose numbers are remembered, each with two kinds of calls: far more than the
/// nodes of a cluster, and some hundred kilobytes.
const SEEN_MAX: usize = 8192;

/// The share of the bound, as a divisor, that is read before Redis is told of it early. The rest is
/// for what comes until it has heard.
const UNTOLD_SHARE: u64 = 8;

/// The inbox of the node, as far as it was read.
///
/// Redis may hold an entry twice: a call is repeated when Redis has forgotten it, and entries are
/// read again after an entrance. So the highest number of each origin and kind of call is
/// remembered. A number that is not higher has been read: the calls of an origin are executed in
/// the order of their numbers, and each makes at most one entry.
///
/// Most batches of a node have nothing for this one. So the list of all nodes tells of each the
/// number of its last batch: this node has read what that and earlier ones had for it, and takes
/// nothing of them any more. If Redis forgets batches that their node cannot repeat, the list tells
/// that too, and then this node may lack something.
#[derive(Debug)]
pub(super) struct Inbox {
    /// The time for which an origin is remembered that no list of nodes has.
    remember_for: Duration,
    /// The id of the last entry that was read since the entrance; empty before the first.
    position: Box<str>,
    /// The id of the last entry whose bytes were counted.
    counted: (u64, u64),
    /// The bytes of all entries since the inbox was made.
    read_bytes: u64,
    /// The bytes of which Redis was told that they are read.
    told_bytes: u64,
    /// The unread bytes past which Redis cuts the inbox.
    bound_bytes: u64,
    /// The highest numbers that were read.
    seen: HashMap<(NodeId, CallKind), Seen>,
    /// The nodes of the last list, and those of whom something came since.
    known: BTreeSet<NodeId>,
    /// Whether Redis was emptied since the node took its name: then it may lack batches of nodes
    /// that no list has named yet.
    forgotten: bool,
    /// The calls of the node before its last entrance; `None` before the first.
    earlier: Option<Earlier>,
    /// Entries and records that could not be read so far.
    junk: u64,
    /// Entries of another version so far.
    foreign: u64,
}

/// The calls of a node before an entrance: the numbers of the last ones that Redis may have
/// executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earlier {
    pub(super) node: NodeId,
    pub(super) batch: u64,
    pub(super) registration: u64,
}

impl Earlier {
    fn has(&self, entry: &Entry) -> bool {
        let last = match entry.kind {
            CallKind::Batch => self.batch,
            CallKind::Registration => self.registration,
        };
        entry.origin == self.node && entry.number <= last
    }
}

#[derive(Debug)]
struct Seen {
    number: u64,
    /// The number up to which nothing is missing; `None` before a list has told of it.
    whole: Option<u64>,
    /// The time at which the origin was last known to be a node.
    listed: Millis,
}

impl Inbox {
    pub(super) fn new(remember_for: Duration, bound_bytes: u64) -> Self {
        Self {
            remember_for,
            position: Box::default(),
            counted: (0, 0),
            read_bytes: 0,
            told_bytes: 0,
            bound_bytes,
            seen: HashMap::new(),
            known: BTreeSet::new(),
            forgotten: false,
            earlier: None,
            junk: 0,
            foreign: 0,
        }
    }

    /// Begins to read from the beginning, because Redis may have other entries than before. With
    /// `empty`, the inbox was made anew.
    pub(super) fn entered(&mut self, empty: bool) {
        self.position = Box::default();
        if empty {
            (self.counted, self.read_bytes) = ((0, 0), 0);
        }
    }

    /// Notes the calls before an entrance. The node claims its permits anew, so no answer about
    /// permits to an earlier call is read any more: by such a number, connections could use
    /// permits that were returned since.
    pub(super) const fn entered_behind(&mut self, earlier: Earlier) {
        self.earlier = Some(earlier);
    }

    /// Notes that Redis was emptied.
    pub(super) const fn forgotten(&mut self) {
        self.forgotten = true;
    }

    /// Notes that the node goes on under another name, from which on it lacks nothing.
    pub(super) fn renamed(&mut self) {
        self.forgotten = false;
        self.seen.values_mut().for_each(|seen| seen.whole = None);
    }

    /// Takes entries with their ids, in their order. Returns the records of those that are new.
    pub(super) fn read(&mut self, entries: Vec<(Box<str>, Bytes)>, now: Millis) -> Vec<Record> {
        let mut records = Vec::new();
        for (id, field) in entries {
            self.count(&id, field.len());
            self.position = id;
            match Entry::decode(field) {
                Ok(entry) if self.is_new(&entry, now) => {
                    let earlier = self.earlier.is_some_and(|earlier| earlier.has(&entry));
                    for record in entry.records() {
                        self.junk += u64::from(record.is_none());
                        let outdated = earlier && matches!(record, Some(Record::Permits(..)));
                        records.extend(record.filter(|_| !outdated));
                    }
                }
                Ok(_) => {}
                Err(EntryError::Version(_)) => self.foreign += 1,
                Err(EntryError::Form) => self.junk += 1,
            }
        }
        records
    }

    /// Takes the list of all nodes, and forgets origins that were in no list for long. Returns
    /// whether batches are lost that had something for this node, or may have had.
    pub(super) fn tended(
        &mut self,
        nodes: impl Iterator<Item = (NodeId, Option<Batched>)>,
        now: Millis,
    ) -> bool {
        let mut lost = false;
        self.known.clear();
        for (node, batched) in nodes {
            self.known.insert(node);
            lost |= batched.is_some_and(|batched| self.batched(node, batched, now));
            for kind in [CallKind::Batch, CallKind::Registration] {
                if let Some(seen) = self.seen.get_mut(&(node, kind)) {
                    seen.listed = now;
                }
            }
        }
        self.seen.retain(|_, seen| now.since(seen.listed) <= self.remember_for);
        lost
    }

    /// The highest number of a batch of which something was read.
    pub(super) fn heard(&self, origin: NodeId) -> u64 {
        self.seen.get(&(origin, CallKind::Batch)).map_or(0, |seen| seen.number)
    }

    /// The nodes of which this one has heard, and which have not gone.
    pub(super) const fn known(&self) -> &BTreeSet<NodeId> {
        &self.known
    }

    /// The id to read behind.
    pub(super) fn position(&self) -> &str {
        if self.position.is_empty() { "0" } else { &self.position }
    }

    /// Whether so much was read since Redis was told that it could cut the inbox before the lease
    /// is renewed: for Redis, everything is unread until it is told.
    pub(super) const fn has_much_to_tell(&self) -> bool {
        // Behind an entrance, fewer bytes may be read than were told before.
        self.read_bytes.saturating_sub(self.told_bytes) > self.bound_bytes / UNTOLD_SHARE
    }

    /// The command that tells Redis how far the inbox was read.
    pub(super) fn tend(&mut self, departures: bool, apps: Box<str>) -> Command {
        self.told_bytes = self.read_bytes;
        let (read_id, read_bytes) = (self.position.clone(), self.read_bytes);
        Command::Tend { read_id, read_bytes, departures, apps }
    }

    /// The numbers of unreadable entries and records, and of entries of another version.
    pub(super) const fn junk(&self) -> (u64, u64) {
        (self.junk, self.foreign)
    }

    /// Counts the bytes of an entry once, however often it is read.
    fn count(&mut self, id: &str, bytes: usize) {
        let id = id.split_once('-').and_then(|(ms, n)| Some((ms.parse().ok()?, n.parse().ok()?)));
        if let Some(id) = id.filter(|&id| id > self.counted) {
            self.counted = id;
            self.read_bytes += bytes as u64;
        }
    }

    /// Notes the batches that Redis has executed of a node. Returns whether this one lacks some.
    fn batched(&mut self, node: NodeId, batched: Batched, now: Millis) -> bool {
        let Batched { base, done } = batched;
        let unnamed = if self.forgotten { 0 } else { base };
        let seen = self.seen(node, CallKind::Batch, now);
        let whole = seen.whole.unwrap_or(unnamed);
        seen.whole = Some(whole.max(done));
        seen.number = seen.number.max(done);
        base > whole
    }

    fn is_new(&mut self, entry: &Entry, now: Millis) -> bool {
        let Entry { origin, kind, number, .. } = *entry;
        let seen = self.seen(origin, kind, now);
        // Numbers begin with 1.
        let is_new = number > seen.number;
        seen.number = seen.number.max(number);
        if is_new && self.known.len() < SEEN_MAX {
            self.known.insert(origin);
        }
        is_new
    }

    /// The numbers of an origin and a kind of call.
    fn seen(&mut self, origin: NodeId, kind: CallKind, now: Millis) -> &mut Seen {
        let key = (origin, kind);
        if self.seen.len() >= SEEN_MAX
            && !self.seen.contains_key(&key)
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, seen)| seen.listed)
        {
            let oldest = *oldest.0;
            self.seen.remove(&oldest);
        }
        self.seen.entry(key).or_insert(Seen { number: 0, whole: None, listed: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1000);
    const REMEMBER: Duration = Duration::from_secs(70);

    fn entry(origin: u128, kind: CallKind, number: u64) -> Bytes {
        let record = Record::Dead(NodeId(number.into()));
        let records = record.encode();
        Entry { origin: NodeId(origin), kind, number, records }.encode()
    }

    /// Reads entries of one origin; returns the numbers that were new.
    fn read(inbox: &mut Inbox, entries: &[(&str, Bytes)]) -> Vec<u128> {
        let entries = entries.iter().map(|(id, field)| (Box::from(*id), field.clone())).collect();
        let records = inbox.read(entries, NOW).into_iter();
        let number = |record| match record {
            Record::Dead(node) => node.0,
            other => panic!("{other:?}"),
        };
        records.map(number).collect()
    }

    #[test]
    fn each_number_of_an_origin_and_kind_is_read_once() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        let batch = |number| entry(1, CallKind::Batch, number);
        let entries = [("1-0", batch(1)), ("1-1", batch(3)), ("2-0", batch(2)), ("2-1", batch(3))];
        assert_eq!(read(&mut inbox, &entries), [1, 3]);
        let others =
            [("3-0", entry(2, CallKind::Batch, 1)), ("3-1", entry(1, CallKind::Registration, 1))];
        assert_eq!(read(&mut inbox, &others), [1, 1]);
        inbox.entered(false);
        assert_eq!(inbox.position(), "0");
        assert_eq!(read(&mut inbox, &entries), [0_u128; 0]);
        assert_eq!(inbox.position(), "2-1");
    }

    #[test]
    fn answers_about_permits_to_calls_before_the_entrance_are_not_read() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        let earlier = Earlier { node: NodeId(1), batch: 4, registration: 9 };
        inbox.entered_behind(earlier);
        let permits = |held| Record::Permits("app".into(), held);
        for (origin, kind, number, read) in [
            (1, CallKind::Batch, 4, false),
            (1, CallKind::Registration, 9, false),
            (2, CallKind::Batch, 3, true),
            (1, CallKind::Registration, 10, true),
            (1, CallKind::Batch, 5, true),
        ] {
            let records = [permits(7).encode(), Record::Settled.encode()].concat();
            let entry = Entry { origin: NodeId(origin), kind, number, records: records.into() };
            let expected =
                if read { vec![permits(7), Record::Settled] } else { vec![Record::Settled] };
            let entries = vec![("1-0".into(), entry.encode())];
            assert_eq!(inbox.read(entries, NOW), expected, "{origin} {kind:?} {number}");
        }
    }

    #[test]
    fn bytes_are_counted_once_until_the_inbox_is_another_one() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        let [first, second] = [1, 2].map(|number| entry(1, CallKind::Batch, number));
        let len = first.len() as u64;
        read(&mut inbox, &[("5-1", first.clone()), ("5-10", second.clone())]);
        inbox.entered(false);
        let tend = |read_id: &str, read_bytes| Command::Tend {
            read_id: read_id.into(),
            read_bytes,
            departures: true,
            apps: "apps".into(),
        };
        assert_eq!(
            inbox.tend(true, "apps".into()),
            tend("", 2 * len),
            "nothing of this session is trimmed yet"
        );
        read(&mut inbox, &[("5-1", first), ("5-10", second.clone()), ("6-0", second.clone())]);
        assert_eq!(inbox.tend(true, "apps".into()), tend("6-0", 3 * len));
        inbox.entered(true);
        read(&mut inbox, &[("4-0", second)]);
        assert_eq!(inbox.tend(true, "apps".into()), tend("4-0", len));
    }

    #[test]
    fn junk_and_other_versions_are_counted_and_passed_over() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        let good = entry(1, CallKind::Batch, 1);
        let mut other = good.to_vec();
        other[0] = 9;
        let mut cut = entry(1, CallKind::Batch, 2).to_vec();
        cut.pop();
        let entries = [
            ("1-0", Bytes::new()),
            ("1-1", other.into()),
            ("1-2", good),
            ("none", Bytes::from_static(b"\x01xyz")),
            ("1-4", cut.into()),
        ];
        assert_eq!(read(&mut inbox, &entries), [1]);
        assert_eq!(inbox.junk(), (3, 1));
    }

    fn batched(base: u64, done: u64) -> Option<Batched> {
        Some(Batched { base, done })
    }

    #[test]
    fn batches_that_a_list_tells_of_are_not_read_afterwards() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        assert!(!inbox.tended([(NodeId(1), batched(0, 4))].into_iter(), NOW));
        let entries = [3, 4, 5].map(|number| ("1-0", entry(1, CallKind::Batch, number)));
        assert_eq!(read(&mut inbox, &entries), [5]);
        assert!(!inbox.tended([(NodeId(1), batched(0, 3))].into_iter(), NOW));
        assert_eq!(read(&mut inbox, &entries), [0_u128; 0]);
    }

    #[test]
    fn a_base_behind_what_is_known_of_a_node_is_a_loss_and_told_once() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        let lost = |inbox: &mut Inbox, node, base, done| {
            inbox.tended([(NodeId(node), batched(base, done))].into_iter(), NOW)
        };
        assert!(!lost(&mut inbox, 1, 5, 9), "of the time before this node");
        assert!(!lost(&mut inbox, 1, 9, 12));
        assert!(lost(&mut inbox, 1, 13, 13) && !lost(&mut inbox, 1, 13, 13));
        assert!(!lost(&mut inbox, 2, 5, 5), "a node that came from an emptied Redis");
        inbox.forgotten();
        assert!(lost(&mut inbox, 3, 1, 1) && !lost(&mut inbox, 4, 0, 1));
        read(&mut inbox, &[("1-0", entry(5, CallKind::Batch, 7))]);
        assert!(lost(&mut inbox, 5, 6, 7), "those before the one that was read may be lost");
        inbox.renamed();
        assert!(!lost(&mut inbox, 1, 20, 20) && !lost(&mut inbox, 6, 20, 20));
    }

    #[test]
    fn nodes_of_whom_something_came_are_known_until_a_list_lacks_them() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        inbox.tended([(NodeId(1), None)].into_iter(), NOW);
        let ready = entry(2, CallKind::Registration, 1);
        read(&mut inbox, &[("1-0", ready.clone())]);
        assert_eq!(inbox.known().iter().copied().collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
        inbox.tended([(NodeId(1), None)].into_iter(), NOW);
        read(&mut inbox, &[("1-0", ready)]);
        assert_eq!(inbox.known().len(), 1, "an entry that is read again tells nothing");
    }

    #[test]
    fn origins_that_are_no_nodes_any_more_are_forgotten_in_the_end() {
        let mut inbox = Inbox::new(REMEMBER, u64::MAX);
        read(
            &mut inbox,
            &[("1-0", entry(1, CallKind::Batch, 5)), ("1-1", entry(2, CallKind::Batch, 5))],
        );
        for second in 1..=71 {
            inbox.tended([(NodeId(1), None)].into_iter(), NOW + Duration::from_secs(second));
        }
        assert_eq!(inbox.seen.len(), 1);
        for origin in 0..SEEN_MAX as u128 + 10 {
            read(&mut inbox, &[("2-0", entry(origin, CallKind::Batch, 5))]);
        }
        assert_eq!(inbox.seen.len(), SEEN_MAX);
    }
}
