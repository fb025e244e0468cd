//! The batches of a partition: the one whose answer is due, and the executed ones that are kept to
//! be repeated if Redis forgets them.
//!
//! Only events are repeated. What else commands had begun is part of the registration if it lasts:
//! Redis would decide anew, and admit a user whom it had refused. What they had ended is registered
//! as well, because Redis may still have it.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::backlog::Waiting;
use crate::channels::{ChannelPath, ReplyTo, UserPath};
use crate::cluster::wire::Command;
use crate::time::Millis;

/// Batches in the order of their numbers, which have no gaps.
#[derive(Debug)]
pub(super) struct Batches {
    /// The time for which an executed batch is kept, counted up to the last answer of Redis: while
    /// it is away, none is dropped.
    keep_for: Duration,
    /// The bytes that are kept at most.
    keep_bytes: usize,
    /// Executed batches, oldest first.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The batch that was made last, until it is known to be executed.
    pending: Option<Batch>,
    /// The number of the batch that was made last.
    last: u64,
    /// The highest number that Redis is known to have executed.
    done: u64,
    /// The batches that were dropped before their time, because others needed their bytes.
    crowded_out: u64,
}

/// A batch that can be sent.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// Its number.
    pub(super) number: u64,
    /// Its commands as arguments.
    pub(super) args: Arc<[Bytes]>,
    /// The commands that may be dropped from it.
    parts: Vec<Part>,
    weight: usize,
}

/// A command that may be dropped from a batch.
#[derive(Clone, Debug)]
struct Part {
    /// Its arguments, verb included, while the batch has them.
    range: Range<usize>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// An event whose publisher has waited since then for an answer.
    Awaited(ReplyTo, Millis),
    /// An event whose publisher was refused.
    Refused,
    /// A command that changes what Redis has of the node.
    Change(Change),
    /// A command that [is fleeting](is_fleeting).
    Fleeting,
}

/// The effect of a command on what Redis has of the node.
#[derive(Clone, Debug)]
enum Change {
    /// Something begins, or becomes another.
    Begins(Subject),
    /// The command ends something.
    Ends(Command),
}

/// Something that Redis has of the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// The node in a channel.
    Channel(ChannelPath),
    /// A user of the node in a channel.
    Member(ChannelPath, Box<str>),
    /// A user of the node.
    User(UserPath),
    /// A user whom the node watches.
    Watched(UserPath),
}

#[derive(Debug)]
struct Kept {
    batch: Batch,
    executed: Millis,
}

impl Batches {
    pub(super) fn new(keep_for: Duration, keep_bytes: usize) -> Self {
        Self {
            keep_for,
            keep_bytes,
            kept: VecDeque::new(),
            kept_bytes: 0,
            pending: None,
            last: 0,
            done: 0,
            crowded_out: 0,
        }
    }

    /// The batch that Redis has to execute next, if one was made.
    pub(super) fn next(&self) -> Option<&Batch> {
        if self.repeating() {
            let index = usize::try_from(self.done - self.base()).ok()?;
            return self.kept.get(index).map(|kept| &kept.batch);
        }
        self.pending.as_ref()
    }

    /// Whether Redis has forgotten batches that were executed.
    pub(super) fn repeating(&self) -> bool {
        self.kept.back().is_some_and(|kept| kept.batch.number > self.done)
    }

    /// Makes the next batch, if there is none that was not executed.
    pub(super) fn make(&mut self, commands: Vec<Waiting>) {
        if self.pending.is_none() && !commands.is_empty() {
            self.last += 1;
            self.pending = Some(Batch::new(self.last, commands));
        }
    }

    /// The number before the first batch that can be repeated.
    pub(super) fn base(&self) -> u64 {
        let pending = self.pending.as_ref().map_or(self.last, |batch| batch.number - 1);
        self.kept.front().map_or(pending, |kept| kept.batch.number - 1)
    }

