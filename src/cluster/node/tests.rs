//! Nodes with the model of the scripts for Redis, and this file for their homes.

use std::time::Duration;

use super::*;
use crate::apps::{Admission, App, test_app, test_app_named};
use crate::channels::{
    Answer, ChannelKey, Enter, EnterOutcome, Event, FromCluster, FromHome, PartitionId, Question,
    Registered, ReplyTo, Step, ToCluster, ToHome,
};
use crate::cluster::model::Model;
use crate::cluster::settings::{RedisAddress, RedisLogin, RedisPlace, TlsFiles, WhenAway};
use crate::cluster::store::Executed;
use crate::frame::Frame;
use crate::id::AppIndex;
use crate::protocol::auth::Member as User;
use crate::shard::ShardMessage;

const SHARDS: u16 = 2;

const APP: AppIndex = AppIndex(0);

fn settings(when_away: WhenAway) -> ClusterSettings {
    ClusterSettings {
        name: "test".into(),
        place: RedisPlace::Standalone(RedisAddress::Unix("redis.sock".into())),
        login: RedisLogin::default(),
        database: 0,
        tls: TlsFiles::default(),
        partitions: 1,
        lease: Duration::from_secs(5),
        retention: Duration::from_secs(60),
        patience: Duration::from_secs(8),
        when_away,
        backlog: 100_000,
        inbox: 1 << 20,
    }
}

/// A node with what its owner knows of it.
struct Host {
    node: Node,
    apps: Arc<Apps>,
    hash: KeyHash,
    /// Whether it has a connection to Redis, and has entered.
    connected: bool,
    /// Whether it stands still.
    frozen: bool,
    /// The messages that its shards were sent.
    sent: Vec<(ShardId, ShardMessage)>,
    reports: Vec<Report>,
}

/// Nodes and their Redis.
struct World {
    now: Millis,
    redis: Option<Model>,
    hosts: Vec<Host>,
}

impl World {
    fn new(nodes: u128) -> Self {
        Self::with(nodes, WhenAway::Hold, || vec![test_app()])
    }

    fn with(nodes: u128, when_away: WhenAway, apps: impl Fn() -> Vec<App>) -> Self {
        Self::by(nodes, &settings(when_away), apps)
    }

    fn by(nodes: u128, settings: &ClusterSettings, apps: impl Fn() -> Vec<App>) -> Self {
        let mut world = Self::fresh(nodes, settings, apps);
        // The first node waits for others, and each hears of all.
        world.pass(Duration::from_secs(3));
        world.hosts.iter_mut().for_each(|host| host.sent.clear());
        world
    }

    /// Nodes that have not entered.
    fn fresh(nodes: u128, settings: &ClusterSettings, apps: impl Fn() -> Vec<App>) -> Self {
        let now = Millis(1_000_000);
        let hosts = (1..=nodes).map(|number| Host::new(number, settings, apps(), now)).collect();
        Self { now, redis: Some(Model::default()), hosts }
    }

    /// Lets everything happen that takes no time.
    fn run(&mut self) {
        let mut calls = 1;
        while calls > 0 {
            calls = 0;
            for host in self.hosts.iter_mut().filter(|host| !host.frozen) {
                host.node.tick(self.now);
                let Some(redis) = &mut self.redis else { continue };
                calls += host.converse(redis, self.now);
            }
        }
        for host in self.hosts.iter_mut().filter(|host| !host.frozen) {
            host.take_effects();
        }
    }

    /// Lets time pass in small steps.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(100)).min(end);
            self.run();
        }
    }

    /// Redis is away, with what it has.
    fn cut(&mut self) -> Model {
        for host in &mut self.hosts {
            host.connected = false;
            host.node.lost(0, self.now);
        }
        self.redis.take().unwrap()
    }

    /// A home or a shard of a node speaks.
    fn tell(&mut self, host: usize, message: ToCluster) {
        self.hosts[host].node.handle(message, self.now);
    }

    fn join(&mut self, host: usize, channel: &str) {
        let key = self.hosts[host].key(channel);
        self.tell(host, ToCluster::Join(key, 1));
        self.run();
    }

    fn publish(&mut self, host: usize, channel: &str, text: &str, request: u32) {
        let event = self.hosts[host].event(channel, text);
        self.tell(host, ToCluster::PublishAndConfirm(Box::new(event), reply(request)));
    }

    /// The homes of a node have nothing to register.
    fn register_nothing(&mut self, host: usize) {
        for _ in 0..SHARDS {
            let (channels, users) = (Vec::new(), Vec::new());
            let registered =
                Registered { partition: 0, channels, events: Vec::new(), users, last: true };
            self.tell(host, ToCluster::Registered(Box::new(registered)));
        }
        self.run();
    }

    fn ask(&mut self, host: usize, question: Question, request: u32) {
        self.tell(host, ToCluster::Ask(reply(request), question));
        self.run();
    }
}

