//! Tests of [`Replicas`] on three nodes with a cluster that is modelled in a few lines: it executes
//! messages in the order in which they come, and each node gets its answers some time later, in
//! their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use super::super::cluster::{ClusterJoined, EnterOutcome, FromCluster};
use super::super::{Event, Joining, KeyHash, Wanted};
use super::*;
use crate::apps::webhook::EventKind;
use crate::frame::Frame;
use crate::id::{ConnKey, SocketId};
use crate::protocol::auth::{Authorised, Member};
use crate::protocol::names::ChannelName;

const CHANNELS: [&str; 3] = ["news", "presence-a", "presence-b"];
const USERS: [&str; 3] = ["ann", "ben", "cleo"];
const NODES: usize = 3;
const SHARDS: u16 = 2;
/// The most members of `presence-b`.
const MAX_MEMBERS: usize = 2;
const NOW: Millis = Millis(1000);

#[derive(Clone, Debug)]
enum Step {
    Join {
        node: usize,
        shard: u16,
        channel: usize,
        user: usize,
    },
    Leave {
        which: Index,
    },
    Whisper {
        which: Index,
    },
    Publish {
        node: usize,
        channel: usize,
    },
    /// A node hears of the next thing that the cluster has for it.
    Hear {
        node: usize,
    },
    /// The cluster executes the next message of a node.
    Execute {
        node: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let (node, shard) = (0..NODES, 0..SHARDS);
    let (channel, user) = (0..CHANNELS.len(), 0..USERS.len());
    prop_oneof![
        4 => (node.clone(), shard, channel.clone(), user).prop_map(
            |(node, shard, channel, user)| Step::Join { node, shard, channel, user }
        ),
        4 => any::<Index>().prop_map(|which| Step::Leave { which }),
        2 => any::<Index>().prop_map(|which| Step::Whisper { which }),
        2 => (node.clone(), channel).prop_map(|(node, channel)| Step::Publish { node, channel }),
        8 => node.clone().prop_map(|node| Step::Hear { node }),
        8 => node.prop_map(|node| Step::Execute { node }),
    ]
}

/// The truth about a channel.
#[derive(Debug, Default)]
struct Truth {
    nodes: BTreeSet<usize>,
    /// Users with the nodes that they are on.
    users: BTreeMap<Arc<str>, (Arc<Member>, BTreeSet<usize>)>,
}

/// A subscription as its shard knows it.
#[derive(Clone, Debug)]
struct Subscription {
    node: usize,
    shard: u16,
    channel: usize,
    user: usize,
    ticket: u32,
    /// Whether the answer has come, and whether the connection was admitted.
    answered: Option<bool>,
    /// Whether the connection has left.
    left: bool,
    /// The numbers of the events that it has got, and the members as it was told of them.
    got: Vec<u64>,
    members: BTreeSet<String>,
}

struct World {
    nodes: Vec<Replicas>,
    keys: Vec<ChannelKey>,
    truth: Vec<Truth>,
    /// The messages of each node that the cluster has not executed.
    sent: Vec<VecDeque<ToCluster>>,
    /// The messages of the cluster that each node has not heard.
    inboxes: Vec<VecDeque<FromCluster>>,
    subscriptions: Vec<Subscription>,
    /// The events of each channel in the order of the cluster, with the senders' tickets.
    ordered: Vec<Vec<u64>>,
    events: u64,
    /// Tickets whose client event was sent behind their join, with its number.
    whispered: Vec<(u32, u64)>,
    /// Occupations and memberships that webhooks were told of, less those that ended.
    noticed: BTreeMap<String, i64>,
}

impl World {
    fn new() -> Self {
        let hash = KeyHash::seeded(1);
        let key =
            |name: &&str| hash.channel(AppIndex(0), ChannelName::parse(name, 200, true).unwrap());
        let node = || {
            let mut node = Replicas::new(CacheBounds { events: 9, bytes: 9999 });
            let notices = EventKind::ALL.into_iter().collect();
            node.channels.adopt(vec![Wanted { notices, counts: false }]);
            node
        };
        Self {
            nodes: (0..NODES).map(|_| node()).collect(),
            keys: CHANNELS.iter().map(key).collect(),
            truth: CHANNELS.iter().map(|_| Truth::default()).collect(),
            sent: (0..NODES).map(|_| VecDeque::new()).collect(),
            inboxes: (0..NODES).map(|_| VecDeque::new()).collect(),
            subscriptions: Vec::new(),
            ordered: vec![Vec::new(); CHANNELS.len()],
            events: 0,
            whispered: Vec::new(),
            noticed: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join { node, shard, channel, user } => self.join(node, shard, channel, user),
            Step::Leave { ref which } => self.leave(which),
            Step::Whisper { ref which } => self.whisper(which),
            Step::Publish { node, channel } => {
                let event = self.event(channel, None);
                self.sent[node].push_back(ToCluster::Publish(event));
            }
            Step::Hear { node } => self.hear(node),
            Step::Execute { node } => self.execute(node),
        }
    }

