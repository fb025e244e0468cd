//! The commands of a partition that wait for the next batch.

use std::collections::{HashMap, VecDeque};

use crate::channels::{ChannelPath, ReplyTo, UserPath};
use crate::cluster::wire::Command;
use crate::time::Millis;

/// Commands in the order in which they came. Of some commands only the newest is of interest: it
/// takes the place of an earlier one that still waits.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Waiting commands; `None` stands for one that has expired.
    waiting: VecDeque<Option<Waiting>>,
    /// The number of the first of them. Each command has the number of the one before and one.
    first: u64,
    /// The weight of all.
    bytes: usize,
    /// The numbers of waiting commands that a newer one may replace.
    replaceable: HashMap<Subject, u64>,
    /// The waiting events, with the times at which they came.
    events: VecDeque<(u64, Millis)>,
}

/// The events that have waited for too long.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The publishers who waited for them.
    pub(crate) publishers: Vec<ReplyTo>,
    /// The number of those for which nobody waited.
    pub(crate) dropped: u64,
}

/// A command that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The command.
    pub(super) command: Command,
    /// The publisher who waits for it, and since when.
    pub(super) confirm: Option<(ReplyTo, Millis)>,
}

/// The subject of a command that a newer one replaces.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// The number of subscriptions of a channel.
    Count(ChannelPath),
    /// Whether the node has connections of a user.
    Connected(UserPath),
    /// Whether the node watches a user.
    Watched(UserPath),
}

impl Backlog {
    /// Takes a command. `confirm` is the publisher who waits for it.
    pub(super) fn push(&mut self, command: Command, confirm: Option<ReplyTo>, now: Millis) {
        let number = self.first + self.waiting.len() as u64;
        match Subject::of(&command) {
            Some(subject) => {
                let earlier = self.replaceable.get(&subject).copied();
                if let Some(waiting) = earlier.and_then(|earlier| self.numbered(earlier)) {
                    waiting.command = command;
                    return;
                }
                self.replaceable.insert(subject, number);
            }
            None => self.close(&command),
        }
        self.bytes += command.weight();
        let confirm = confirm.map(|reply_to| (reply_to, now));
        if confirm.is_some() || matches!(command, Command::Publish { .. }) {
            self.events.push_back((number, now));
        }
        self.waiting.push_back(Some(Waiting { command, confirm }));
    }

    /// Takes out the first commands: at most `most`, of at most `bytes` but at least one.
    pub(super) fn take(&mut self, most: usize, bytes: usize) -> Vec<Waiting> {
        let mut taken = Vec::new();
        let mut weight = 0;
        while taken.len() < most {
            let next = self.waiting.front().map(|next| next.as_ref().map(Waiting::weight));
            let Some(next) = next else { break };
            if !taken.is_empty() && weight + next.unwrap_or(0) > bytes {
                break;
            }
            weight += next.unwrap_or(0);
            taken.extend(self.pop());
        }
        taken
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> Vec<Waiting> {
        self.take(usize::MAX, usize::MAX)
    }

    /// Drops the commands for which `drops` holds.
    pub(super) fn drop_all(&mut self, drops: impl Fn(&Command) -> bool) {
        for place in &mut self.waiting {
            if let Some(waiting) = place.take_if(|waiting| drops(&waiting.command)) {
                self.bytes -= waiting.weight();
            }
        }
    }

    /// Drops the events that have waited since before `limit`.
    pub(super) fn expire(&mut self, limit: Millis) -> Expired {
        let mut expired = Expired::default();
        while let Some(&(number, since)) = self.events.front()
            && since < limit
        {
            self.events.pop_front();
            let index = number.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
            let waiting =
                index.and_then(|index| self.waiting.get_mut(index)).and_then(Option::take);
            let Some(waiting) = waiting else { continue };
            self.bytes -= waiting.weight();
            match waiting.confirm {
                Some((publisher, _)) => expired.publishers.push(publisher),
                None => expired.dropped += 1,
            }
        }
        expired
    }

    /// The weight of all waiting commands, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A join or a leave stands between the counts before and behind it, so none of those behind it
    /// replaces one before it.
    fn close(&mut self, command: &Command) {
        if let Command::Join(channel, ..) | Command::Leave(channel, _) = command {
            self.replaceable.remove(&Subject::Count(channel.clone()));
        }
    }

    fn numbered(&mut self, number: u64) -> Option<&mut Waiting> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(index)?.as_mut()
    }

    /// Removes the first command; `None` if it has expired.
    fn pop(&mut self) -> Option<Waiting> {
        let number = self.first;
        let waiting = self.waiting.pop_front()?;
        self.first += 1;
        if self.events.front().is_some_and(|&(first, _)| first == number) {
            self.events.pop_front();
        }
        let waiting = waiting?;
        self.bytes -= waiting.weight();
        if let Some(subject) = Subject::of(&waiting.command)
            && self.replaceable.get(&subject) == Some(&number)
        {
            self.replaceable.remove(&subject);
        }
        Some(waiting)
    }
}