impl Host {
    fn new(number: u128, settings: &ClusterSettings, apps: Vec<App>, now: Millis) -> Self {
        let (apps, hash) = (Arc::new(Apps::new(apps)), KeyHash::random());
        let parts = NodeParts {
            settings: Arc::new(settings.clone()),
            names: Names::new([number as u8; SEED_BYTES]),
            address: format!("node {number}").into(),
            apps: Arc::clone(&apps),
            hash: hash.clone(),
            shards: SHARDS,
        };
        let node = Node::new(parts, now);
        let (sent, reports) = (Vec::new(), Vec::new());
        Self { node, apps, hash, connected: false, frozen: false, sent, reports }
    }

    /// Speaks with Redis as a driver does. Returns the number of calls.
    fn converse(&mut self, redis: &mut Model, now: Millis) -> usize {
        while !(self.connected && self.node.has_entered(0)) {
            let (id, entrance) = self.node.introduction(0, "run").unwrap();
            let entered = redis.enter(now.0, id, &entrance).unwrap();
            self.connected = self.node.entered(0, entered, now);
        }
        let mut calls = 0;
        while let Some((head, args)) = self.node.next_call(0, now) {
            calls += 1;
            match redis.call(now.0, &head, &args) {
                Executed::Done => self.node.executed(0, now),
                Executed::Enter => {
                    self.connected = false;
                    self.node.lost(0, now);
                    break;
                }
            }
        }
        let (id, after) = self.node.position(0).unwrap();
        self.node.read(0, redis.read(id, &after), now);
        calls
    }

    fn take_effects(&mut self) {
        let effects = self.node.effects();
        self.sent.extend(effects.messages.drain(..));
        self.reports.append(&mut effects.reports);
    }

    fn key(&self, channel: &str) -> ChannelKey {
        let name = self.apps.get(APP).map(|app| &app.rules).unwrap();
        let name = crate::protocol::names::ChannelName::parse(channel, 200, name.strict_names);
        self.hash.channel(APP, name.unwrap())
    }

    fn event(&self, channel: &str, text: &str) -> Event {
        let frame = Frame::text(text.len(), |out| out.extend(text.as_bytes()));
        Event { key: self.key(channel), frame, except: None, retain: None }
    }

    /// The answers that its shards got, with the numbers of their requests.
    fn answers(&mut self) -> Vec<(u32, Answer)> {
        self.take_effects();
        let answers = self.sent.extract_if(.., |(_, message)| {
            matches!(message, ShardMessage::FromHome(FromHome::Answer(..)))
        });
        let answer = |(_, message)| match message {
            ShardMessage::FromHome(FromHome::Answer(to, answer)) => (to.request, *answer),
            _ => unreachable!(),
        };
        answers.map(answer).collect()
    }

    /// The requests that were confirmed and those that were refused.
    fn confirmed(&mut self) -> (Vec<u32>, Vec<u32>) {
        let (confirmed, refused): (Vec<_>, Vec<_>) =
            self.answers().into_iter().partition(|(_, answer)| matches!(answer, Answer::Barrier));
        let numbers = |answers: Vec<(u32, Answer)>| answers.iter().map(|answer| answer.0).collect();
        (numbers(confirmed), numbers(refused))
    }

    /// The messages that its homes learnt.
    fn learnt(&mut self) -> Vec<FromCluster> {
        self.take_effects();
        let learnt = self
            .sent
            .extract_if(.., |(_, message)| matches!(message, ShardMessage::FromCluster(_)));
        let message = |(_, message)| match message {
            ShardMessage::FromCluster(message) => message,
            _ => unreachable!(),
        };
        learnt.map(message).collect()
    }

    /// The texts of the events that its homes got.
    fn events(&mut self) -> Vec<String> {
        let text = |message| match message {
            FromCluster::Event(event) => {
                Some(String::from_utf8(event.frame.payload().to_vec()).unwrap())
            }
            _ => None,
        };
        self.learnt().into_iter().filter_map(text).collect()
    }

