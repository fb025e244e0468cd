//! One partition as this node sees it: the stream of commands to Redis, and the inbox.
//!
//! Commands wait in the [`backlog`], and go out as [`batches`], one call at a time: what comes
//! meanwhile is the next batch. Chores that may be executed twice (the lease, registrations anew,
//! burials) are calls of their own. The [`inbox`] passes every entry on once.

mod backlog;
mod batches;
mod inbox;
mod outcome;
mod registering;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::wire::{Batched, CallKind, Command, Entered, NodeId, Record};
use crate::channels::ReplyTo;
use crate::time::Millis;

use backlog::Backlog;
use batches::{Batches, is_fleeting};
use inbox::Inbox;
use registering::Registering;

pub(crate) use backlog::Expired;
pub(crate) use outcome::{Admission, Call, Outcome, Returned};

/// The most commands of a call. Redis executes some hundred thousand of them per second, so that a
/// call stalls it for a few milliseconds.
const CALL_COMMANDS_MAX: usize = 1000;

/// The most bytes of a call, but for a single command that has more.
const CALL_BYTES_MAX: usize = 4 << 20;

/// The interval at which the lease is renewed and the inbox trimmed. A lease lasts for several.
const TEND_PERIOD: Duration = Duration::from_secs(1);

/// The time that nodes leave to each other to enter a Redis that was empty: each of them tends in
/// it, and enters at once when it learns that it has to. The batches before would pass those by of
/// which no node knew yet.
const OTHERS_ENTER: Duration = TEND_PERIOD.saturating_mul(2);

/// The bounds of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The duration of a lease.
    pub(crate) lease: Duration,
    /// The time for which the inbox of a silent node is kept behind its lease.
    pub(crate) retention: Duration,
    /// The bytes of executed batches that are kept at most.
    pub(crate) keep_bytes: usize,
    /// The unread bytes past which Redis cuts the inbox.
    pub(crate) inbox_bytes: u64,
}

/// The state machine of a partition.
///
/// It begins away from Redis. The owner of the connection introduces the node
/// ([`Node::introduction`](super::node::Node::introduction)) and calls [`entered`](Self::entered)
/// with the answer. From then on it sends the calls that [`next_call`](Self::next_call) returns,
/// reports each by [`executed`](Self::executed), and hands what it reads behind
/// [`position`](Self::position) to [`read`](Self::read). When the connection ends, or a call is
/// answered by the wish that the node enter again, it calls [`lost`](Self::lost) and begins again
/// with an introduction. Commands are pushed at any time.
#[derive(Debug)]
pub(crate) struct Partition {
    bounds: Bounds,
    /// The name of this node in the partition.
    node: NodeId,
    /// The epoch as of the last entrance under this name.
    epoch: Option<Box<str>>,
    /// The time since which commands do not reach Redis; `None` while they do.
    away_since: Option<Millis>,
    /// Whether the node has entered, with the connection that it has now.
    entered: bool,
    /// Whether [`Command::Ready`] was executed since the entrance.
    ready: bool,
    /// Whether it ever was.
    was_ready: bool,
    /// The part of an entrance that homes have to hear of, when the node enters under a new name.
    renewed: Option<Renewal>,
    backlog: Backlog,
    batches: Batches,
    inbox: Inbox,
    registering: Registering,
    /// Nodes to bury.
    dead: VecDeque<NodeId>,
    /// Whether the last call was a burial: then batches are next.
    buried_last: bool,
    /// The time at which the lease is to be renewed.
    tend_due: Millis,
    /// The time before which no batch is sent.
    begins: Millis,
    /// The time at which the last call that was answered was sent: the answer may have waited for a
    /// process that stood still, while the lease ran from the call on.
    answered: Millis,
    /// The time at which the last call was sent.
    sent_at: Millis,
    /// The call whose answer is due.
    sent: Option<Sent>,
    /// The end of the node in the partition.
    quitting: Quitting,
    /// Whether the node tells webhooks of departures.
    takes_departures: bool,
    /// The fingerprint of the apps.
    apps: Box<str>,
    /// The number of the last call of the kind [`CallKind::Registration`].
    last_chore: u64,
    /// The calls that were sent again since the node was last ready.
    repeated_since: u64,
    /// The calls that were sent again so far.
    repeated: u64,
}

/// The end of a node that stops in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Quitting {
    /// The node serves.
    #[default]
    No,
    /// Its last call follows when everything else was executed.
    Due,
    /// Its last call was executed.
    Done,
}

/// A node enters under a new name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Renewal {
    /// The epoch as of the last entrance under another name.
    epoch: Option<Box<str>>,
    /// Whether messages may be lost.
    cut_off: bool,
}

