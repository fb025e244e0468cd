//! Tests of [`Users`] and [`UserHomes`] together, against the true state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use serde_json::Value;

use super::super::{FromHome, KeyHash, Outbox, Topology, UserHomes};
use super::*;
use crate::id::{AppIndex, ShardId};

const SHARDS: usize = 3;
const TOPOLOGY: Topology = Topology::new(SHARDS as u16);
const IDS: [&str; 4] = ["ann", "ben", "cleo", "dan"];

/// A message between two shards.
enum Message {
    ToHome(Steps),
    Online(Vec<(UserKey, bool)>),
}

/// Shards that exchange messages by queues, and their connections.
struct World {
    hash: KeyHash,
    users: Vec<Users>,
    homes: Vec<UserHomes>,
    /// Messages by sending and receiving shard, oldest first.
    queues: BTreeMap<(usize, usize), VecDeque<Message>>,
    connections: BTreeMap<(usize, u32), Peer>,
    generation: u32,
}

struct Peer {
    conn: ConnKey,
    user: usize,
    watches: BTreeSet<usize>,
    /// The users that it believes to be online.
    online: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        Self {
            hash: KeyHash::random(),
            users: (0..SHARDS).map(|_| Users::default()).collect(),
            homes: (0..SHARDS).map(|_| UserHomes::default()).collect(),
            queues: BTreeMap::new(),
            connections: BTreeMap::new(),
            generation: 0,
        }
    }

    fn key(&self, user: usize) -> UserKey {
        self.hash.user(AppIndex(0), IDS[user].into())
    }

    /// Signs a connection in. In a slot that is in use, the same connection signs in again as the
    /// same user.
    fn sign_in(&mut self, shard: usize, slot: u32, user: usize, watches: BTreeSet<usize>) {
        let earlier = self.connections.remove(&(shard, slot));
        let user = earlier.as_ref().map_or(user, |earlier| earlier.user);
        let conn = earlier.as_ref().map_or_else(
            || {
                self.generation += 1;
                ConnKey { slot, generation: self.generation }
            },
            |earlier| earlier.conn,
        );
        let member =
            Arc::new(Member { user_id: IDS[user].into(), id_json: "".into(), user_info: None });
        let watchlist = watches.iter().map(|&user| self.key(user)).collect();
        let mut steps = Steps::new();
        let key = self.key(user);
        self.users[shard].sign_in(conn, key, member, watchlist, &mut steps);
        self.connections
            .insert((shard, slot), Peer { conn, user, watches, online: BTreeSet::new() });
        self.tell(shard, steps);
    }

    fn sign_out(&mut self, shard: usize, slot: u32) {
        self.connections.remove(&(shard, slot));
        let mut steps = Steps::new();
        self.users[shard].sign_out(slot, &mut steps);
        self.tell(shard, steps);
    }

    fn tell(&mut self, shard: usize, steps: Steps) {
        for (key, step) in steps {
            let home = TOPOLOGY.home_of_user(&key).index();
            let message = Message::ToHome(vec![(key, step)]);
            self.queues.entry((shard, home)).or_default().push_back(message);
        }
    }

    /// Delivers one message. Returns `false` if none is on its way there.
    fn pass(&mut self, from: usize, to: usize) -> bool {
        let queue = self.queues.entry((from, to)).or_default();
        let Some(message) = queue.pop_front() else { return false };
        match message {
            Message::ToHome(steps) => {
                let (from, mut out) = (ShardId(u16::try_from(from).unwrap()), Outbox::default());
                self.homes[to].handle(from, steps, &mut out);
                for (shard, message) in out.messages() {
                    let FromHome::Online(told) = message else { panic!("{message:?}") };
                    let queue = self.queues.entry((to, shard.index())).or_default();
                    queue.push_back(Message::Online(told));
                }
            }
            Message::Online(told) => {
                told.iter().for_each(|(key, online)| self.users[to].learn(key, *online));
            }
        }
        true
    }

    fn flush(&mut self, shard: usize) {
        let connections = &mut self.connections;
        let mut once = BTreeSet::new();
        self.users[shard].flush(|conn, frame| {
            assert!(once.insert((conn.slot, conn.generation)), "one frame a turn");
            // As in the plane, nothing reaches the next connection of a slot.
            let Some(peer) = connections.get_mut(&(shard, conn.slot)) else { return };
            if peer.conn == conn {
                hear(peer, frame);
            }
        });
    }

    fn rest(&mut self) {
        while (0..SHARDS * SHARDS)
            .fold(false, |moved, at| moved | self.pass(at / SHARDS, at % SHARDS))
        {}
        (0..SHARDS).for_each(|shard| self.flush(shard));
    }

    fn is_online(&self, user: usize) -> bool {
        self.connections.values().any(|peer| peer.user == user)
    }

    /// Asserts that everyone knows who is online, and that nothing else is kept.
    fn judge(&self) {
        for peer in self.connections.values() {
            let online = peer.watches.iter().filter(|&&user| self.is_online(user));
            let online: BTreeSet<_> = online.map(|&user| IDS[user].to_owned()).collect();
            assert_eq!(peer.online, online, "as {} sees it", IDS[peer.user]);
        }
        let of_interest = |shard: Option<usize>| {
            let peers = self.connections.iter();
            let peers = peers.filter(|((on, _), _)| shard.is_none_or(|shard| shard == *on));
            let named = peers.flat_map(|(_, peer)| peer.watches.iter().chain([&peer.user]));
            named.collect::<BTreeSet<_>>().len()
        };
        let homes: usize = self.homes.iter().map(UserHomes::len).sum();
        assert_eq!(homes, of_interest(None));
        for (shard, users) in self.users.iter().enumerate() {
            assert_eq!(users.len(), of_interest(Some(shard)));
        }
        for (&(shard, slot), peer) in &self.connections {
            let user = self.users[shard].user(slot).map(|user| user.user_id.to_string());
            assert_eq!(user.as_deref(), Some(IDS[peer.user]));
        }
    }
}