    /// Answers the questions that its homes were asked: each has three subscriptions.
    fn answer_questions(&mut self, now: Millis) {
        self.take_effects();
        for (shard, message) in std::mem::take(&mut self.sent) {
            match message {
                ShardMessage::ToHome(_, ToHome::Ask(to, Question::State(_))) => {
                    let state = crate::channels::ChannelState {
                        subscription_count: 3,
                        ..Default::default()
                    };
                    self.node.answered(to, Answer::State(state), now);
                }
                ShardMessage::ToHome(_, ToHome::Ask(to, Question::Occupied(..))) => {
                    let name = self.key(&format!("shard-{}", shard.0)).name().clone();
                    let state = crate::channels::ChannelState {
                        subscription_count: 1,
                        user_count: 2,
                        cached: None,
                    };
                    let channels = vec![(name, state)];
                    let part = Answer::Occupied { channels, last: false };
                    self.node.answered(to, part, now);
                    let end = Answer::Occupied { channels: Vec::new(), last: true };
                    self.node.answered(to, end, now);
                }
                ShardMessage::Terminate(to, APP, user) if &*user == "ann" => {
                    self.node.terminated(to, now);
                }
                other => self.sent.push((shard, other)),
            }
        }
    }
}

fn reply(request: u32) -> ReplyTo {
    ReplyTo { shard: ShardId(1), request, index: 0 }
}

fn user(id: &str) -> Arc<User> {
    let id_json = format!("\"{id}\"").into();
    Arc::new(User { user_id: id.into(), id_json, user_info: None })
}

#[test]
fn an_event_reaches_every_interested_node_in_one_order_and_its_publisher_knows() {
    let mut world = World::new(3);
    world.join(0, "news");
    world.join(2, "news");
    world.hosts.iter_mut().for_each(|host| drop(host.learnt()));
    for (host, text, request) in [(1, "a", 1), (2, "b", 2), (1, "c", 3)] {
        world.publish(host, "news", text, request);
        world.run();
    }
    assert_eq!(world.hosts[0].events(), ["a", "b", "c"]);
    assert_eq!(world.hosts[2].events(), ["a", "b", "c"]);
    assert!(world.hosts[1].learnt().is_empty(), "nobody subscribes there");
    assert_eq!(world.hosts[1].confirmed(), (vec![1, 3], vec![]));
    assert_eq!(world.hosts[2].confirmed(), (vec![2], vec![]));
}

#[test]
fn messages_go_to_the_home_of_their_channel() {
    let mut world = World::new(1);
    for number in 0..20 {
        let key = world.hosts[0].key(&format!("channel-{number}"));
        let home = Topology::new(SHARDS).home_of(&key);
        world.tell(0, ToCluster::Join(key, 1));
        world.run();
        assert_eq!(world.hosts[0].sent.pop().unwrap().0, home);
    }
}

#[test]
fn publishes_wait_for_a_redis_that_is_away_and_are_refused_after_the_patience() {
    let mut world = World::new(2);
    world.join(1, "news");
    world.hosts[1].learnt();
    let redis = world.cut();
    world.publish(0, "news", "early", 1);
    world.pass(Duration::from_secs(5));
    world.publish(0, "news", "late", 2);
    world.pass(Duration::from_secs(4));
    assert_eq!(world.hosts[0].confirmed(), (vec![], vec![1]));
    world.publish(0, "news", "hopeless", 3);
    assert_eq!(world.hosts[0].confirmed(), (vec![], vec![3]), "at once");
    world.redis = Some(redis);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.hosts[0].confirmed(), (vec![2], vec![]));
    assert_eq!(world.hosts[1].events(), ["late"], "what was refused is not sent later");
    let back = |report: &Report| matches!(report, Report::Back { away, .. } if away.as_secs() == 9);
    assert!(world.hosts[0].reports.iter().any(back), "{:?}", world.hosts[0].reports);
}

#[test]
fn without_patience_an_event_waits_for_the_call_before_it() {
    let settings = ClusterSettings { patience: Duration::ZERO, ..settings(WhenAway::Hold) };
    let mut world = World::by(1, &settings, || vec![test_app()]);
    world.publish(0, "news", "first", 1);
    let (head, args) = world.hosts[0].node.next_call(0, world.now).unwrap();
    world.publish(0, "news", "second", 2);
    world.now = world.now + Duration::from_millis(200);
    world.hosts[0].node.tick(world.now);
    let executed = world.redis.as_mut().map(|redis| redis.call(world.now.0, &head, &args));
    assert_eq!(executed, Some(Executed::Done));
    world.hosts[0].node.executed(0, world.now);
    world.run();
    assert_eq!(world.hosts[0].confirmed(), (vec![1, 2], vec![]));
}