    /// Notes which batches Redis has executed, at an entrance. Another Redis had executed those up
    /// to `heard`, as the inbox has told. Returns the publishers who waited for one whose answer
    /// was lost.
    pub(super) fn entered(&mut self, done: u64, heard: u64, now: Millis) -> Vec<ReplyTo> {
        if done > self.last {
            // No number of this node: the numbers go on behind it, and no batch before it counts.
            self.last = done;
            (self.kept, self.kept_bytes) = (VecDeque::new(), 0);
        }
        self.done = done.max(self.base());
        let executed = self.pending.take_if(|batch| batch.number <= done.max(heard));
        if let Some(batch) = &mut self.pending {
            batch.drop_parts(|kind| matches!(kind, Kind::Fleeting | Kind::Refused));
        }
        executed.map_or_else(Vec::new, |batch| self.keep(batch, now))
    }

    /// The commands that have ended what Redis may still have, because it has forgotten them.
    pub(super) fn forgotten_ends(&self) -> Vec<Command> {
        let (mut ends, mut later) = (Vec::new(), HashSet::new());
        let forgotten = self.kept.iter().rev().take_while(|kept| kept.batch.number > self.done);
        for part in forgotten.flat_map(|kept| kept.batch.parts.iter().rev()) {
            let Kind::Change(change) = &part.kind else { continue };
            match change {
                Change::Begins(subject) => _ = later.insert(subject.clone()),
                Change::Ends(command) => {
                    let subject = Subject::of(command);
                    if subject.is_some_and(|subject| later.insert(subject)) {
                        ends.push(command.clone());
                    }
                }
            }
        }
        ends
    }

    /// Notes that the [next](Self::next) batch was executed. Returns the publishers who waited for
    /// it.
    pub(super) fn executed(&mut self, now: Millis) -> Vec<ReplyTo> {
        if self.repeating() {
            let index = usize::try_from(self.done - self.base()).unwrap_or(usize::MAX);
            if let Some(kept) = self.kept.get_mut(index) {
                kept.executed = now;
            }
            self.done += 1;
            return Vec::new();
        }
        let Some(batch) = self.pending.take() else { return Vec::new() };
        self.done = batch.number;
        self.keep(batch, now)
    }

    /// Returns the publishers who have waited since before `limit` for a batch whose answer is due.
    /// It may be executed all the same. If the next entrance tells that it was not, it goes on
    /// without their events, which they repeat.
    pub(super) fn expire(&mut self, limit: Millis) -> Vec<ReplyTo> {
        let parts = self.pending.iter_mut().flat_map(|batch| &mut batch.parts);
        let overdue = parts.filter_map(|part| match part.kind {
            Kind::Awaited(publisher, since) if since < limit => {
                part.kind = Kind::Refused;
                Some(publisher)
            }
            _ => None,
        });
        overdue.collect()
    }

    /// Begins anew under another name, with nothing. A batch that was sent may have been executed,
    /// and under another name nobody would notice that it comes twice. Returns the publishers who
    /// waited for it.
    pub(super) fn renew(&mut self) -> Vec<ReplyTo> {
        let dropped = self.pending.take();
        let crowded_out = self.crowded_out;
        *self = Self { crowded_out, ..Self::new(self.keep_for, self.keep_bytes) };
        dropped.map_or_else(Vec::new, |batch| batch.publishers().collect())
    }

    /// The weight of the batch that was not executed, in bytes.
    pub(super) const fn pending_bytes(&self) -> usize {
        match &self.pending {
            Some(batch) => batch.weight,
            None => 0,
        }
    }

    /// The batches that could not be kept for as long as Redis may forget them, so far.
    pub(super) const fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// Whether Redis has executed everything.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_none() && !self.repeating()
    }

    /// Drops the batches that were executed for long enough before `now`, at which Redis answers.
    pub(super) fn forget(&mut self, now: Millis) {
        while let Some(first) = self.kept.front()
            && first.batch.number <= self.done
        {
            let old = now.since(first.executed) > self.keep_for;
            if !old && self.kept_bytes <= self.keep_bytes {
                break;
            }
            self.crowded_out += u64::from(!old);
            self.kept_bytes -= first.batch.weight;
            self.kept.pop_front();
        }
    }

    fn keep(&mut self, mut batch: Batch, now: Millis) -> Vec<ReplyTo> {
        let confirmed = batch.publishers().collect();
        batch.keep_events();
        self.kept_bytes += batch.weight;
        self.kept.push_back(Kept { batch, executed: now });
        self.forget(now);
        confirmed
    }
}

