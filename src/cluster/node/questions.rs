//! The questions of this node's shards that all nodes answer, and the answers so far.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::payload::{NodeAnswer, decode};
use crate::channels::{Answer, CachedEvent, ChannelState, ReplyTo};
use crate::cluster::wire::{Command, NodeId, Retained};
use crate::id::AppIndex;
use crate::time::Millis;

/// The time that nodes have to answer. A publisher's own timeout is longer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The most questions that wait at a time. Each answers a request of the API, of which a shard
/// serves fewer.
const OPEN_MAX: usize = 4096;

/// The bytes of answers that a question may gather: the names of a million channels.
const GATHERED_BYTES_MAX: usize = 64 << 20;

/// Questions by number.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// The number of the last question.
    last: u32,
    open: HashMap<u32, Open>,
}

/// A question that is not answered.
#[derive(Debug)]
struct Open {
    partition: u16,
    reply_to: ReplyTo,
    deadline: Millis,
    /// The command by which Redis is asked, while it cannot be.
    held: Option<Command>,
    /// The nodes that have to answer; `None` until Redis has told.
    asked: Option<BTreeSet<NodeId>>,
    /// Nodes that have answered.
    answered: BTreeSet<NodeId>,
    gathering: Gathering,
    /// The bytes of the answers.
    bytes: usize,
}

/// The answers so far.
#[derive(Debug)]
pub(super) enum Gathering {
    /// The state of a channel.
    State(ChannelState),
    /// The members of a channel, whom Redis tells.
    Users,
    /// Channels of an app with their subscriptions and members.
    Occupied(AppIndex, BTreeMap<Box<str>, ChannelState>),
    /// The number of connections.
    Connections(u32),
    /// Nodes that have done it.
    Terminate,
}

/// A question that is done, and the outcome.
pub(super) type Done = (ReplyTo, Outcome);

/// The outcome of a question. Names of channels are not checked yet.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The answer.
    Answer(Answer),
    /// The channels of an app.
    Occupied(AppIndex, BTreeMap<Box<str>, ChannelState>),
}