#[test]
fn a_full_backlog_refuses_publishes_and_drops_client_events() {
    let mut world = World::new(1);
    let redis = world.cut();
    let long = "x".repeat(40_000);
    for request in 1..=4 {
        world.publish(0, "news", &long, request);
    }
    let whisper = world.hosts[0].event("news", "w");
    world.tell(0, ToCluster::Publish(whisper));
    assert_eq!(world.hosts[0].confirmed(), (vec![], vec![4]));
    world.pass(Duration::from_secs(2));
    assert!(world.hosts[0].reports.contains(&Report::Dropped(1)));
    world.redis = Some(redis);
    world.run();
    assert_eq!(world.hosts[0].confirmed(), (vec![1, 2, 3], vec![]));
}

#[test]
fn changes_that_fill_more_than_the_backlog_are_given_up_for_a_new_beginning() {
    let mut world = World::new(1);
    let redis = world.cut();
    for number in 0..2000 {
        let key = world.hosts[0].key(&format!("channel-{number}"));
        world.tell(0, ToCluster::Join(key, 1));
    }
    world.run();
    assert!(matches!(world.hosts[0].learnt()[..], [FromCluster::Alone(true), ..]));
    assert_eq!(world.hosts[0].node.waiting_bytes(), 0);
    world.redis = Some(redis);
    world.run();
    let learnt = world.hosts[0].learnt();
    assert!(matches!(learnt[0], FromCluster::Alone(false)));
    let has = |wanted: fn(&FromCluster) -> bool| learnt.iter().any(wanted);
    assert!(has(|message| matches!(message, FromCluster::CutOff(_))));
    assert!(has(|message| matches!(message, FromCluster::Register(PartitionId { number: 0, .. }))));
}

#[test]
fn a_partition_that_is_away_fills_its_share_and_the_others_go_on() {
    let settings = ClusterSettings { partitions: 2, ..settings(WhenAway::Hold) };
    let mut world = World::by(1, &settings, || vec![test_app()]);
    let host = &world.hosts[0];
    let names = (0..1000).map(|number| format!("channel-{number}"));
    let partition = |name: &String| host.node.directory.channel_path(&host.key(name)).unwrap().1;
    // Nobody connects to the second one.
    let (here, away): (Vec<_>, Vec<_>) = names.partition(|name| partition(name) == 0);
    for name in &away {
        let event = world.hosts[0].event(name, "whisper");
        world.tell(0, ToCluster::Publish(event));
    }
    world.publish(0, &away[0], "refused", 1);
    world.publish(0, &here[0], "sent", 2);
    world.run();
    assert_eq!(world.hosts[0].confirmed(), (vec![2], vec![1]));
    world.pass(settings.patience + Duration::from_secs(1));
    assert_eq!(world.hosts[0].node.waiting_bytes(), 0, "client events expire");
    for name in away.iter().cycle().take(2000) {
        let key = world.hosts[0].key(name);
        world.tell(0, ToCluster::Join(key, 1));
    }
    world.run();
    assert_eq!(world.hosts[0].node.waiting_bytes(), 0);
    let reports = &world.hosts[0].reports;
    assert!(reports.iter().any(|of| matches!(of, Report::Overflowed { .. })));
    let alone = |of: &FromCluster| matches!(of, FromCluster::Alone(_));
    assert!(!world.hosts[0].learnt().iter().any(alone));
}

