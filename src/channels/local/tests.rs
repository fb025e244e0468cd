//! Tests of [`Local`] against a simple model of it: lists that are searched.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::KeyHash;
use super::*;
use crate::id::AppIndex;
use crate::protocol::names::ChannelName;

/// One call, or the arrival of a home's answer.
#[derive(Clone, Debug)]
enum Step {
    Subscribe { slot: u32, channel: usize, member: bool },
    Answer { which: Index, refuse: bool },
    Unsubscribe { slot: u32, channel: usize },
    Repeat { slot: u32, channel: usize },
    Disconnect { slot: u32 },
    Deliver { channel: usize, except: Option<u32> },
    Flush,
    Trim,
}

fn any_step(slots: u32, channels: usize) -> impl Strategy<Value = Step> {
    let (slot, channel) = (0..slots, 0..channels);
    prop_oneof![
        12 => (slot.clone(), channel.clone(), any::<bool>())
            .prop_map(|(slot, channel, member)| Step::Subscribe { slot, channel, member }),
        12 => (any::<Index>(), prop::bool::weighted(0.1))
            .prop_map(|(which, refuse)| Step::Answer { which, refuse }),
        4 => (slot.clone(), channel.clone())
            .prop_map(|(slot, channel)| Step::Unsubscribe { slot, channel }),
        2 => (slot.clone(), channel.clone())
            .prop_map(|(slot, channel)| Step::Repeat { slot, channel }),
        1 => slot.clone().prop_map(|slot| Step::Disconnect { slot }),
        8 => (channel, prop::option::of(slot))
            .prop_map(|(channel, except)| Step::Deliver { channel, except }),
        3 => Just(Step::Flush),
        1 => Just(Step::Trim),
    ]
}

/// A subscription as the model knows it: the ticket while it is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    ticket: Option<u32>,
    member: Option<Arc<Member>>,
}

impl From<Left> for Expected {
    fn from(Left { member, ticket }: Left) -> Self {
        Self { ticket, member }
    }
}

/// Numbers of messages by slot and channel.
type Received = BTreeMap<(u32, usize), Vec<usize>>;

struct Model {
    local: Local,
    keys: Vec<ChannelKey>,
    subscriptions: BTreeMap<(u32, usize), Expected>,
    /// Joins that the home has not answered: slot, channel, ticket.
    asked: Vec<(u32, usize, u32)>,
    /// Tickets that were ever handed out.
    tickets: BTreeSet<u32>,
    owed: Received,
    got: Received,
    messages: usize,
}

impl Model {
    fn new(channels: usize) -> Self {
        let hash = KeyHash::random();
        Self {
            local: Local::default(),
            keys: (0..channels).map(|n| key(&hash, n)).collect(),
            subscriptions: BTreeMap::new(),
            asked: Vec::new(),
            tickets: BTreeSet::new(),
            owed: Received::new(),
            got: Received::new(),
            messages: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Subscribe { slot, channel, member } => self.subscribe(*slot, *channel, *member),
            Step::Answer { which, refuse } => {
                if !self.asked.is_empty() {
                    let at = which.index(self.asked.len());
                    let (slot, channel, ticket) = self.asked.remove(at);
                    self.answer(slot, channel, ticket, *refuse);
                }
            }
            Step::Unsubscribe { slot, channel } => self.unsubscribe(*slot, *channel),
            Step::Repeat { slot, channel } => self.repeated(*slot, *channel),
            Step::Disconnect { slot } => self.disconnect(*slot),
            Step::Deliver { channel, except } => self.deliver(*channel, *except),
            Step::Flush => self.flush(),
            Step::Trim => {
                self.flush();
                self.local.trim();
            }
        }
        self.check();
    }