impl Waiting {
    fn weight(&self) -> usize {
        self.command.weight()
    }
}

impl Subject {
    fn of(command: &Command) -> Option<Self> {
        match command {
            Command::Count(channel, _) => Some(Self::Count(channel.clone())),
            Command::Online(user) | Command::Offline(user) => Some(Self::Connected(user.clone())),
            Command::Watch(user) | Command::Unwatch(user) => Some(Self::Watched(user.clone())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::JoinFlags;
    use crate::frame::Frame;
    use crate::id::ShardId;

    const NOW: Millis = Millis(1000);

    fn channel(name: &str) -> ChannelPath {
        ChannelPath::new("app", name)
    }

    fn taken(backlog: &mut Backlog) -> Vec<Command> {
        backlog.drain().into_iter().map(|waiting| waiting.command).collect()
    }

    #[test]
    fn of_the_counts_of_a_channel_the_newest_waits_in_the_place_of_the_first() {
        let mut backlog = Backlog::default();
        let leave = Command::Leave(channel("b"), JoinFlags::default());
        let counts = [("a", 1), ("b", 1), ("a", 2), ("b", 2)];
        for (name, count) in counts {
            backlog.push(Command::Count(channel(name), count), None, NOW);
        }
        backlog.push(leave.clone(), None, NOW);
        backlog.push(Command::Count(channel("b"), 3), None, NOW);
        let [a, b, last] = [("a", 2), ("b", 2), ("b", 3)]
            .map(|(name, count)| Command::Count(channel(name), count));
        assert_eq!(taken(&mut backlog), [a, b, leave, last]);
        assert_eq!((backlog.bytes(), backlog.replaceable.len()), (0, 0));
    }

    #[test]
    fn of_the_steps_of_a_user_the_last_of_each_kind_waits() {
        let mut backlog = Backlog::default();
        let user = UserPath::new("app", "ann");
        let [online, offline] = [Command::Online(user.clone()), Command::Offline(user.clone())];
        let watch = Command::Watch(user);
        for command in [&online, &watch, &offline, &online, &offline] {
            backlog.push(command.clone(), None, NOW);
        }
        assert_eq!(taken(&mut backlog), [offline, watch]);
        backlog.push(online.clone(), None, NOW);
        assert_eq!(taken(&mut backlog), [online], "what was taken is not replaced");
    }

    #[test]
    fn publishes_that_waited_too_long_are_taken_out_and_the_rest_keeps_its_order() {
        let mut backlog = Backlog::default();
        let reply = |request| ReplyTo { shard: ShardId(0), request, index: 0 };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Command::Count(channel(name), 1));
        backlog.push(a.clone(), None, NOW);
        backlog.push(b, Some(reply(1)), NOW);
        backlog.push(c.clone(), None, NOW);
        backlog.push(d.clone(), Some(reply(2)), Millis(2000));
        assert_eq!(backlog.expire(NOW), Expired::default());
        let expired = Expired { publishers: vec![reply(1)], dropped: 0 };
        assert_eq!(backlog.expire(Millis(1001)), expired);
        let weight = a.weight() + c.weight() + d.weight();
        assert_eq!(backlog.bytes(), weight);
        assert_eq!(taken(&mut backlog), [a, c, d]);
        assert!(backlog.is_empty() && backlog.expire(Millis(9000)) == Expired::default());
    }

    #[test]
    fn client_events_expire_too_and_are_counted() {
        let mut backlog = Backlog::default();
        let frame = Frame::text(1, |out| out.extend(b"x"));
        let (except, retained) = (None, None);
        let event = Command::Publish { channel: channel("a"), frame, except, retained };
        backlog.push(event.clone(), None, NOW);
        backlog.push(Command::Count(channel("a"), 1), None, NOW);
        backlog.push(event.clone(), None, Millis(2000));
        let expired = Expired { publishers: Vec::new(), dropped: 1 };
        assert_eq!(backlog.expire(Millis(1500)), expired);
        assert_eq!(taken(&mut backlog), [Command::Count(channel("a"), 1), event]);
    }

    #[test]
    fn a_batch_is_bounded_in_commands_and_bytes() {
        let mut backlog = Backlog::default();
        for n in 0..10 {
            backlog.push(Command::Count(channel(&n.to_string()), n), None, NOW);
        }
        let weight = backlog.bytes() / 10;
        assert_eq!(backlog.take(3, usize::MAX).len(), 3);
        assert_eq!(backlog.take(9, 2 * weight).len(), 2);
        assert_eq!(backlog.take(9, 0).len(), 1, "one is always taken");
        assert_eq!(backlog.bytes(), 4 * weight);
    }
}