#[test]
fn the_state_of_a_channel_is_that_of_all_nodes() {
    let mut world = World::new(2);
    world.join(0, "presence-room");
    world.join(1, "presence-room");
    for (host, id) in [(0, "ann"), (1, "ben"), (1, "ann")] {
        let key = world.hosts[host].key("presence-room");
        let enter = Enter { key, member: user(id), max_members: None };
        world.tell(host, ToCluster::Enter(Box::new(enter)));
        world.run();
    }
    world.hosts.iter_mut().for_each(|host| drop(host.learnt()));
    let key = world.hosts[0].key("presence-room");
    world.ask(0, Question::State(key.clone()), 7);
    let now = world.now;
    for host in &mut world.hosts {
        assert!(host.answers().is_empty(), "before all have answered");
        host.answer_questions(now);
    }
    world.run();
    let answers = world.hosts[0].answers();
    let [(7, Answer::State(state))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((state.subscription_count, state.user_count), (6, 2));
    world.ask(0, Question::Users(key), 8);
    let answers = world.hosts[0].answers();
    let [(8, Answer::Users(users))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(users.len(), 2);
}

#[test]
fn a_question_that_comes_while_nodes_enter_is_answered_when_all_have() {
    let mut world = World::fresh(2, &settings(WhenAway::Hold), || vec![test_app()]);
    // The first node enters a Redis without nodes, and leaves others two seconds to do so.
    world.pass(Duration::from_secs(1));
    let key = world.hosts[0].key("news");
    world.ask(0, Question::State(key), 1);
    world.ask(1, Question::Connections(APP), 2);
    let answered = |world: &mut World| [0, 1].map(|host| world.hosts[host].answers());
    assert!(answered(&mut world).iter().all(Vec::is_empty), "an answer would be partial");
    world.pass(Duration::from_millis(1500));
    world.hosts[0].answer_questions(world.now);
    world.run();
    let [first, second] = answered(&mut world);
    assert!(matches!(first[..], [(1, Answer::State(_))]), "{first:?}");
    assert!(matches!(second[..], [(2, Answer::Connections(0))]), "{second:?}");
}

#[test]
fn a_question_outlasts_a_lost_connection_unless_redis_was_asked_before() {
    let mut world = World::new(1);
    world.join(0, "news");
    let key = world.hosts[0].key("news");
    world.ask(0, Question::State(key.clone()), 1);
    let redis = world.cut();
    world.ask(0, Question::State(key.clone()), 2);
    world.redis = Some(redis);
    world.run();
    let answers = world.hosts[0].answers();
    assert!(matches!(answers[..], [(1, Answer::Away)]), "{answers:?}");
    world.hosts[0].answer_questions(world.now);
    world.run();
    let answers = world.hosts[0].answers();
    assert!(matches!(answers[..], [(2, Answer::State(_))]), "{answers:?}");
    world.cut();
    world.ask(0, Question::State(key.clone()), 3);
    world.pass(Duration::from_secs(9));
    world.ask(0, Question::State(key), 4);
    let answers = world.hosts[0].answers();
    assert!(matches!(answers[..], [(3, Answer::Away), (4, Answer::Away)]), "{answers:?}");
}

#[test]
fn a_node_that_stands_still_makes_no_partial_answer_until_its_lease_is_over() {
    let mut world = World::new(2);
    world.join(0, "news");
    world.join(1, "news");
    world.hosts[1].frozen = true;
    let key = world.hosts[0].key("news");
    world.ask(0, Question::State(key.clone()), 1);
    world.hosts[0].answer_questions(world.now);
    world.pass(Duration::from_millis(1900));
    assert!(world.hosts[0].answers().is_empty());
    world.pass(Duration::from_millis(200));
    let answers = world.hosts[0].answers();
    assert!(matches!(answers[..], [(1, Answer::Unavailable)]), "{answers:?}");
    world.pass(Duration::from_secs(4));
    world.ask(0, Question::State(key), 2);
    world.hosts[0].answer_questions(world.now);
    world.pass(Duration::from_millis(100));
    let answers = world.hosts[0].answers();
    assert!(matches!(&answers[..], [(2, Answer::State(of))] if of.subscription_count == 3));
    assert!(world.hosts[0].reports.contains(&Report::Buried("node 2".into())));
}

#[test]
fn all_nodes_list_their_channels_and_close_a_users_connections() {
    let mut world = World::new(3);
    let now = world.now;
    world.ask(1, Question::Occupied(APP, "shard-".into()), 5);
    world.tell(1, ToCluster::Terminate(reply(6), APP, "ann".into()));
    world.ask(1, Question::Connections(APP), 7);
    world.hosts.iter_mut().take(2).for_each(|host| host.answer_questions(now));
    world.run();
    let done: Vec<_> = world.hosts[1].answers().iter().map(|(request, _)| *request).collect();
    assert_eq!(done, [7], "one node has not answered the others");
    world.hosts[2].answer_questions(now);
    world.run();
    let answers = world.hosts[1].answers();
    let list = answers.iter().find_map(|answer| match answer {
        (5, Answer::Occupied { channels, last: true }) => Some(channels),
        _ => None,
    });
    let list: Vec<_> = list
        .unwrap()
        .iter()
        .map(|(name, of)| (name.as_str(), of.subscription_count, of.user_count))
        .collect();
    assert_eq!(list, [("shard-0", 3, 2), ("shard-1", 3, 2)]);
    assert!(answers.iter().any(|answer| matches!(answer, (6, Answer::Barrier))));
}

#[test]
fn an_emptied_redis_learns_everything_again_and_nobody_is_told_anything() {
    let mut world = World::new(2);
    world.join(0, "presence-room");
    world.join(1, "presence-room");
    let key = world.hosts[0].key("presence-room");
    let enter = Enter { key: key.clone(), member: user("ann"), max_members: Some(5) };
    world.tell(0, ToCluster::Enter(Box::new(enter)));
    world.run();
    world.cut();
    world.redis = Some(Model::default());
    world.hosts.iter_mut().for_each(|host| drop(host.learnt()));
    world.run();
    for host in 0..2 {
        let asked = world.hosts[host].learnt();
        let registers = asked.iter().filter(|of| matches!(of, FromCluster::Register(_)));
        assert_eq!(registers.count(), usize::from(SHARDS), "{asked:?}");
        let cut = asked.iter().any(|message| matches!(message, FromCluster::CutOff(_)));
        assert!(!cut, "nothing is lost");
    }
    let key = world.hosts[1].key("presence-room");
    world.ask(1, Question::Users(key), 1);
    world.pass(Duration::from_millis(1900));
    assert!(world.hosts[1].answers().is_empty(), "the others may register in time");
    world.pass(Duration::from_millis(100));
    let answers = world.hosts[1].answers();
    assert!(matches!(answers[..], [(1, Answer::Unavailable)]), "not all have registered");
    for host in 0..2 {
        let key = world.hosts[host].key("presence-room");
        let members = if host == 0 { vec![user("ann")] } else { Vec::new() };
        for (shard, channels) in [(0, vec![(key, 1, members)]), (1, Vec::new())] {
            let (partition, users, last) = (0, Vec::new(), true);
            let registered = Registered { partition, channels, events: Vec::new(), users, last };
            world.tell(host, ToCluster::Registered(Box::new(registered)));
            // Nodes wait for each other.
            world.pass(Duration::from_secs(2));
            let settled = world.hosts[0].learnt();
            let settled = settled.iter().any(|message| matches!(message, FromCluster::Settled(_)));
            assert_eq!(settled, (host, shard) == (1, 1), "when the last shard has registered");
        }
    }
    let told = world.hosts[1].learnt();
    let news = |message: &FromCluster| {
        matches!(message, FromCluster::Added(..) | FromCluster::Removed(..))
            || matches!(message, FromCluster::Joined(joined) if joined.occupied)
    };
    assert!(!told.iter().any(news), "{told:?}");
    let key = world.hosts[1].key("presence-room");
    world.ask(1, Question::Users(key), 2);
    let answers = world.hosts[1].answers();
    assert!(matches!(&answers[..], [(2, Answer::Users(users))] if users.len() == 1));
}

#[test]
fn a_connection_that_is_lost_between_registrations_makes_them_no_news() {
    let mut world = World::new(2);
    world.join(0, "presence-room");
    world.join(1, "presence-room");
    world.cut();
    world.redis = Some(Model::default());
    world.run();
    let redis = world.cut();
    world.redis = Some(redis);
    world.run();
    world.hosts[1].learnt();
    let key = world.hosts[0].key("presence-room");
    let channels = vec![(key, 1, vec![user("ann")])];
    let registered =
        Registered { partition: 0, channels, events: Vec::new(), users: Vec::new(), last: true };
    world.tell(0, ToCluster::Registered(Box::new(registered)));
    // Homes are asked once more, because the second entrance reminds the node of the first.
    for host in [0, 0, 1, 1] {
        world.register_nothing(host);
    }
    world.pass(Duration::from_secs(2));
    assert!(world.hosts.iter().all(|host| host.node.is_serving(0)));
    let told = world.hosts[1].learnt();
    assert!(!told.iter().any(|of| matches!(of, FromCluster::Added(..))), "{told:?}");
}

#[test]
fn a_node_that_comes_first_to_an_emptied_redis_waits_for_others_before_it_publishes() {
    let mut world = World::new(1);
    world.join(0, "news");
    world.cut();
    world.redis = Some(Model::default());
    world.hosts[0].frozen = true;
    let newcomer = Host::new(2, &settings(WhenAway::Hold), vec![test_app()], world.now);
    world.hosts.push(newcomer);
    world.publish(1, "news", "early", 1);
    world.pass(Duration::from_millis(1500));
    assert_eq!(world.hosts[1].confirmed(), (vec![], vec![]));
    world.hosts[0].frozen = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.hosts[1].confirmed(), (vec![1], vec![]));
    assert_eq!(world.hosts[0].events(), ["early"]);
}

#[test]
fn a_node_that_nobody_knew_is_cut_off_from_what_was_published_without_it() {
    let mut world = World::new(2);
    world.join(1, "news");
    world.cut();
    world.redis = Some(Model::default());
    world.hosts[1].frozen = true;
    let stranger = Host::new(3, &settings(WhenAway::Hold), vec![test_app()], world.now);
    world.hosts.remove(0);
    world.hosts.push(stranger);
    world.publish(1, "news", "missed", 1);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.hosts[1].confirmed(), (vec![1], vec![]));
    world.hosts[0].frozen = false;
    world.run();
    let cut = |message: &FromCluster| matches!(message, FromCluster::CutOff(_));
    assert!(world.hosts[0].learnt().iter().any(cut));
    assert!(!world.hosts[1].learnt().iter().any(cut), "the stranger has missed nothing");
}

