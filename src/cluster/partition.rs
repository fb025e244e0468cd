//! One partition as this node sees it: the stream of commands to Redis, and the inbox.
//!
//! Commands wait in the [`backlog`], and go out as [`batches`], one call at a time: what comes
//! meanwhile is the next batch. Chores that may be executed twice (the lease, registrations anew,
//! burials) are calls of their own. The [`inbox`] passes every entry on once.

mod backlog;
mod batches;
mod burials;
mod inbox;
mod membership;
mod outcome;
mod registering;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::wire::{Batched, CallKind, Command, Entered, NodeId, Record};
use crate::channels::ReplyTo;
use crate::time::Millis;

use backlog::Backlog;
use batches::{Batches, is_fleeting};
use burials::Burials;
use inbox::{Earlier, Inbox};
use membership::Membership;
use registering::Registering;
use stage::{Sent, Stage};

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
    membership: Membership,
    stage: Stage,
    /// Whether homes may have subscribers, because the node has served or had another name.
    has_subscribers: bool,
    /// Whether its last call follows when everything else was executed.
    quits: bool,
    backlog: Backlog,
    batches: Batches,
    inbox: Inbox,
    registering: Registering,
    burials: Burials,
    /// The time at which the last call that was answered was sent: the answer may have waited for a
    /// process that stood still, while the lease ran from the call on.
    answered: Millis,
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