    fn subscribe(&mut self, slot: u32, channel: usize, member: bool) {
        let member = member.then(|| Arc::new(member_named(&format!("user-{slot}"))));
        let key = &self.keys[channel];
        let subscriptions = self.subscriptions.range((slot, 0)..(slot + 1, 0)).count();
        match (self.local.find(slot, key), self.subscriptions.get(&(slot, channel))) {
            (Found::Subscribed, Some(expected)) => assert_eq!(expected.ticket, None),
            (Found::Joining(ticket), Some(expected)) => assert_eq!(expected.ticket, Some(ticket)),
            (Found::Vacant(vacant), None) => {
                assert_eq!(vacant.subscriptions(), subscriptions);
                let ticket = vacant.insert(&proof(key, member.clone()));
                assert!(ticket > 0 && self.tickets.insert(ticket), "ticket {ticket} was used");
                self.asked.push((slot, channel, ticket));
                let expected = Expected { ticket: Some(ticket), member };
                self.subscriptions.insert((slot, channel), expected);
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    fn answer(&mut self, slot: u32, channel: usize, ticket: u32, refuse: bool) {
        let at = (slot, channel);
        let awaited = self.subscriptions.get(&at).is_some_and(|of| of.ticket == Some(ticket));
        let key = &self.keys[channel];
        let settled = if refuse {
            self.local.refused(slot, key, ticket)
        } else {
            self.local.joined(slot, key, ticket)
        };
        assert_eq!(settled, if awaited { Settled::Done } else { Settled::Void });
        match self.subscriptions.get_mut(&at).filter(|_| awaited) {
            Some(_) if refuse => drop(self.subscriptions.remove(&at)),
            Some(joined) => joined.ticket = None,
            None => {}
        }
    }

    fn unsubscribe(&mut self, slot: u32, channel: usize) {
        let (key, got) = (&self.keys[channel], &mut self.got);
        let left = self.local.unsubscribe(slot, key, &mut |frame| take(got, slot, frame));
        let ended = self.subscriptions.remove(&(slot, channel));
        assert_eq!(left.map(Expected::from), ended);
        let at = (slot, channel);
        assert_eq!(self.got.remove(&at), self.owed.remove(&at), "owed before it left");
    }

    fn repeated(&mut self, slot: u32, channel: usize) {
        let at = (slot, channel);
        let (key, got) = (&self.keys[channel], &mut self.got);
        let told = self.local.repeated(slot, key, &mut |frame| take(got, slot, frame));
        assert_eq!(told, self.subscriptions.get(&at).is_some_and(|of| of.ticket.is_none()));
        if told {
            assert_eq!(self.got.get(&at), self.owed.get(&at), "owed before the answer");
        }
    }

    fn disconnect(&mut self, slot: u32) {
        let mut left = Vec::new();
        let mut leave = |key: ChannelKey, of| left.push((key.name().clone(), Expected::from(of)));
        // A connection with many subscriptions leaves in parts.
        while self.local.disconnect(slot, 3, &mut leave) == 3 {}
        let (gone, stay): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.subscriptions)
                .into_iter()
                .partition(|((of, _), _)| *of == slot);
        self.subscriptions = stay;
        let mut expected: Vec<_> = gone
            .into_iter()
            .map(|((_, channel), of)| (self.keys[channel].name().clone(), of))
            .collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        left.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(left, expected);
        self.owed.retain(|&(of, _), _| of != slot);
        self.got.retain(|&(of, _), _| of != slot);
    }

    fn deliver(&mut self, channel: usize, except: Option<u32>) {
        let number = self.messages;
        self.messages += 1;
        self.local.deliver(&self.keys[channel], frame(channel, number), except);
        let joined = self.subscriptions.iter().filter(|(_, of)| of.ticket.is_none());
        for (&at, _) in joined.filter(|((slot, of), _)| *of == channel && Some(*slot) != except) {
            self.owed.entry(at).or_default().push(number);
        }
    }

    fn flush(&mut self) {
        let got = &mut self.got;
        self.local.flush(|batch| receive(got, &batch));
        assert_eq!(self.got, self.owed);
    }

    /// Asserts the invariants that hold between any two calls.
    fn check(&self) {
        let counted = self.local.subscribed().get(0).map_or(0, |kinds| kinds.iter().sum());
        let subscribed = self.subscriptions.values().filter(|of| of.ticket.is_none());
        assert_eq!(counted, subscribed.count() as u64);
        self.check_answers();
        self.check_places();
        self.check_topics();
    }

    fn check_answers(&self) {
        for (&(slot, channel), of) in &self.subscriptions {
            let membership = Membership { member: of.member.as_ref(), ticket: of.ticket };
            assert_eq!(self.local.membership(slot, &self.keys[channel]), Some(membership));
        }
        let channels: BTreeSet<_> = self.subscriptions.keys().map(|at| at.1).collect();
        assert_eq!(self.local.channels(), channels.len());
        for slot in 0..=number(self.local.connections.len()) {
            let of_slot = || self.subscriptions.iter().filter(|((of, _), _)| *of == slot);
            assert_eq!(self.local.count(slot), of_slot().count());
            let as_user = of_slot().any(|(_, of)| of.member.is_some());
            assert_eq!(self.local.is_user(slot, &format!("user-{slot}")), as_user);
            assert!(!self.local.is_user(slot, "somebody else"));
        }
    }

    /// Asserts that connections and topics point at each other.
    fn check_places(&self) {
        for (connection, slot) in self.local.connections.iter().zip(0..) {
            for (of, at) in connection.list().iter().zip(0..) {
                if of.position & JOINING == 0 {
                    let topic = &self.local.topics[of.topic];
                    let subscriber = topic.subscribers[of.position as usize];
                    assert_eq!(subscriber, Subscriber { slot, back: at });
                }
                assert_eq!(connection.find(of.topic), Some(at));
            }
            connection.assert_indexed();
        }
    }

    /// Asserts that topics hold what the connections say and nothing else, and that unused ones
    /// hold nothing.
    fn check_topics(&self) {
        let local = &self.local;
        let of_topic = |topic: u32| {
            let lists = local.connections.iter().flat_map(Subscriptions::list);
            lists.filter(move |of| of.topic == topic)
        };
        for (number, topic) in local.topics.iter() {
            let joined = of_topic(number).filter(|of| of.position & JOINING == 0).count();
            assert_eq!(topic.subscribers.len(), joined);
            assert_eq!(topic.joining as usize, of_topic(number).count() - joined);
            assert!(of_topic(number).next().is_some(), "a leaked topic");
            if let Some(dirty) = local.dirty.get(topic.dirty as usize) {
                assert_eq!((dirty.topic, dirty.outgoing.is_empty()), (number, false));
            }
        }
    }
}

/// Takes a batch apart: all messages for most subscribers, fewer for the exceptions.
fn receive(got: &mut Received, of: &TopicBatch<'_>) {
    let exceptions: Vec<(u32, usize)> = of.batch.exceptions().collect();
    for subscriber in of.subscribers {
        let slot = subscriber.slot;
        let late = of.batch.late().iter().filter(|&&(of, _)| of == slot);
        let from = late.map(|&(_, from)| from).max().unwrap_or(0);
        let owed = |&(index, _): &(usize, _)| index >= from && !exceptions.contains(&(slot, index));
        of.batch.frames().enumerate().filter(owed).for_each(|(_, frame)| take(got, slot, frame));
    }
}

/// Records that a subscriber has got a message.
fn take(got: &mut Received, slot: u32, frame: &Frame) {
    let text = std::str::from_utf8(frame.bytes()).unwrap();
    let (channel, number) = text.split_once(':').unwrap();
    let at = (slot, channel.parse().unwrap());
    got.entry(at).or_default().push(number.parse().unwrap());
}

fn frame(channel: usize, number: usize) -> Frame {
    Frame::from_encoded(Bytes::from(format!("{channel}:{number}")))
}

fn key(hash: &KeyHash, number: usize) -> ChannelKey {
    let name = ChannelName::parse(&format!("channel-{number}"), 200, true).unwrap();
    hash.channel(AppIndex(0), name)
}

fn proof(key: &ChannelKey, member: Option<Arc<Member>>) -> Authorised {
    Authorised::assumed(key.name().clone(), member)
}

fn subscribe(local: &mut Local, slot: u32, key: &ChannelKey) -> u32 {
    match local.find(slot, key) {
        Found::Vacant(vacant) => vacant.insert(&proof(key, None)),
        found => panic!("{found:?}"),
    }
}

fn member_named(user_id: &str) -> Member {
    Member { user_id: user_id.into(), id_json: format!("{user_id:?}").into(), user_info: None }
}

/// Plays the steps, then lets everybody leave.
fn play(slots: u32, channels: usize, steps: &[Step]) {
    let mut model = Model::new(channels);
    for step in steps {
        model.step(step);
    }
    for slot in 0..slots {
        model.step(&Step::Disconnect { slot });
    }
    model.step(&Step::Flush);
    assert_eq!(model.local.channels(), 0);
    assert!(model.local.topics.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn channels_with_many_subscribers_are_as_modelled(
        steps in prop::collection::vec(any_step(12, 3), 0..300),
    ) {
        play(12, 3, &steps);
    }

    #[test]
    fn connections_with_many_channels_are_as_modelled(
        steps in prop::collection::vec(any_step(2, 48), 0..300),
    ) {
        play(2, 48, &steps);
    }
}

/// A shard with these slots subscribed to `channel-0`.
fn joined_by(slots: &[u32]) -> Model {
    let mut model = Model::new(1);
    for &slot in slots {
        model.step(&Step::Subscribe { slot, channel: 0, member: false });
        let (slot, channel, ticket) = model.asked.remove(0);
        model.answer(slot, channel, ticket, false);
    }
    model
}

#[test]
fn a_new_subscriber_gets_nothing_of_what_was_ordered_before_it_joined() {
    let mut model = joined_by(&[1]);
    model.step(&Step::Subscribe { slot: 2, channel: 0, member: false });
    model.step(&Step::Deliver { channel: 0, except: None });
    let (slot, channel, ticket) = model.asked.remove(0);
    model.answer(slot, channel, ticket, false);
    model.step(&Step::Deliver { channel: 0, except: None });
    model.step(&Step::Flush);
    assert_eq!(model.got, Received::from([((1, 0), vec![0, 1]), ((2, 0), vec![1])]));
}

#[test]
fn each_sender_of_a_turn_misses_its_own_messages_only() {
    let mut model = joined_by(&[1, 2, 3]);
    for except in [Some(1), Some(2), None, Some(1)] {
        model.step(&Step::Deliver { channel: 0, except });
    }
    model.step(&Step::Flush);
    let expected = [((1, 0), vec![1, 2]), ((2, 0), vec![0, 2, 3]), ((3, 0), vec![0, 1, 2, 3])];
    assert_eq!(model.got, Received::from(expected));
}

#[test]
fn the_answer_to_an_abandoned_subscribe_does_not_complete_the_next_one() {
    let mut model = Model::new(1);
    model.step(&Step::Subscribe { slot: 1, channel: 0, member: false });
    model.step(&Step::Unsubscribe { slot: 1, channel: 0 });
    model.step(&Step::Subscribe { slot: 1, channel: 0, member: false });
    let (_, _, abandoned) = model.asked[0];
    let key = model.keys[0].clone();
    assert_eq!(model.local.joined(1, &key, abandoned), Settled::Void);
    let (_, _, current) = model.asked[1];
    let membership = |ticket| Some(Membership { member: None, ticket });
    assert_eq!(model.local.membership(1, &key), membership(Some(current)));
    assert_eq!(model.local.joined(1, &key, current), Settled::Done);
    assert_eq!(model.local.membership(1, &key), membership(None));
}

#[test]
fn tickets_wrap_without_looking_like_places() {
    let mut model = Model::new(1);
    model.local.next_ticket = JOINING - 1;
    let key = model.keys[0].clone();
    assert_eq!(subscribe(&mut model.local, 1, &key), 1);
    assert!(matches!(model.local.find(1, &key), Found::Joining(1)));
    assert_eq!(model.local.joined(1, &key, 1), Settled::Done);
}

#[test]
fn a_topic_is_used_again_without_the_messages_of_its_predecessor() {
    let mut model = Model::new(2);
    for channel in [0, 1] {
        model.step(&Step::Subscribe { slot: 1, channel, member: false });
        let (slot, channel, ticket) = model.asked.remove(0);
        model.answer(slot, channel, ticket, false);
        model.step(&Step::Deliver { channel, except: None });
        if channel == 0 {
            model.step(&Step::Disconnect { slot: 1 });
        }
    }
    model.step(&Step::Flush);
    assert_eq!(model.local.topics.len(), 1);
    assert_eq!(model.got, Received::from([((1, 1), vec![1])]));
}

#[test]
fn rounds_of_joining_and_leaving_leave_no_more_behind_than_one() {
    const SLOTS: u32 = 3000;
    let mut model = Model::new(SLOTS as usize + 1);
    let everybody_joins = |local: &mut Local, keys: &[ChannelKey]| {
        for slot in 0..SLOTS {
            for key in [&keys[0], &keys[slot as usize + 1]] {
                let ticket = subscribe(local, slot, key);
                assert_eq!(local.joined(slot, key, ticket), Settled::Done);
            }
        }
    };
    let Model { local, keys, .. } = &mut model;
    let mut rooms = Vec::new();
    for _ in 0..4 {
        everybody_joins(local, keys);
        local.trim();
        let full = local.room();
        (0..SLOTS).for_each(|slot| assert_eq!(local.disconnect(slot, 3, |_, _| {}), 2));
        local.trim();
        assert_eq!((local.channels(), local.topics.end()), (0, 0));
        rooms.push((full, local.room()));
    }
    assert!(rooms.iter().all(|room| *room == rooms[0]), "{rooms:?}");
    let (full, empty) = rooms[0];
    // Only one list for each former connection stays.
    let slots = (SLOTS as usize).next_multiple_of(512) * size_of::<Subscriptions>();
    assert!(empty <= slots + 100, "{empty} bytes of {full}");
}

#[test]
fn a_hot_channels_list_has_little_more_room_than_it_needs_and_shrinks() {
    let mut model = Model::new(1);
    let Model { local, keys, .. } = &mut model;
    for slot in 0..20_000 {
        let ticket = subscribe(local, slot, &keys[0]);
        local.joined(slot, &keys[0], ticket);
        let list = &local.topics[0].subscribers;
        assert!(list.len() <= LONG || list.capacity() <= list.len() * 5 / 4, "at {slot}");
    }
    for slot in 0..19_900 {
        local.disconnect(slot, usize::MAX, |_, _| {});
        let list = &local.topics[0].subscribers;
        assert!(list.capacity() <= list.len() * SPARSE + LONG * SPARSE, "at {slot}");
    }
}