#[test]
fn a_user_is_not_taken_for_offline_before_all_nodes_have_registered() {
    let mut world = World::new(2);
    let ann = world.hosts[0].hash.user(APP, "ann".into());
    // Each node hears of the other.
    world.pass(Duration::from_secs(2));
    world.cut();
    world.redis = Some(Model::default());
    world.hosts[1].frozen = true;
    world.run();
    world.tell(0, ToCluster::Users(vec![(ann.clone(), Step::Watch)]));
    for _ in 0..SHARDS {
        let (channels, users) = (Vec::new(), Vec::new());
        let registered =
            Registered { partition: 0, channels, events: Vec::new(), users, last: true };
        world.tell(0, ToCluster::Registered(Box::new(registered)));
    }
    world.run();
    let online = |learnt: Vec<FromCluster>| -> Vec<bool> {
        let online = learnt.into_iter().filter_map(|message| match message {
            FromCluster::Online(user, online) if user == ann => Some(online),
            _ => None,
        });
        online.collect()
    };
    assert_eq!(online(world.hosts[0].learnt()), [false; 0], "the other node may have the user");
    world.pass(Duration::from_secs(8));
    let learnt = world.hosts[0].learnt();
    let certain =
        |message: &FromCluster| matches!(message, FromCluster::Certain(user) if *user == ann);
    assert!(learnt.iter().any(certain), "it is dead");
    world.tell(0, ToCluster::Users(vec![(ann.clone(), Step::Watch)]));
    world.run();
    assert_eq!(online(world.hosts[0].learnt()), [false]);
}