impl Partition {
    /// A partition that was not entered yet.
    pub(crate) fn new(node: NodeId, bounds: Bounds, apps: Box<str>, now: Millis) -> Self {
        // A node that was cut off for longer than its retention comes under a new name.
        let remember_for = bounds.retention + 3 * bounds.lease;
        Self {
            bounds,
            node,
            membership: Membership::Stranger { former: None },
            stage: Stage::Outside { since: now, served: false },
            has_subscribers: false,
            quits: false,
            backlog: Backlog::default(),
            batches: Batches::new(2 * bounds.lease, bounds.keep_bytes),
            inbox: Inbox::new(remember_for, bounds.inbox_bytes),
            registering: Registering::default(),
            burials: Burials::default(),
            answered: now,
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
        self.membership.epoch().unwrap_or_default()
    }

    /// The number before the first batch that can be repeated, for the introduction.
    pub(crate) fn base(&self) -> u64 {
        self.batches.base()
    }

    /// The time since which commands do not reach Redis; `None` while they do.
    pub(crate) const fn away_since(&self) -> Option<Millis> {
        self.stage.away_since()
    }

    /// Whether the node has entered, with the connection that it has now.
    pub(crate) const fn has_entered(&self) -> bool {
        matches!(self.stage, Stage::Entering { .. } | Stage::Serving(_))
    }

    /// The bytes of commands that were not executed.
    pub(crate) const fn waiting_bytes(&self) -> usize {
        self.backlog.bytes() + self.batches.pending_bytes()
    }

    /// The time since which the node is not in; `None` while it is, even if it has not registered
    /// everything.
    pub(crate) fn outside_since(&self) -> Option<Millis> {
        self.away_since().filter(|_| !self.has_entered())
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
        if let Some(session) = self.stage.session_mut() {
            session.tend_due = now;
        }
    }

    /// Has the node leave the partition when Redis has executed everything that was pushed.
    pub(crate) const fn quit(&mut self) {
        self.quits = true;
    }

    /// Whether the node has left the partition, and is not to enter it again.
    pub(crate) const fn has_quit(&self) -> bool {
        matches!(self.stage, Stage::Left)
    }

    /// Whether Redis has executed everything that was pushed, and the last call if there is one.
    pub(crate) fn is_settled(&self) -> bool {
        (self.has_quit() || !self.quits)
            && self.backlog.is_empty()
            && self.batches.is_settled()
            && self.stage.session().is_none_or(|session| session.sent.is_none())
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
        if node != self.node {
            self.burials.push(node);
        }
    }

    /// Takes the answer to an introduction. `founded`: the epoch is one that this node has offered.
    pub(crate) fn entered(&mut self, entered: Entered, founded: bool, now: Millis) -> Admission {
        let Entered { epoch, done, unknown, cut, buried, missed, .. } = entered;
        let is_member = self.membership.epoch().is_some();
        let known = self.membership.epoch() == Some(&epoch);
        // Others publish without a node that has been silent for so long, and keep events for less.
        if unknown && is_member && now.since(self.answered) > self.survives() {
            return Admission::Buried;
        }
        self.answered = now;
        let emptied = unknown && self.membership.last_epoch().is_some_and(|last| *last != *epoch);
        if emptied && is_member {
            self.inbox.forgotten();
        }
        self.inbox.entered(unknown || cut);
        let confirmed = self.batches.entered(done, self.inbox.heard(self.node), now);
        self.backlog.drop_all(is_fleeting);
        let (register, cut_off) = match &self.membership {
            // Nothing was registered under this name; what a former one had is not known any more.
            Membership::Stranger { former } => {
                (former.is_some(), former.as_ref().is_some_and(|former| former.cut_off))
            }
            Membership::Member { .. } => {
                // A node that did not serve since it last entered is only reminded.
                let served = matches!(self.stage, Stage::Outside { served: true, .. });
                let forgotten = unknown || cut || buried || self.batches.repeating();
                (forgotten, cut || (missed && (served || !known)))
            }
        };
        // Homes that have ended have nothing to register.
        let register = register && !self.quits;
        if register {
            self.registering.clear();
            self.batches.forgotten_ends().into_iter().for_each(|end| self.registering.push(end));
        }
        self.registering.drop_claims();
        let (batch, registration) = (done, self.last_chore);
        self.inbox.entered_behind(Earlier { node: self.node, batch, registration });
        let cut_off = cut_off && self.has_subscribers;
        let waits = emptied || (founded && !known);
        self.membership.enter(epoch, waits.then(|| now + OTHERS_ENTER));
        self.stage.enter(now);
        Admission::In { register, emptied, cut_off, confirmed }
    }

    /// Takes a new name. What was never sent stays if `keep`. Returns the publishers whose events
    /// are dropped. `cut_off`: messages may be lost.
    pub(crate) fn rename(
        &mut self,
        node: NodeId,
        keep: bool,
        cut_off: bool,
        now: Millis,
    ) -> Vec<ReplyTo> {
        self.lost(now);
        self.node = node;
        self.membership.rename(cut_off);
        self.has_subscribers = true;
        self.inbox.renamed();
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

    /// Returns the publishers who have waited since before `limit`, and who repeat their events
    /// when they are told. An event arrives all the same only if Redis executes a call that was
    /// sent before.
    pub(crate) fn expire(&mut self, limit: Millis) -> Expired {
        let mut publishers = self.batches.expire(limit);
        let Expired { publishers: unsent, dropped } = self.backlog.expire(limit);
        publishers.extend(unsent);
        Expired { publishers, dropped }
    }

    /// Notes that the connection has ended, or that the node has to enter again.
    pub(crate) fn lost(&mut self, now: Millis) {
        self.stage.lose(&mut self.registering, now);
    }

    /// The next call, unless an answer is due or there is nothing to do.
    pub(crate) fn next_call(&mut self, now: Millis) -> Option<Call> {
        let (sent, call) = self.due_call(now)?;
        self.stage.session_mut()?.sent = Some((sent, now));
        Some(call)
    }

    /// The time at which [`next_call`](Self::next_call) has something by the clock alone.
    pub(crate) fn due(&self) -> Option<Millis> {
        let session = self.stage.session()?;
        session.sent.is_none().then_some(session.tend_due)
    }

    /// Notes that the call was executed.
    pub(crate) fn executed(&mut self, now: Millis) -> Outcome {
        let sent = self.stage.session_mut().and_then(|session| session.sent.take());
        let Some((sent, sent_at)) = sent else { return Outcome::default() };
        self.answered = sent_at;
        match sent {
            Sent::Batch => Outcome { confirmed: self.batches.executed(now), returned: None },
            Sent::Ready => Outcome { confirmed: Vec::new(), returned: self.serve(now) },
            Sent::Quit => {
                self.stage = Stage::Left;
                Outcome::default()
            }
            Sent::Chore => {
                // A quiet node would repeat what is long known when Redis is emptied.
                self.batches.forget(now);
                Outcome::default()
            }
            Sent::Registrations(_) => Outcome::default(),
        }
    }

    /// The entrance is complete.
    fn serve(&mut self, now: Millis) -> Option<Returned> {
        let away = self.stage.serve().map_or(Duration::ZERO, |since| now.since(since));
        let repeated = std::mem::take(&mut self.repeated_since);
        let again = std::mem::replace(&mut self.has_subscribers, true);
        again.then_some(Returned { away, repeated })
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

    /// The call that is due now.
    fn due_call(&mut self, now: Millis) -> Option<(Sent, Call)> {
        let session = self.stage.session_mut().filter(|session| session.sent.is_none())?;
        if now >= session.tend_due || self.inbox.has_much_to_tell() {
            session.tend_due = now + TEND_PERIOD;
            let tend = self.inbox.tend(self.takes_departures, self.apps.clone());
            return Some((Sent::Chore, self.repeatable(&[tend])));
        }
        if let Some(registrations) = self.registering.take(CALL_COMMANDS_MAX, CALL_BYTES_MAX) {
            let call = self.repeatable(&registrations);
            return Some((Sent::Registrations(registrations), call));
        }
        if self.registering.is_owed() || !self.membership.has_begun(now) {
            return None;
        }
        self.next_batch()
    }

    /// The batches to repeat, then the news.
    fn next_batch(&mut self) -> Option<(Sent, Call)> {
        let repeated = self.batches.next().is_some();
        if !repeated {
            if !matches!(self.stage, Stage::Serving(_)) {
                return Some((Sent::Ready, self.repeatable(&[Command::Ready])));
            }
            if let Some(dead) = self.burials.next() {
                return Some((Sent::Chore, self.repeatable(&[Command::Bury(dead)])));
            }
            self.batches.make(self.backlog.take(CALL_COMMANDS_MAX, CALL_BYTES_MAX));
        }
        let Some(batch) = self.batches.next() else {
            let quits = self.quits && self.backlog.is_empty();
            return quits.then(|| (Sent::Quit, self.repeatable(&[Command::Quit])));
        };
        let (number, args) = (batch.number, Arc::clone(&batch.args));
        if repeated {
            self.repeated_since += 1;
            self.repeated += 1;
        }
        Some((Sent::Batch, Call { kind: CallKind::Batch, number, args }))
    }

    /// A call that may be executed twice. It gets a new number each time, so that the records of
    /// both are read.
    fn repeatable(&mut self, commands: &[Command]) -> Call {
        let mut args = Vec::new();
        commands.iter().for_each(|command| command.push_args(&mut args));
        self.last_chore += 1;
        Call { kind: CallKind::Registration, number: self.last_chore, args: args.into() }
    }
}

#[cfg(test)]
mod tests;