fn hear(peer: &mut Peer, frame: &Frame) {
    let bytes = frame.bytes();
    // The length byte may look like a brace: 123 is one.
    let start = match bytes[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let message: Value = serde_json::from_slice(&bytes[start..]).unwrap();
    assert_eq!(message["event"], "pusher_internal:watchlist_events");
    let data: Value = serde_json::from_str(message["data"].as_str().unwrap()).unwrap();
    for event in data["events"].as_array().unwrap() {
        for id in event["user_ids"].as_array().unwrap() {
            let id = id.as_str().unwrap().to_owned();
            match event["name"].as_str().unwrap() {
                "online" => drop(peer.online.insert(id)),
                "offline" => assert!(peer.online.remove(&id), "{id} was offline"),
                other => panic!("{other}"),
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    SignIn { shard: usize, slot: u32, user: usize, watches: BTreeSet<usize> },
    SignOut { shard: usize, slot: u32 },
    Pass { from: usize, to: usize },
    Flush { shard: usize },
}

fn any_act() -> impl Strategy<Value = Act> {
    let (shard, slot, user) = (0..SHARDS, 0..4_u32, 0..IDS.len());
    let watches = prop::collection::btree_set(0..IDS.len(), 0..4);
    prop_oneof![
        3 => (shard.clone(), slot.clone(), user, watches)
            .prop_map(|(shard, slot, user, watches)| Act::SignIn { shard, slot, user, watches }),
        3 => (shard.clone(), slot).prop_map(|(shard, slot)| Act::SignOut { shard, slot }),
        6 => (shard.clone(), shard.clone()).prop_map(|(from, to)| Act::Pass { from, to }),
        2 => shard.prop_map(|shard| Act::Flush { shard }),
    ]
}

proptest! {
    #[test]
    fn in_the_end_every_watcher_knows_who_is_online(
        acts in prop::collection::vec(any_act(), 1..150),
    ) {
        let mut world = World::new();
        for act in acts {
            match act {
                Act::SignIn { shard, slot, user, watches } => {
                    world.sign_in(shard, slot, user, watches);
                }
                Act::SignOut { shard, slot } => world.sign_out(shard, slot),
                Act::Pass { from, to } => drop(world.pass(from, to)),
                Act::Flush { shard } => world.flush(shard),
            }
        }
        world.rest();
        world.judge();
        for (shard, slot) in world.connections.keys().copied().collect::<Vec<_>>() {
            world.sign_out(shard, slot);
        }
        world.rest();
        world.judge();
        prop_assert!(world.users.iter().all(|users| users.len() == 0));
        prop_assert!(world.homes.iter().all(|homes| homes.len() == 0));
    }
}

#[test]
fn news_that_nobody_is_owed_any_more_are_not_kept() {
    let hash = KeyHash::random();
    let key = |id: &str| hash.user(AppIndex(0), id.into());
    let conn = ConnKey { slot: 1, generation: 0 };
    let mut users = Users::default();
    users.sign_in(conn, key("a"), member("a"), vec![key("x")], &mut Steps::new());
    users.learn(&key("x"), true);
    users.sign_in(conn, key("a"), member("a"), Vec::new(), &mut Steps::new());
    assert_eq!(told(&mut users), []);
    assert!(users.news.is_empty() && users.owed.is_empty());
}

fn told(users: &mut Users) -> Vec<(u32, String)> {
    let mut told = Vec::new();
    users.flush(|conn, frame| {
        told.push((conn.slot, String::from_utf8_lossy(frame.bytes()).into_owned()));
    });
    told
}

fn member(id: &str) -> Arc<Member> {
    Arc::new(Member { user_id: id.into(), id_json: "".into(), user_info: None })
}

#[test]
fn the_homes_hear_of_the_first_and_the_last_only() {
    let hash = KeyHash::random();
    let key = |id: &str| hash.user(AppIndex(0), id.into());
    let mut users = Users::default();
    let mut tell = |slot: u32, id: Option<&str>| {
        let mut steps = Steps::new();
        let conn = ConnKey { slot, generation: 0 };
        match id {
            Some(id) => users.sign_in(conn, key(id), member(id), vec![key("w")], &mut steps),
            None => users.sign_out(slot, &mut steps),
        }
        steps.into_iter().map(|(key, step)| (key.id().to_string(), step)).collect::<Vec<_>>()
    };
    assert_eq!(tell(1, Some("a")), [("a".into(), Step::Arrived), ("w".into(), Step::Watch)]);
    assert_eq!(tell(2, Some("a")), []);
    assert_eq!(tell(3, Some("b")), [("b".into(), Step::Arrived)]);
    assert_eq!(tell(1, None), []);
    assert_eq!(tell(1, None), []);
    // The same user signs in again, without having been away.
    assert_eq!(tell(2, Some("a")), []);
    assert_eq!(tell(2, None), [("a".into(), Step::Left)]);
    assert_eq!(tell(3, None), [("w".into(), Step::Unwatch), ("b".into(), Step::Left)]);
    assert_eq!(users.len(), 0);
}

#[test]
fn a_watcher_gets_one_frame_a_turn_and_those_who_hear_the_same_share_it() {
    let hash = KeyHash::random();
    let key = |id: &str| hash.user(AppIndex(0), id.into());
    let mut users = Users::default();
    for (slot, watched) in [(1, vec!["x"]), (2, vec!["x"]), (3, vec!["x", "y"])] {
        let watchlist = watched.into_iter().map(key).collect();
        let conn = ConnKey { slot, generation: 0 };
        users.sign_in(conn, key("a"), member("a"), watchlist, &mut Steps::new());
    }
    users.learn(&key("x"), false);
    assert_eq!(told(&mut users), [], "who is not online has not gone offline");
    users.learn(&key("y"), true);
    users.learn(&key("x"), true);
    users.learn(&key("x"), true);
    let mut frames = Vec::new();
    users.flush(|conn, frame| frames.push((conn.slot, frame.clone())));
    assert_eq!(frames.iter().map(|&(slot, _)| slot).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(frames[0].1.bytes().as_ptr(), frames[1].1.bytes().as_ptr());
    assert_eq!(frames[2].1, outbound::watchlist_events([("y", true), ("x", true)].into_iter()));
    // A connection that comes later is told the state that is known here.
    let conn = ConnKey { slot: 4, generation: 0 };
    users.sign_in(conn, key("b"), member("b"), vec![key("x")], &mut Steps::new());
    let told = told(&mut users);
    assert_eq!(told.len(), 1);
    assert!(told[0].0 == 4 && told[0].1.contains("online"), "{told:?}");
}