impl Questions {
    /// Takes a question, and returns its number; `None` if too many wait.
    pub(super) fn open(
        &mut self,
        partition: u16,
        reply_to: ReplyTo,
        gathering: Gathering,
        now: Millis,
    ) -> Option<u32> {
        if self.open.len() >= OPEN_MAX {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        let deadline = now + ANSWER_TIMEOUT;
        let (held, asked, answered, bytes) = (None, None, BTreeSet::new(), 0);
        let open = Open { partition, reply_to, deadline, held, asked, answered, gathering, bytes };
        self.open.insert(self.last, open);
        Some(self.last)
    }

    /// Keeps the command of a question until Redis can be asked.
    pub(super) fn hold(&mut self, request: u32, command: Command) {
        if let Some(open) = self.open.get_mut(&request) {
            open.held = Some(command);
        }
    }

    /// Takes out the commands that were kept for a partition, in the order of their questions,
    /// because Redis can be asked.
    pub(super) fn release(&mut self, partition: u16) -> impl Iterator<Item = Command> + use<> {
        let of_partition = self.open.iter_mut().filter(|(_, open)| open.partition == partition);
        let held = of_partition.filter_map(|(&number, open)| Some((number, open.held.take()?)));
        held.collect::<BTreeMap<_, _>>().into_values()
    }

    /// Notes the nodes that have to answer, and what Redis knows itself.
    pub(super) fn asked(
        &mut self,
        request: u32,
        members: u32,
        last: Option<Retained>,
        nodes: Vec<NodeId>,
    ) -> Option<Done> {
        let open = self.open.get_mut(&request)?;
        if let Gathering::State(state) = &mut open.gathering {
            state.user_count = members;
            let ttl_s = |ttl_ms: u64| ttl_ms.div_ceil(1000);
            state.cached =
                last.map(|Retained { data, ttl_ms }| CachedEvent { data, ttl_s: ttl_s(ttl_ms) });
        }
        open.asked = Some(nodes.into_iter().collect());
        self.close(request)
    }

    /// Takes an answer of a node, or a part of it. Returns the outcome with the last one, or if it
    /// cannot be read.
    pub(super) fn answered(&mut self, node: NodeId, request: u32, payload: &Bytes) -> Option<Done> {
        let open = self.open.get_mut(&request).filter(|open| !open.answered.contains(&node))?;
        open.bytes += payload.len();
        let complete = decode(payload).and_then(|answer| open.gathering.take(answer));
        match complete.filter(|_| open.bytes <= GATHERED_BYTES_MAX) {
            Some(true) => {
                open.answered.insert(node);
                self.close(request)
            }
            Some(false) => None,
            None => self.fail(request),
        }
    }

    /// Takes the members of a channel.
    pub(super) fn users(&mut self, request: u32, users: Vec<Box<str>>) -> Option<Done> {
        let open = self.open.remove(&request)?;
        let answer = match open.gathering {
            Gathering::Users => Answer::Users(users),
            _ => Answer::Unavailable,
        };
        Some((open.reply_to, Outcome::Answer(answer)))
    }

    /// Waits for no node of a partition any more that is not alive.
    pub(super) fn gone(&mut self, partition: u16, alive: impl Fn(NodeId) -> bool) -> Vec<Done> {
        let of_partition = self.open.iter_mut().filter(|(_, open)| open.partition == partition);
        let numbers: Vec<u32> = of_partition
            .filter_map(|(&number, open)| {
                let asked = open.asked.as_mut()?;
                asked.retain(|node| open.answered.contains(node) || alive(*node));
                Some(number)
            })
            .collect();
        numbers.into_iter().filter_map(|number| self.close(number)).collect()
    }

    /// Takes out the questions that have waited for too long, with their partitions.
    pub(super) fn expire(&mut self, now: Millis) -> Vec<(u16, ReplyTo)> {
        let expired = self.open.extract_if(|_, open| open.deadline <= now);
        expired.map(|(_, open)| (open.partition, open.reply_to)).collect()
    }

    /// Takes out the questions that Redis was asked for a partition, which cannot be answered any
    /// more.
    pub(super) fn lost(&mut self, partition: u16) -> Vec<ReplyTo> {
        let is_lost = |open: &Open| open.partition == partition && open.held.is_none();
        let lost = self.open.extract_if(|_, open| is_lost(open));
        lost.map(|(_, open)| open.reply_to).collect()
    }

    /// Whether no question waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Ends a question that all have answered.
    fn close(&mut self, request: u32) -> Option<Done> {
        let open = self.open.get(&request)?;
        let complete = open.asked.as_ref().is_some_and(|asked| asked.is_subset(&open.answered));
        let open = complete.then(|| self.open.remove(&request)).flatten()?;
        let outcome = match open.gathering {
            Gathering::State(state) => Outcome::Answer(Answer::State(state)),
            Gathering::Users => Outcome::Answer(Answer::Unavailable),
            Gathering::Occupied(app, channels) => Outcome::Occupied(app, channels),
            Gathering::Connections(count) => Outcome::Answer(Answer::Connections(count)),
            Gathering::Terminate => Outcome::Answer(Answer::Barrier),
        };
        Some((open.reply_to, outcome))
    }

    fn fail(&mut self, request: u32) -> Option<Done> {
        let open = self.open.remove(&request)?;
        Some((open.reply_to, Outcome::Answer(Answer::Unavailable)))
    }
}

impl Gathering {
    /// Adds an answer. Returns whether it is complete; `None` if it answers another question.
    fn take(&mut self, answer: NodeAnswer) -> Option<bool> {
        match (self, answer) {
            (Self::State(state), NodeAnswer::Number(count)) => {
                state.subscription_count = state.subscription_count.saturating_add(count);
            }
            (Self::Connections(all), NodeAnswer::Number(count)) => {
                *all = all.saturating_add(count);
            }
            (Self::Terminate, NodeAnswer::Done) => {}
            (Self::Occupied(_, channels), NodeAnswer::Channels { list, last }) => {
                for (name, subscriptions, users) in list {
                    let state = channels.entry(name.into()).or_default();
                    state.subscription_count =
                        state.subscription_count.saturating_add(subscriptions);
                    // Each node knows the members of all nodes.
                    state.user_count = state.user_count.max(users);
                }
                return Some(last);
            }
            _ => return None,
        }
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::encode;
    use super::*;
    use crate::id::ShardId;

    const NOW: Millis = Millis(1000);
    const REPLY: ReplyTo = ReplyTo { shard: ShardId(1), request: 7, index: 0 };

    fn nodes(ids: &[u128]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn number(count: u32) -> Bytes {
        encode(&NodeAnswer::Number(count))
    }

    fn state() -> Gathering {
        Gathering::State(ChannelState::default())
    }

    fn answer(done: Option<Done>) -> Answer {
        match done {
            Some((REPLY, Outcome::Answer(answer))) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_answered_when_all_nodes_have_in_any_order() {
        let mut questions = Questions::default();
        let request = questions.open(0, REPLY, state(), NOW).unwrap();
        assert!(questions.answered(NodeId(2), request, &number(3)).is_none());
        let last = Retained { data: "x".into(), ttl_ms: 1500 };
        assert!(questions.asked(request, 5, Some(last), nodes(&[1, 2])).is_none());
        assert!(questions.answered(NodeId(2), request, &number(3)).is_none(), "counted once");
        let answer = answer(questions.answered(NodeId(1), request, &number(4)));
        let cached = Some(CachedEvent { data: "x".into(), ttl_s: 2 });
        let expected = ChannelState { subscription_count: 7, user_count: 5, cached };
        assert!(matches!(answer, Answer::State(state) if state == expected));
        assert!(questions.is_empty());
    }

    #[test]
    fn a_node_that_dies_is_not_waited_for_and_a_silent_one_makes_no_partial_answer() {
        let mut questions = Questions::default();
        let request = questions.open(0, REPLY, Gathering::Connections(0), NOW).unwrap();
        assert!(questions.asked(request, 0, None, nodes(&[1, 2, 3])).is_none());
        assert!(questions.answered(NodeId(1), request, &number(4)).is_none());
        assert!(questions.answered(NodeId(3), request, &number(5)).is_none());
        assert!(questions.gone(1, |_| false).is_empty(), "another partition");
        assert!(questions.expire(Millis(2999)).is_empty());
        let done = questions.gone(0, |node| node == NodeId(1)).pop();
        assert!(matches!(answer(done), Answer::Connections(9)), "what had answered counts");
        let request = questions.open(0, REPLY, state(), NOW).unwrap();
        assert!(questions.asked(request, 0, None, nodes(&[1])).is_none());
        assert_eq!(questions.expire(NOW + ANSWER_TIMEOUT), [(0, REPLY)]);
    }

    #[test]
    fn lists_come_in_parts_and_are_merged_by_name() {
        let mut questions = Questions::default();
        let gathering = Gathering::Occupied(AppIndex(0), BTreeMap::new());
        let request = questions.open(0, REPLY, gathering, NOW).unwrap();
        questions.asked(request, 0, None, nodes(&[1, 2]));
        let part = |list: &[(&str, u32, u32)], last| {
            let list = list.iter().map(|&(name, n, users)| (name.to_owned(), n, users)).collect();
            encode(&NodeAnswer::Channels { list, last })
        };
        for (node, list, last) in
            [(1, &[("a", 1, 4)][..], false), (2, &[("a", 2, 5), ("b", 1, 0)], true)]
        {
            assert!(questions.answered(NodeId(node), request, &part(list, last)).is_none());
        }
        let done = questions.answered(NodeId(1), request, &part(&[("c", 3, 0)], true));
        let Some((_, Outcome::Occupied(_, channels))) = done else { panic!("{done:?}") };
        let channels: Vec<_> = channels
            .iter()
            .map(|(name, of)| (&**name, of.subscription_count, of.user_count))
            .collect();
        assert_eq!(channels, [("a", 3, 5), ("b", 1, 0), ("c", 3, 0)]);
    }

    #[test]
    fn an_answer_that_cannot_be_read_fails_the_question() {
        let mut questions = Questions::default();
        for payload in [Bytes::new(), encode(&NodeAnswer::Done), Bytes::from_static(b"\x09{}")] {
            let request = questions.open(0, REPLY, state(), NOW).unwrap();
            let done = questions.answered(NodeId(1), request, &payload);
            assert!(matches!(answer(done), Answer::Unavailable));
        }
    }

    #[test]
    fn the_number_of_open_questions_is_bounded() {
        let mut questions = Questions::default();
        let opened = (0..OPEN_MAX + 5).filter_map(|_| questions.open(3, REPLY, state(), NOW));
        assert_eq!(opened.count(), OPEN_MAX);
        assert_eq!(questions.lost(3).len(), OPEN_MAX);
    }
}