    fn channel_of(&self, key: &ChannelKey) -> usize {
        self.keys.iter().position(|of| of == key).unwrap()
    }

    fn join(&mut self, node: usize, shard: u16, channel: usize, user: usize) {
        let ticket = u32::try_from(self.subscriptions.len()).unwrap() + 1;
        let key = self.keys[channel].clone();
        let member = is_presence(channel).then(|| member(USERS[user]));
        let join = Join {
            authorised: Authorised::assumed(key.name().clone(), member),
            key,
            conn: conn_of(ticket),
            ticket,
            max_members: (channel == 2).then_some(MAX_MEMBERS),
        };
        self.subscriptions.push(Subscription {
            node,
            shard,
            channel,
            user,
            ticket,
            answered: None,
            left: false,
            got: Vec::new(),
            members: BTreeSet::new(),
        });
        self.call(node, shard, ToHome::Join(Box::new(join)));
    }

    fn leave(&mut self, which: &Index) {
        let of = |of: &&Subscription| !of.left && of.answered != Some(false);
        let here: Vec<_> = self.subscriptions.iter().filter(of).map(|of| of.ticket).collect();
        if !here.is_empty() {
            self.leave_by(here[which.index(here.len())]);
        }
    }

    fn leave_by(&mut self, ticket: u32) {
        let subscription = self.by_ticket(ticket);
        subscription.left = true;
        let Subscription { node, shard, channel, user, answered, .. } = subscription.clone();
        let leave = Leave {
            key: self.keys[channel].clone(),
            member: is_presence(channel).then(|| member(USERS[user])),
            ticket: answered.is_none().then_some(ticket),
        };
        self.call(node, shard, ToHome::Leave(leave));
    }

    /// A connection sends a client event right behind its subscribe.
    fn whisper(&mut self, which: &Index) {
        let of = |of: &&Subscription| !of.left && of.answered.is_none();
        let here: Vec<_> = self.subscriptions.iter().filter(of).map(|of| of.ticket).collect();
        if here.is_empty() {
            return;
        }
        let ticket = here[which.index(here.len())];
        let Subscription { node, shard, channel, .. } = self.by_ticket(ticket).clone();
        let event = self.event(channel, Some(ticket));
        self.whispered.push((ticket, self.events));
        let joining = Some(Joining { conn: conn_of(ticket), ticket });
        let whisper = Whisper { event, joining, notice: None };
        self.call(node, shard, ToHome::Whisper(Box::new(whisper)));
    }

    fn event(&mut self, channel: usize, sender: Option<u32>) -> Event {
        self.events += 1;
        let text = self.events.to_string();
        let frame = Frame::text(text.len(), |out| out.extend_from_slice(text.as_bytes()));
        let except = sender.map(|ticket| SocketId { high: ticket.into(), low: 1 });
        Event { key: self.keys[channel].clone(), frame, except, retain: None }
    }