/// A call whose answer is due.
#[derive(Debug)]
enum Sent {
    /// A lease or a burial, which is due again by itself.
    Chore,
    /// Registrations.
    Registrations(Vec<Command>),
    /// The end of an entrance.
    Ready,
    /// The last call.
    Quit,
    /// The next batch.
    Batch,
}

impl Partition {
    /// A partition that was not entered yet.
    pub(crate) fn new(node: NodeId, bounds: Bounds, apps: Box<str>, now: Millis) -> Self {
        // A node that was cut off for longer than its retention comes under a new name.
        let remember_for = bounds.retention + 3 * bounds.lease;
        Self {
            bounds,
            node,
            epoch: None,
            away_since: Some(now),
            entered: false,
            ready: false,
            was_ready: false,
            renewed: None,
            backlog: Backlog::default(),
            batches: Batches::new(2 * bounds.lease, bounds.keep_bytes),
            inbox: Inbox::new(remember_for, bounds.inbox_bytes),
            registering: Registering::default(),
            dead: VecDeque::new(),
            buried_last: false,
            tend_due: now,
            begins: now,
            answered: now,
            sent_at: now,
            sent: None,
            quitting: Quitting::No,
            takes_departures: true,
            apps,
            last_chore: 0,
            repeated_since: 0,
            repeated: 0,
        }
    }

    /// The name of the node.
    pub(crate) const fn node(&self) -> NodeId {
        self.node
    }

    /// The epoch as of the last entrance; empty before the first.
    pub(crate) fn epoch(&self) -> &str {
        self.epoch.as_deref().unwrap_or_default()
    }

    /// The number before the first batch that can be repeated, for the introduction.
    pub(crate) fn base(&self) -> u64 {
        self.batches.base()
    }

    /// The time since which commands do not reach Redis; `None` while they do.
    pub(crate) const fn away_since(&self) -> Option<Millis> {
        self.away_since
    }

    /// Whether the node has entered, with the connection that it has now.
    pub(crate) const fn has_entered(&self) -> bool {
        self.entered
    }

    /// The bytes of commands that were not executed.
    pub(crate) const fn waiting_bytes(&self) -> usize {
        self.backlog.bytes() + self.batches.pending_bytes()
    }

    /// The time since which the node is not in; `None` while it is, even if it has not registered
    /// everything.
    pub(crate) fn outside_since(&self) -> Option<Millis> {
        self.away_since.filter(|_| !self.entered)
    }

    /// The numbers of unreadable entries and records, and of entries of another version.
    pub(crate) const fn junk(&self) -> (u64, u64) {
        self.inbox.junk()
    }

    /// The batches that could not be kept for as long as Redis may forget them, so far.
    pub(crate) const fn crowded_out(&self) -> u64 {
        self.batches.crowded_out()
    }

    /// The calls that were sent again so far.
    pub(crate) const fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Leaves departures to other nodes from now on, because the node is about to stop.
    pub(crate) const fn leave_departures(&mut self) {
        self.takes_departures = false;
    }

    /// Tells Redis of other apps.
    pub(crate) fn adopt(&mut self, apps: Box<str>, now: Millis) {
        self.apps = apps;
        self.tend_due = now;
    }

    /// Has the node leave the partition when Redis has executed everything that was pushed.
    pub(crate) fn quit(&mut self) {
        if self.quitting == Quitting::No {
            self.quitting = Quitting::Due;
        }
    }

    /// Whether the node has left the partition, and is not to enter it again.
    pub(crate) fn has_quit(&self) -> bool {
        self.quitting == Quitting::Done
    }

    /// Whether Redis has executed everything that was pushed, and the last call if there is one.
    pub(crate) fn is_settled(&self) -> bool {
        self.quitting != Quitting::Due
            && self.backlog.is_empty()
            && self.batches.is_settled()
            && self.sent.is_none()
    }

    /// Takes a command for one of the next batches. `confirm` is a publisher who waits for it.
    pub(crate) fn push(&mut self, command: Command, confirm: Option<ReplyTo>, now: Millis) {
        self.backlog.push(command, confirm, now);
    }

    /// Takes a command that registers something anew.
    pub(crate) fn register(&mut self, command: Command) {
        self.registering.push(command);
    }

    /// Expects an answer of so many shards, and lets batches wait until all have answered. Returns
    /// whether they are to be asked now: otherwise they still answer an earlier question.
    pub(crate) const fn ask_shards(&mut self, shards: usize) -> bool {
        self.registering.ask(shards)
    }

    /// Notes the last part of a shard's answer. Returns whether shards are to be asked once more.
    pub(crate) fn registered(&mut self) -> bool {
        self.registering.answered()
    }