#[test]
fn a_node_without_redis_serves_its_clients_alone_and_returns_under_another_name() {
    let mut world = World::with(2, WhenAway::Local, || vec![test_app()]);
    world.join(0, "news");
    world.hosts[0].learnt();
    let before = world.hosts[0].node.position(0).unwrap().0;
    let redis = world.cut();
    world.pass(Duration::from_secs(7));
    world.publish(0, "news", "waits", 1);
    world.pass(Duration::from_secs(2));
    let learnt = world.hosts[0].learnt();
    let alone = |of: &FromCluster| matches!(of, FromCluster::Alone(true));
    assert_eq!(learnt.iter().filter(|of| alone(of)).count(), usize::from(SHARDS));
    let event = |of: &FromCluster| matches!(of, FromCluster::Event(_));
    assert_eq!(learnt.iter().filter(|of| event(of)).count(), 1);
    world.publish(0, "news", "here", 2);
    assert_eq!(world.hosts[0].events(), ["here"]);
    assert_eq!(world.hosts[0].confirmed(), (vec![1, 2], vec![]));
    world.redis = Some(redis);
    world.run();
    let learnt = world.hosts[0].learnt();
    assert!(matches!(learnt[0], FromCluster::Alone(false)), "{learnt:?}");
    assert!(learnt.iter().any(|message| matches!(message, FromCluster::Register(_))));
    let after = world.hosts[0].node.position(0).unwrap().0;
    assert_ne!(after, before);
    world.pass(Duration::from_secs(20));
    assert!(!world.hosts[0].learnt().iter().any(alone), "it is in, though homes are slow");
    assert_eq!(world.hosts[0].node.position(0).unwrap().0, after);
}

#[test]
fn an_entrance_under_a_name_that_was_given_up_meanwhile_does_not_count() {
    let mut world = World::with(1, WhenAway::Local, || vec![test_app()]);
    let mut redis = world.cut();
    world.pass(Duration::from_secs(7));
    let node = &mut world.hosts[0].node;
    let (id, entrance) = node.introduction(0, "run").unwrap();
    let entered = redis.enter(world.now.0, id, &entrance).unwrap();
    world.pass(Duration::from_secs(2));
    assert!(!world.hosts[0].node.entered(0, entered, world.now));
    world.redis = Some(redis);
    world.run();
    let learnt = world.hosts[0].learnt();
    let alone: Vec<bool> = learnt
        .iter()
        .filter_map(|message| match message {
            FromCluster::Alone(alone) => Some(*alone),
            _ => None,
        })
        .collect();
    assert_eq!(alone, [true, true, false, false]);
}