    fn by_ticket(&mut self, ticket: u32) -> &mut Subscription {
        &mut self.subscriptions[ticket as usize - 1]
    }

    fn call(&mut self, node: usize, shard: u16, message: ToHome) {
        let mut out = Outbox::default();
        self.nodes[node].handle(ShardId(shard), message, NOW, &mut out);
        self.take(node, &mut out);
    }

    fn hear(&mut self, node: usize) {
        if let Some(message) = self.inboxes[node].pop_front() {
            let mut out = Outbox::default();
            self.nodes[node].learn(message, NOW, &mut out);
            self.take(node, &mut out);
        }
    }

    /// Takes the effects of a home: the cluster gets its messages, the shards theirs at once.
    fn take(&mut self, node: usize, out: &mut Outbox) {
        self.sent[node].extend(out.cluster_messages());
        for notice in out.notices() {
            let (what, by) = match &notice.event {
                ChannelEvent::Occupied => (String::new(), 1),
                ChannelEvent::MemberAdded(user) => (format!("/{user}"), 1),
                other => panic!("the cluster tells of {other:?}"),
            };
            *self.noticed.entry(format!("{}{what}", notice.channel)).or_default() += by;
        }
        let told: Vec<_> = out.messages().collect();
        for (shard, message) in told {
            self.tell(node, shard.0, message);
        }
    }

    fn tell(&mut self, node: usize, shard: u16, message: FromHome) {
        match message {
            FromHome::Joined(joined) => self.answered(&joined),
            FromHome::Event(event) => {
                let channel = self.channel_of(&event.key);
                let value: Value = serde_json::from_slice(event.frame.payload()).unwrap();
                let here = |of: &Subscription| {
                    (of.node, of.shard, of.channel) == (node, shard, channel)
                        && of.answered == Some(true)
                        && !of.left
                };
                for of in self.subscriptions.iter_mut().filter(|of| here(of)) {
                    got(of, &value, event.except);
                }
            }
            FromHome::NotMember(conn, _) => {
                let ticket = conn.slot;
                assert_eq!(self.by_ticket(ticket).answered, Some(false), "refused before that");
                self.whispered.retain(|(of, _)| *of != ticket);
            }
            other => panic!("{other:?}"),
        }
    }

    fn answered(&mut self, joined: &Joined) {
        let subscription = self.by_ticket(joined.ticket);
        assert_eq!(subscription.answered, None, "one answer");
        let Outcome::Subscribed { answer, .. } = &joined.outcome else {
            subscription.answered = Some(false);
            let ticket = joined.ticket;
            if !subscription.left {
                // The shard acknowledges the refusal; one that has left did it with its leave.
                subscription.answered = None;
                self.leave_by(ticket);
                self.by_ticket(ticket).answered = Some(false);
            }
            return;
        };
        subscription.answered = Some(true);
        let text: Value = serde_json::from_slice(answer.payload()).unwrap();
        let data: Value = serde_json::from_str(text["data"].as_str().unwrap()).unwrap();
        let ids = data["presence"]["ids"].as_array().cloned().unwrap_or_default();
        subscription.members = ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        if is_presence(subscription.channel) {
            assert!(subscription.members.contains(USERS[subscription.user]), "itself among them");
        }
    }

    fn execute(&mut self, node: usize) {
        let Some(message) = self.sent[node].pop_front() else { return };
        match message {
            ToCluster::Join(key, _) => self.truly_join(node, key),
            ToCluster::Leave(key) => {
                let truth = self.channel_of(&key);
                assert!(self.truth[truth].nodes.remove(&node), "it was in it");
                if self.truth[truth].nodes.is_empty() {
                    *self.noticed.get_mut(key.name().as_str()).unwrap() -= 1;
                }
                self.inboxes[node].push_back(FromCluster::Left(key));
            }
            ToCluster::Enter(enter) => self.truly_enter(node, *enter),
            ToCluster::Part(key, user) => self.truly_part(node, key, user),
            ToCluster::Publish(event) => {
                let channel = self.channel_of(&event.key);
                let number = serde_json::from_slice(event.frame.payload()).unwrap();
                self.ordered[channel].push(number);
                for &to in &self.truth[channel].nodes {
                    self.inboxes[to].push_back(FromCluster::Event(event.clone()));
                }
            }
            ToCluster::Count(..) => {}
            other => panic!("{other:?}"),
        }
    }