    /// Takes out another node, step by step.
    pub(crate) fn bury(&mut self, node: NodeId) {
        if !self.dead.contains(&node) && node != self.node {
            self.dead.push_back(node);
        }
    }

    /// Takes the answer to an introduction. `founded`: the epoch is one that this node has offered.
    pub(crate) fn entered(&mut self, entered: Entered, founded: bool, now: Millis) -> Admission {
        let Entered { epoch, done, unknown, cut, buried, missed, .. } = entered;
        let known = self.epoch.as_ref() == Some(&epoch);
        // Others publish without a node that has been silent for so long, and keep events for less.
        let silent = now.since(self.answered) > self.survives();
        if unknown && silent && self.epoch.is_some() {
            return Admission::Buried;
        }
        self.answered = now;
        let (earlier, renewed) = (self.epoch.replace(epoch.clone()), self.renewed.take());
        let former = renewed.as_ref().and_then(|renewed| renewed.epoch.as_ref());
        let emptied = unknown && earlier.as_ref().or(former).is_some_and(|last| *last != epoch);
        if emptied || (founded && !known) {
            self.begins = now + OTHERS_ENTER;
        }
        if emptied && earlier.is_some() {
            self.inbox.forgotten();
        }
        // A node that was not ready since it last entered is only reminded.
        let missed = missed && (self.ready || !known);
        self.inbox.entered(unknown || cut);
        let confirmed = self.batches.entered(done, self.inbox.heard(self.node), now);
        self.backlog.drop_all(is_fleeting);
        (self.entered, self.ready, self.tend_due) = (true, false, now);
        let register = match earlier {
            // Nothing was registered under this name; what a former one had is not known any more.
            None => renewed.is_some(),
            Some(_) => unknown || cut || buried || self.batches.repeating(),
        };
        // Homes that have ended have nothing to register.
        let register = register && self.quitting == Quitting::No;
        if register {
            self.registering.clear();
            self.batches.forgotten_ends().into_iter().for_each(|end| self.registering.push(end));
        }
        let lost = cut || missed;
        let cut_off = (lost && earlier.is_some()) || renewed.is_some_and(|renewed| renewed.cut_off);
        Admission::In { register, emptied, cut_off, confirmed }
    }

    /// Takes a new name. What was never sent stays if `keep`. Returns the publishers whose events
    /// are dropped. `cut_off`: messages may be lost.
    pub(crate) fn rename(&mut self, node: NodeId, keep: bool, cut_off: bool) -> Vec<ReplyTo> {
        self.node = node;
        let former = self.renewed.take().and_then(|renewed| renewed.epoch);
        self.renewed = Some(Renewal { epoch: self.epoch.take().or(former), cut_off });
        self.inbox.renamed();
        self.lose_call();
        self.entered = false;
        self.registering.clear();
        let mut dropped = self.batches.renew();
        if !keep {
            let waiting = self.backlog.drain().into_iter();
            dropped.extend(waiting.filter_map(|waiting| waiting.confirm).map(|(to, _)| to));
        }
        dropped
    }