impl Batch {
    fn new(number: u64, commands: Vec<Waiting>) -> Self {
        let mut args = Vec::new();
        let (mut parts, mut weight) = (Vec::new(), BATCH_BYTES);
        for Waiting { command, confirm } in commands {
            let start = args.len();
            command.push_args(&mut args);
            if let Some(kind) = Kind::of(&command, confirm) {
                parts.push(Part { range: start..args.len(), kind });
            }
            weight += command.weight();
        }
        Self { number, args: args.into(), parts, weight }
    }

    /// The publishers who wait for it.
    fn publishers(&self) -> impl Iterator<Item = ReplyTo> {
        self.parts.iter().filter_map(|part| match part.kind {
            Kind::Awaited(publisher, _) => Some(publisher),
            _ => None,
        })
    }

    /// Drops everything but events. The changes of the others are remembered.
    fn keep_events(&mut self) {
        self.drop_args(|kind| matches!(kind, Kind::Change(_) | Kind::Fleeting));
        self.parts.retain(|part| matches!(part.kind, Kind::Change(_)));
    }

    /// Drops the commands for whose kind `drops` holds.
    fn drop_parts(&mut self, drops: impl Fn(&Kind) -> bool) {
        self.drop_args(&drops);
        self.parts.retain(|part| !drops(&part.kind));
    }

    /// Drops the arguments of the commands for whose kind `drops` holds.
    fn drop_args(&mut self, drops: impl Fn(&Kind) -> bool) {
        if !self.parts.iter().any(|part| drops(&part.kind)) {
            return;
        }
        let (mut args, mut end) = (Vec::with_capacity(self.args.len()), 0);
        for part in &mut self.parts {
            args.extend_from_slice(self.args.get(end..part.range.start).unwrap_or_default());
            let (start, range) = (args.len(), part.range.clone());
            end = range.end;
            if !drops(&part.kind) {
                args.extend_from_slice(self.args.get(range).unwrap_or_default());
            }
            part.range = start..args.len();
        }
        args.extend_from_slice(self.args.get(end..).unwrap_or_default());
        self.args = args.into();
    }
}

impl Kind {
    /// The kind of a command, an event if a publisher waits for it; `None` if it always stays.
    fn of(command: &Command, publisher: Option<(ReplyTo, Millis)>) -> Option<Self> {
        match (publisher, Change::of(command)) {
            (Some((publisher, since)), _) => Some(Self::Awaited(publisher, since)),
            (None, Some(change)) => Some(Self::Change(change)),
            (None, None) => is_fleeting(command).then_some(Self::Fleeting),
        }
    }
}

impl Change {
    fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::Leave(..) | Command::Part(..) | Command::Offline(_) | Command::Unwatch(_) => {
                Self::Ends(command.clone())
            }
            _ => Self::Begins(Subject::of(command)?),
        })
    }
}

impl Subject {
    /// The subject of a command; `None` if the command [is fleeting](is_fleeting) or an event.
    fn of(command: &Command) -> Option<Self> {
        Some(match command {
            Command::Join(channel, ..)
            | Command::Count(channel, _)
            | Command::Leave(channel, _) => Self::Channel(channel.clone()),
            Command::Enter { channel, user_id, .. } | Command::Part(channel, user_id, _) => {
                Self::Member(channel.clone(), user_id.clone())
            }
            Command::Online(user) | Command::Offline(user) => Self::User(user.clone()),
            Command::Watch(user) | Command::Unwatch(user) => Self::Watched(user.clone()),
            Command::Publish { .. }
            | Command::Keep(..)
            | Command::State { .. }
            | Command::Users(..)
            | Command::Ask(..)
            | Command::Answer(..)
            | Command::Tend { .. }
            | Command::Ready
            | Command::Bury(_)
            | Command::Quit
            | Command::Permits { .. }
            | Command::Return { .. } => return None,
        })
    }
}

/// Whether a command is of no use once it has been executed, or once the node enters anew: who
/// misses an answer is told that there is none, and the permits that a node holds are claimed at
/// its entrance. A change of them from before would make the claim wrong.
pub(super) fn is_fleeting(command: &Command) -> bool {
    let event = matches!(command, Command::Publish { .. } | Command::Keep(..));
    !event && Change::of(command).is_none()
}

/// The record of a batch beside its commands.
const BATCH_BYTES: usize = size_of::<Kept>();