    fn truly_join(&mut self, node: usize, key: ChannelKey) {
        let truth =
            &mut self.truth[CHANNELS.iter().position(|of| *of == key.name().as_str()).unwrap()];
        let occupied = truth.nodes.is_empty();
        assert!(truth.nodes.insert(node), "it was not in it");
        let members = truth.users.values().map(|(member, _)| Arc::clone(member)).collect();
        let joined = ClusterJoined { key, occupied, exact: true, last: None, members };
        self.inboxes[node].push_back(FromCluster::Joined(Box::new(joined)));
    }

    fn truly_enter(&mut self, node: usize, enter: Enter) {
        let Enter { key, member, max_members } = enter;
        let channel = self.channel_of(&key);
        let truth = &mut self.truth[channel];
        let user_id = Arc::clone(&member.user_id);
        let known = truth.users.contains_key(&user_id);
        if !known && max_members.is_some_and(|most| truth.users.len() >= most) {
            let full = FromCluster::Entered(key, user_id, EnterOutcome::Full);
            return self.inboxes[node].push_back(full);
        }
        let entry = truth.users.entry(Arc::clone(&user_id));
        let of = entry.or_insert_with(|| (Arc::clone(&member), BTreeSet::new()));
        assert!(of.1.insert(node), "the user was not on the node");
        if !known {
            for &to in &truth.nodes {
                let added = FromCluster::Added(key.clone(), Arc::clone(&member));
                self.inboxes[to].push_back(added);
            }
        }
        let outcome = EnterOutcome::Entered { told: !known };
        self.inboxes[node].push_back(FromCluster::Entered(key, user_id, outcome));
    }

    fn truly_part(&mut self, node: usize, key: ChannelKey, user: Arc<str>) {
        let channel = self.channel_of(&key);
        let truth = &mut self.truth[channel];
        let (_, on) = truth.users.get_mut(&user).unwrap();
        assert!(on.remove(&node), "the user was on the node");
        if on.is_empty() {
            truth.users.remove(&user);
            for &to in &truth.nodes {
                let removed = FromCluster::Removed(key.clone(), Arc::clone(&user));
                self.inboxes[to].push_back(removed);
            }
            *self.noticed.get_mut(&format!("{}/{user}", key.name())).unwrap() -= 1;
        }
        self.inboxes[node].push_back(FromCluster::Parted(key, user));
    }

    /// Has everything executed and heard, and compares the replicas with the truth.
    fn settle(&mut self) {
        while self.sent.iter().any(|of| !of.is_empty())
            || self.inboxes.iter().any(|of| !of.is_empty())
        {
            (0..NODES).for_each(|node| self.execute(node));
            (0..NODES).for_each(|node| self.hear(node));
        }
        for (channel, key) in self.keys.clone().iter().enumerate() {
            self.compare(channel, key);
        }
        for node in &self.nodes {
            assert!(node.pending.is_empty() && node.channels.refused.is_empty());
            node.channels.assert_counted();
        }
    }