    /// Takes out the commands that wait, with the publishers who wait for them.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Command, Option<ReplyTo>)> + use<> {
        let waiting = self.backlog.drain().into_iter();
        waiting.map(|waiting| (waiting.command, waiting.confirm.map(|(to, _)| to)))
    }

    /// Returns the publishers who have waited since before `limit`. An event whose call was not
    /// sent is dropped; the others may arrive all the same.
    pub(crate) fn expire(&mut self, limit: Millis) -> Expired {
        let mut publishers = self.batches.expire(limit);
        let Expired { publishers: unsent, dropped } = self.backlog.expire(limit);
        publishers.extend(unsent);
        Expired { publishers, dropped }
    }

    /// Notes that the connection has ended, or that the node has to enter again.
    pub(crate) fn lost(&mut self, now: Millis) {
        self.lose_call();
        self.entered = false;
        self.away_since.get_or_insert(now);
    }

    /// The next call, unless an answer is due or there is nothing to do.
    pub(crate) fn next_call(&mut self, now: Millis) -> Option<Call> {
        if !self.entered || self.sent.is_some() || self.quitting == Quitting::Done {
            return None;
        }
        self.sent_at = now;
        if now >= self.tend_due || self.inbox.has_much_to_tell() {
            self.tend_due = now + TEND_PERIOD;
            let tend = self.inbox.tend(self.takes_departures, self.apps.clone());
            return Some(self.chore(&tend, Sent::Chore));
        }
        if let Some(registrations) = self.registering.take(CALL_COMMANDS_MAX, CALL_BYTES_MAX) {
            let call = self.repeatable(&registrations);
            self.sent = Some(Sent::Registrations(registrations));
            return Some(call);
        }
        if self.registering.is_owed() || now < self.begins {
            return None;
        }
        self.next_batch()
    }

    /// The time at which [`next_call`](Self::next_call) has something by the clock alone.
    pub(crate) fn due(&self) -> Option<Millis> {
        (self.entered && self.sent.is_none()).then_some(self.tend_due)
    }

    /// Notes that the call was executed.
    pub(crate) fn executed(&mut self, now: Millis) -> Outcome {
        self.answered = self.sent_at;
        match self.sent.take() {
            Some(Sent::Batch) => Outcome { confirmed: self.batches.executed(now), returned: None },
            Some(Sent::Ready) => {
                self.ready = true;
                let away = self.away_since.take().map_or(Duration::ZERO, |since| now.since(since));
                let repeated = std::mem::take(&mut self.repeated_since);
                let again = std::mem::replace(&mut self.was_ready, true);
                let returned = again.then_some(Returned { away, repeated });
                Outcome { confirmed: Vec::new(), returned }
            }
            Some(Sent::Quit) => {
                self.quitting = Quitting::Done;
                Outcome::default()
            }
            Some(Sent::Chore) => {
                // A quiet node would repeat what is long known when Redis is emptied.
                self.batches.forget(now);
                Outcome::default()
            }
            Some(Sent::Registrations(_)) | None => Outcome::default(),
        }
    }

    /// The id of the entry to read behind.
    pub(crate) fn position(&self) -> &str {
        self.inbox.position()
    }

    /// Takes entries of the inbox with their ids. Returns the records that are new.
    pub(crate) fn read(&mut self, entries: Vec<(Box<str>, Bytes)>, now: Millis) -> Vec<Record> {
        self.inbox.read(entries, now)
    }

    /// Takes the list of all nodes. Returns whether messages may be lost.
    pub(crate) fn tended(
        &mut self,
        nodes: impl Iterator<Item = (NodeId, Option<Batched>)>,
        now: Millis,
    ) -> bool {
        let others = nodes.filter(|&(node, _)| node != self.node);
        self.inbox.tended(others.chain([(self.node, None)]), now)
    }

    /// The other nodes of which this one has heard, and which have not gone.
    pub(crate) fn known(&self) -> impl Iterator<Item = NodeId> {
        self.inbox.known().iter().copied().filter(|&node| node != self.node)
    }

    /// The silence for which Redis is certain to remember the node, unless it has lost its data.
    /// The lease was renewed before the last answer, by at most the time between two renewals.
    fn survives(&self) -> Duration {
        (self.bounds.lease + self.bounds.retention).saturating_sub(2 * TEND_PERIOD)
    }

    /// The batches to repeat, then the news.
    fn next_batch(&mut self) -> Option<Call> {
        let repeated = self.batches.next().is_some();
        if !repeated {
            if !self.ready {
                return Some(self.chore(&Command::Ready, Sent::Ready));
            }
            // Burials and batches take turns, because a burial is long.
            self.buried_last = !self.buried_last && !self.dead.is_empty();
            if self.buried_last
                && let Some(dead) = self.dead.pop_front()
            {
                return Some(self.chore(&Command::Bury(dead), Sent::Chore));
            }
            self.batches.make(self.backlog.take(CALL_COMMANDS_MAX, CALL_BYTES_MAX));
        }
        let Some(batch) = self.batches.next() else {
            let quits = self.quitting == Quitting::Due && self.backlog.is_empty();
            return quits.then(|| self.chore(&Command::Quit, Sent::Quit));
        };
        let (number, args) = (batch.number, Arc::clone(&batch.args));
        if repeated {
            self.repeated_since += 1;
            self.repeated += 1;
        }
        self.sent = Some(Sent::Batch);
        Some(Call { kind: CallKind::Batch, number, args })
    }

    fn chore(&mut self, command: &Command, sent: Sent) -> Call {
        self.sent = Some(sent);
        self.repeatable(std::slice::from_ref(command))
    }

    /// A call that may be executed twice. It gets a new number each time, so that the records of
    /// both are read.
    fn repeatable(&mut self, commands: &[Command]) -> Call {
        let mut args = Vec::new();
        commands.iter().for_each(|command| command.push_args(&mut args));
        self.last_chore += 1;
        Call { kind: CallKind::Registration, number: self.last_chore, args: args.into() }
    }

    /// Puts what was sent back, because its answer will not come.
    fn lose_call(&mut self) {
        match self.sent.take() {
            Some(Sent::Registrations(commands)) => self.registering.put_back(commands),
            // It would have to enter again only to say it again. Otherwise the others bury it.
            Some(Sent::Quit) => self.quitting = Quitting::Done,
            Some(Sent::Chore | Sent::Ready | Sent::Batch) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
