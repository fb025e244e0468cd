//! The batches of a partition: the one whose answer is due, and the executed ones that are kept to
//! be repeated if Redis forgets them.
//!
//! A batch that is repeated does not do everything once more. Redis would decide anew: it could
//! admit a user whom it had refused, and the node skips answers that it has read before. So the
//! node registers what it has, and then repeats its events and the ends of what it does not have any
//! more.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::backlog::Waiting;
use crate::channels::ReplyTo;
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
    /// The arguments of the commands that are not repeated in any case.
    commands: Vec<Words>,
    /// The publishers who wait for it, each with the time since when.
    confirms: Vec<(ReplyTo, Millis)>,
    weight: usize,
}

/// The arguments of a command, verb included.
#[derive(Clone, Debug)]
struct Words {
    range: Range<usize>,
    repeat: Repeat,
}

/// Whether a command is executed once more when Redis has forgotten it, or when the node enters
/// anew before it was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It is an event.
    Always,
    /// It begins or changes something of the node: it is part of the registration if it lasts, and
    /// otherwise ends with a later command.
    Beginning(Subject),
    /// It ends something of the node. Redis may still have it, and needs to hear the last end.
    End(Subject),
    /// It is [fleeting](is_fleeting).
    Never,
}

/// The registrations that commands begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// The node in a channel.
    Channel,
    /// A user of the node in a channel.
    Member,
    /// A user of the node.
    User,
    /// A user whom the node watches.
    Watched,
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
        if let Some(batch) = &mut self.pending {
            batch.drop_fleeting();
        }
        let executed = self.pending.take_if(|batch| batch.number <= done.max(heard));
        let confirmed = executed.map_or_else(Vec::new, |batch| self.keep(batch, now));
        self.reduce();
        confirmed
    }

    /// Reduces the batches that Redis has forgotten to what is to be repeated of them.
    fn reduce(&mut self) {
        let mut later = HashSet::new();
        let done = self.done;
        for kept in self.kept.iter_mut().rev().take_while(|kept| kept.batch.number > done) {
            kept.batch.reduce(&mut later);
        }
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
    /// It may be executed all the same.
    pub(super) fn expire(&mut self, limit: Millis) -> Vec<ReplyTo> {
        let confirms = self.pending.iter_mut().flat_map(|batch| {
            batch.confirms.extract_if(.., |&mut (_, since)| since < limit).map(|(to, _)| to)
        });
        confirms.collect()
    }

    /// Begins anew under another name, with nothing. A batch that was sent may have been executed,
    /// and under another name nobody would notice that it comes twice. Returns the publishers who
    /// waited for it.
    pub(super) fn renew(&mut self) -> Vec<ReplyTo> {
        let dropped = self.pending.take();
        let crowded_out = self.crowded_out;
        *self = Self { crowded_out, ..Self::new(self.keep_for, self.keep_bytes) };
        dropped.into_iter().flat_map(|batch| batch.confirms).map(|(to, _)| to).collect()
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
        let confirmed = std::mem::take(&mut batch.confirms);
        batch.drop_fleeting();
        self.kept_bytes += batch.weight;
        self.kept.push_back(Kept { batch, executed: now });
        self.forget(now);
        confirmed.into_iter().map(|(to, _)| to).collect()
    }
}

impl Batch {
    fn new(number: u64, commands: Vec<Waiting>) -> Self {
        let mut args = Vec::new();
        let (mut words, mut confirms, mut weight) = (Vec::new(), Vec::new(), BATCH_BYTES);
        for Waiting { command, confirm } in commands {
            let start = args.len();
            command.push_args(&mut args);
            let repeat = Repeat::of(&command);
            if repeat != Repeat::Always {
                words.push(Words { range: start..args.len(), repeat });
            }
            weight += command.weight();
            confirms.extend(confirm);
        }
        Self { number, args: args.into(), commands: words, confirms, weight }
    }

    /// Drops the commands that must not be executed once more even if nothing was executed.
    fn drop_fleeting(&mut self) {
        self.retain(|words| words.repeat != Repeat::Never);
    }

    /// Drops the commands that are not repeated, because of a registration or of commands that come
    /// `later`, to which those of this batch are added.
    fn reduce(&mut self, later: &mut HashSet<(Subject, Vec<Bytes>)>) {
        let mut lasting = HashSet::new();
        for words in self.commands.iter().rev() {
            let (subject, ends) = match words.repeat {
                Repeat::Beginning(subject) => (subject, false),
                Repeat::End(subject) => (subject, true),
                Repeat::Always | Repeat::Never => continue,
            };
            let args = self.args.get(words.range.clone()).unwrap_or_default();
            if later.insert((subject, subject.names(args))) && ends {
                lasting.insert(words.range.start);
            }
        }
        self.retain(|words| lasting.contains(&words.range.start));
    }

    /// Drops the arguments of the commands for which `keeps` does not hold.
    fn retain(&mut self, keeps: impl Fn(&Words) -> bool) {
        if self.commands.iter().all(&keeps) {
            return;
        }
        let (mut args, mut end) = (Vec::with_capacity(self.args.len()), 0);
        for mut words in std::mem::take(&mut self.commands) {
            args.extend_from_slice(self.args.get(end..words.range.start).unwrap_or_default());
            end = words.range.end;
            if keeps(&words) {
                let start = args.len();
                args.extend_from_slice(self.args.get(words.range).unwrap_or_default());
                words.range = start..args.len();
                self.commands.push(words);
            }
        }
        args.extend_from_slice(self.args.get(end..).unwrap_or_default());
        self.args = args.into();
    }
}

impl Repeat {
    const fn of(command: &Command) -> Self {
        match command {
            Command::Publish { .. } | Command::Keep(..) => Self::Always,
            Command::Join(..) | Command::Count(..) => Self::Beginning(Subject::Channel),
            Command::Leave(..) => Self::End(Subject::Channel),
            Command::Enter { .. } => Self::Beginning(Subject::Member),
            Command::Part(..) => Self::End(Subject::Member),
            Command::Online(_) => Self::Beginning(Subject::User),
            Command::Offline(_) => Self::End(Subject::User),
            Command::Watch(_) => Self::Beginning(Subject::Watched),
            Command::Unwatch(_) => Self::End(Subject::Watched),
            Command::State { .. }
            | Command::Users(..)
            | Command::Ask(..)
            | Command::Answer(..)
            | Command::Tend { .. }
            | Command::Ready
            | Command::Bury(_)
            | Command::Quit
            | Command::Permits { .. }
            | Command::Return { .. } => Self::Never,
        }
    }
}

impl Subject {
    /// The arguments of a command that name its subject: those behind the verb.
    fn names(self, words: &[Bytes]) -> Vec<Bytes> {
        let names = if self == Self::Member { 2 } else { 1 };
        words.iter().skip(1).take(names).cloned().collect()
    }
}

/// Whether a command is of no use once it has been executed, or once the node enters anew: who
/// misses an answer is told that there is none, and the permits that a node holds are claimed at
/// its entrance. A change of them from before would make the claim wrong.
pub(super) const fn is_fleeting(command: &Command) -> bool {
    matches!(Repeat::of(command), Repeat::Never)
}

/// The record of a batch beside its commands.
const BATCH_BYTES: usize = size_of::<Kept>();