    fn compare(&self, channel: usize, key: &ChannelKey) {
        let here =
            |of: &&Subscription| of.channel == channel && !of.left && of.answered == Some(true);
        let truth = &self.truth[channel];
        let members: BTreeSet<String> = truth.users.keys().map(ToString::to_string).collect();
        let mut expected = BTreeSet::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let count = self.subscriptions.iter().filter(here).filter(|of| of.node == number);
            let count = u32::try_from(count.count()).unwrap();
            assert_eq!(node.channels.subscribers(key), count, "subscribers of {number}");
            assert_eq!(truth.nodes.contains(&number), count > 0, "node {number} in {key:?}");
            if count > 0 && is_presence(channel) {
                let known: BTreeSet<String> =
                    node.channels.users(key).into_iter().map(String::from).collect();
                assert_eq!(known, members, "members as {number} knows them");
            }
        }
        for of in self.subscriptions.iter().filter(|of| of.channel == channel) {
            assert!(of.answered.is_some(), "no answer: {of:?}");
            if !of.left && of.answered == Some(true) {
                expected.insert(USERS[of.user].to_owned());
                if is_presence(channel) {
                    assert_eq!(of.members, members, "as told: {of:?}");
                }
            }
            // In the cluster's order, none doubled, and none left out between the first and now.
            let order = &self.ordered[channel];
            let place = |event: &u64| order.iter().position(|of| of == event).unwrap();
            let places: Vec<_> = of.got.iter().map(place).collect();
            assert!(places.is_sorted() && places.windows(2).all(|two| two[0] != two[1]));
            if let (false, Some(&first)) = (of.left, places.first()) {
                let own: Vec<u64> = self
                    .whispered
                    .iter()
                    .filter(|(by, _)| *by == of.ticket)
                    .map(|of| of.1)
                    .collect();
                let owed: Vec<u64> =
                    order[first..].iter().copied().filter(|event| !own.contains(event)).collect();
                assert_eq!(of.got, owed, "{of:?}");
            }
        }
        if is_presence(channel) {
            assert_eq!(members, expected, "members of {key:?}");
        }
        let noticed = self.noticed.get(key.name().as_str()).copied().unwrap_or_default();
        assert_eq!(noticed, i64::from(!truth.nodes.is_empty()), "told of {key:?}");
        for user in USERS {
            let noticed = self.noticed.get(&format!("{}/{user}", key.name()));
            let is_member = i64::from(members.contains(user));
            assert_eq!(noticed.copied().unwrap_or_default(), is_member, "told of {user}");
        }
    }
}

/// A subscriber gets an event: a member's coming or going, or the number of an event.
fn got(of: &mut Subscription, value: &Value, except: Option<SocketId>) {
    if let Some(number) = value.as_u64() {
        if except.is_none_or(|id| id.high != u64::from(of.ticket)) {
            of.got.push(number);
        }
        return;
    }
    let data: Value = serde_json::from_str(value["data"].as_str().unwrap()).unwrap();
    let user = data["user_id"].as_str().unwrap().to_owned();
    match value["event"].as_str().unwrap() {
        "pusher_internal:member_added" => assert!(of.members.insert(user), "once: {of:?}"),
        "pusher_internal:member_removed" => assert!(of.members.remove(&user), "once: {of:?}"),
        other => panic!("{other}"),
    }
}

fn is_presence(channel: usize) -> bool {
    CHANNELS[channel].starts_with("presence-")
}

fn member(user: &str) -> Arc<Member> {
    let id_json = format!("\"{user}\"").into();
    Arc::new(Member { user_id: user.into(), id_json, user_info: None })
}

const fn conn_of(ticket: u32) -> ConnKey {
    ConnKey { slot: ticket, generation: 0 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nodes_agree_with_the_cluster_whenever_it_has_answered_everything(
        steps in prop::collection::vec(any_step(), 0..200),
    ) {
        let mut world = World::new();
        for (number, step) in steps.iter().enumerate() {
            world.step(step);
            if number % 64 == 63 {
                world.settle();
            }
        }
        world.settle();
        // At the end nothing is left of those who leave.
        let here = world.subscriptions.iter().filter(|of| !of.left).map(|of| of.ticket);
        let here: Vec<_> = here.collect();
        here.into_iter().for_each(|ticket| world.leave_by(ticket));
        world.settle();
        prop_assert!(world.nodes.iter().all(|node| node.channels.len() == 0));
        prop_assert!(world.truth.iter().all(|of| of.nodes.is_empty() && of.users.is_empty()));
    }
}