#[test]
fn a_node_that_returns_is_not_alone_again_while_its_homes_register() {
    let mut world = World::with(1, WhenAway::Local, || vec![test_app()]);
    let redis = world.cut();
    world.pass(Duration::from_secs(9));
    world.redis = Some(redis);
    world.pass(Duration::from_secs(10));
    world.register_nothing(0);
    let alone = |of: &FromCluster| matches!(of, FromCluster::Alone(true));
    let learnt = world.hosts[0].learnt();
    assert_eq!(learnt.iter().filter(|of| alone(of)).count(), usize::from(SHARDS), "once");
    assert!(world.hosts[0].node.is_serving(0));
}

#[test]
fn a_quota_holds_over_all_nodes_and_permits_go_where_they_are_needed() {
    let app = || vec![App { max_connections: Some(10), ..test_app() }];
    let mut world = World::with(2, WhenAway::Hold, app);
    let mut open: [Vec<Admission>; 2] = [Vec::new(), Vec::new()];
    let admit = |world: &mut World, host: usize, open: &mut Vec<Admission>| {
        let app = Arc::clone(world.hosts[host].apps.get(APP).unwrap());
        if let Some(admission) = Admission::take(&app) {
            open.push(admission);
            return true;
        }
        world.tell(host, ToCluster::MorePlaces(reply(1), APP));
        world.pass(Duration::from_millis(700));
        let place = matches!(world.hosts[host].answers()[..], [(1, Answer::Barrier)]);
        if place {
            open.extend(Admission::take(&app));
        }
        place
    };
    assert!(admit(&mut world, 0, &mut open[0]));
    for _ in 0..9 {
        assert!(admit(&mut world, 1, &mut open[1]), "the first node returns what it has too much");
    }
    assert_eq!((open[0].len(), open[1].len()), (1, 9));
    assert!(!admit(&mut world, 0, &mut open[0]) && !admit(&mut world, 1, &mut open[1]));
    open[1].pop();
    assert!(admit(&mut world, 0, &mut open[0]));
    assert_eq!((open[0].len(), open[1].len()), (2, 8));
}

#[test]
fn permits_are_claimed_again_from_a_redis_that_was_emptied() {
    let app = || vec![App { max_connections: Some(10), ..test_app() }];
    let mut world = World::with(2, WhenAway::Hold, app);
    world.tell(0, ToCluster::MorePlaces(reply(1), APP));
    world.run();
    let held = world.hosts[0].apps.get(APP).unwrap().counters.permits();
    assert!(held > 0);
    world.cut();
    world.redis = Some(Model::default());
    world.run();
    for _ in 0..3 {
        world.tell(1, ToCluster::MorePlaces(reply(1), APP));
        world.run();
    }
    let permits = |host: usize| world.hosts[host].apps.get(APP).unwrap().counters.permits();
    assert!(permits(0) + permits(1) <= 10, "{} and {}", permits(0), permits(1));
}

#[test]
fn nodes_with_other_apps_are_named_once_and_their_channels_are_nobodys() {
    let mut world = World::new(2);
    let others = Arc::new(Apps::new(vec![test_app_named(0, "other", "key")]));
    world.hosts[1].apps = Arc::clone(&others);
    world.hosts[1].node.adopt(Arc::clone(&others), world.now);
    world.pass(Duration::from_secs(5));
    let differ = |report: &&Report| **report == Report::AppsDiffer("node 2".into());
    assert_eq!(world.hosts[0].reports.iter().filter(differ).count(), 1);
    let enter = |outcome: &FromCluster| {
        matches!(outcome, FromCluster::Entered(_, _, EnterOutcome::Entered { .. }))
    };
    assert!(!world.hosts[0].learnt().iter().any(enter));
    world.hosts[0].node.adopt(others, world.now);
    world.pass(Duration::from_secs(5));
    assert!(world.hosts.iter().all(|host| host.node.differing.is_empty()), "all have the same");
}

#[test]
fn a_reload_tells_the_other_nodes_and_every_question_is_answered() {
    let mut world = World::new(2);
    let all = [1, 2].map(|limit| {
        let app = App { max_connections: Some(limit), ..test_app() };
        Arc::new(Apps::new(vec![app]))
    });
    for number in 0..60 {
        if number % 7 == 0 {
            let apps = &all[number % 2];
            world.hosts.iter_mut().for_each(|host| host.node.adopt(Arc::clone(apps), world.now));
        }
        world.ask(0, Question::Connections(APP), number as u32);
        world.pass(Duration::from_millis(100));
        let answers = world.hosts[0].answers();
        assert!(matches!(answers[..], [(_, Answer::Connections(_))]), "{number}: {answers:?}");
    }
    world.pass(Duration::from_secs(2));
    let last = world.hosts[1].node.fingerprint.clone();
    let apps = &world.hosts[0].node.partitions[0].nodes;
    assert!(apps.iter().all(|node| node.apps == last), "{apps:?}");
}
