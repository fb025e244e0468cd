//! Nodes that make the same calls on a model and on a Redis, and compare what comes out.

use std::cell::Cell;

use bytes::Bytes;

use super::server::{Server, TAG};
use crate::channels::{ChannelPath, UserPath};
use crate::cluster::model::Model;
use crate::cluster::store::{CallHead, Executed};
use crate::cluster::wire::{
    CallKind, Command, Entered, Entrance, Entry, JoinFlags, MemberText, NodeId, Record, Retained,
};
use crate::frame::Frame;

pub(super) const LEASE_MS: u64 = 5000;
pub(super) const RETENTION_MS: u64 = 60_000;

/// A time to live that no test outlives, in Redis' own time.
const LONG_MS: u64 = 5_000_000_000;

/// A partition and its nodes. Without a Redis there is only the model.
pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) model: Model,
    pub(super) server: Option<Server>,
    pub(super) nodes: Vec<Node>,
    /// The bound of inboxes.
    pub(super) inbox_bytes: u64,
    /// The identity of the server.
    pub(super) run: Box<str>,
    /// Whether the model and Redis may differ: the part that is taken out of a large set is any.
    pub(super) apart: bool,
}

/// The knowledge of a node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    epoch: Box<str>,
    /// The number of the next batch.
    pub(super) next: u64,
    registrations: u64,
    /// How far the node has read the model's inbox, and that of Redis.
    read: [Box<str>; 2],
    read_bytes: u64,
    /// The last entry of each that was compared.
    compared: [Box<str>; 2],
}

impl World {
    /// So many nodes, which have not entered, on a Redis that may have been used before.
    pub(super) fn on(mut server: Option<Server>, nodes: u128) -> Self {
        if let Some(server) = &mut server {
            server.admin::<()>(&["FLUSHALL"]);
        }
        let start: [Box<str>; 2] = ["0".into(), "0".into()];
        let node = |id| Node {
            id: NodeId(id),
            epoch: "".into(),
            next: 1,
            registrations: 0,
            read: start.clone(),
            read_bytes: 0,
            compared: start.clone(),
        };
        let nodes = (1..=nodes).map(node).collect();
        let (now_ms, model) = (1_700_000_000_000, Model::default());
        let (inbox_bytes, run) = (64 << 20, "run 1".into());
        let mut world = Self { now_ms, model, server, nodes, inbox_bytes, run, apart: false };
        world.pass(0);
        world
    }

    /// So many nodes that have entered, and have nothing to register.
    pub(super) fn settled(nodes: u128) -> Self {
        Self::settled_on(Server::start(), nodes)
    }

    pub(super) fn settled_on(server: Option<Server>, nodes: u128) -> Self {
        let mut world = Self::on(server, nodes);
        for node in 0..world.nodes.len() {
            world.enter(node);
            world.call(node, &[Command::Ready]);
            world.tend(node);
        }
        (0..world.nodes.len()).for_each(|node| _ = world.read(node));
        world
    }

    pub(super) fn id(&self, node: usize) -> NodeId {
        self.nodes[node].id
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        if let Some(server) = &mut self.server {
            server.set_clock(self.now_ms);
        }
    }

    /// Seconds pass, in which some nodes tend.
    pub(super) fn pass_tended(&mut self, seconds: u64, by: &[usize]) {
        for _ in 0..seconds {
            self.pass(1000);
            by.iter().for_each(|&node| _ = self.tend(node));
        }
    }

    /// A node enters, with all others as known nodes.
    pub(super) fn enter(&mut self, node: usize) -> Entered {
        self.enter_with(node, self.nodes[node].next - 1)
    }

    /// A node enters that can repeat the batches behind `base`.
    pub(super) fn enter_with(&mut self, node: usize, base: u64) -> Entered {
        self.enter_knowing(node, base, 0..self.nodes.len())
    }

    /// A node enters, with some others as known nodes.
    pub(super) fn enter_knowing(
        &mut self,
        node: usize,
        base: u64,
        known: impl IntoIterator<Item = usize>,
    ) -> Entered {
        let id = self.id(node);
        let entrance = Entrance {
            partitions: 1,
            epoch: format!("epoch of {id:?} at {}", self.now_ms).into(),
            run: self.run.clone(),
            version: "1".into(),
            address: format!("address {node}").into(),
            base,
            lease_ms: LEASE_MS,
            known: known
                .into_iter()
                .map(|node| self.id(node))
                .filter(|known| *known != id)
                .collect(),
        };
        let entered = self.model.enter(self.now_ms, id, &entrance).unwrap();
        if let Some(server) = &mut self.server {
            assert_eq!(server.enter(id, &entrance), Ok(entered.clone()));
        }
        let node = &mut self.nodes[node];
        node.epoch = entered.epoch.clone();
        node.next = entered.done + 1;
        if entered.unknown || entered.cut {
            node.read = ["0".into(), "0".into()];
            node.read_bytes = 0;
        }
        self.compare(false);
        entered
    }

    /// A node makes its next batch.
    pub(super) fn call(&mut self, node: usize, commands: &[Command]) -> Executed {
        let number = self.nodes[node].next;
        let executed = self.call_as(node, CallKind::Batch, number, commands);
        if executed == Executed::Done {
            self.nodes[node].next = number + 1;
        }
        executed
    }

    /// A node registers anew.
    pub(super) fn register(&mut self, node: usize, commands: &[Command]) -> Executed {
        self.nodes[node].registrations += 1;
        let number = self.nodes[node].registrations;
        self.call_as(node, CallKind::Registration, number, commands)
    }

    /// A node makes a call of this number.
    pub(super) fn call_as(
        &mut self,
        node: usize,
        kind: CallKind,
        number: u64,
        commands: &[Command],
    ) -> Executed {
        let encoded = || {
            let mut args = Vec::new();
            commands.iter().for_each(|command| command.push_args(&mut args));
            args
        };
        self.execute(node, kind, number, &encoded(), &encoded())
    }

    /// A node tends, with what it has read.
    pub(super) fn tend(&mut self, node: usize) -> Executed {
        let Node { read, read_bytes, next, .. } = self.nodes[node].clone();
        let [model, redis] = read.map(|id| {
            let read_id = if &*id == "0" { "".into() } else { id };
            let mut args = Vec::new();
            let apps = "fingerprint".into();
            Command::Tend { read_id, read_bytes, departures: true, apps }.push_args(&mut args);
            args
        });
        let executed = self.execute(node, CallKind::Batch, next, &model, &redis);
        if executed == Executed::Done {
            self.nodes[node].next += 1;
        }
        executed
    }

    fn execute(
        &mut self,
        node: usize,
        kind: CallKind,
        number: u64,
        model: &[Bytes],
        redis: &[Bytes],
    ) -> Executed {
        let Node { id: node, epoch, .. } = self.nodes[node].clone();
        let (lease_ms, retention_ms, inbox_bytes) = (LEASE_MS, RETENTION_MS, self.inbox_bytes);
        let head = CallHead { node, epoch, kind, number, lease_ms, retention_ms, inbox_bytes };
        let executed = self.model.call(self.now_ms, &head, model);
        if let Some(server) = &mut self.server {
            assert_eq!(server.call(&head, redis), executed, "{head:?}");
        }
        // Registrations leave a set in any order.
        self.compare(model.iter().any(|arg| matches!(&arg[..], b"bury" | b"quit")));
        executed
    }

    /// The records that a node has not read, which are read then.
    pub(super) fn read(&mut self, node: usize) -> Vec<Record> {
        let Node { id, read, .. } = self.nodes[node].clone();
        let model = self.model.read(id, &read[0]);
        let mut redis = self.server.as_mut().map(|server| server.inbox(id)).unwrap_or_default();
        redis.retain(|(id, _)| is_behind(id, &read[1]));
        let node = &mut self.nodes[node];
        let [model_id, redis_id] = &mut node.read;
        model.last().into_iter().for_each(|(last, _)| last.clone_into(model_id));
        redis.last().into_iter().for_each(|(last, _)| last.clone_into(redis_id));
        node.read_bytes += model.iter().map(|(_, field)| field.len() as u64).sum::<u64>();
        let entries = if self.apart && self.server.is_some() { redis } else { model };
        let entries = entries.into_iter().map(|(_, field)| Entry::decode(field).unwrap());
        entries.flat_map(|entry| entry.records().map(Option::unwrap).collect::<Vec<_>>()).collect()
    }

    /// Redis comes back empty, as another server.
    pub(super) fn empty(&mut self) {
        self.model = Model::default();
        if let Some(server) = &mut self.server {
            server.admin::<()>(&["FLUSHALL"]);
        }
        self.restart();
    }

    /// Redis comes back as it was, as another server.
    pub(super) fn restart(&mut self) {
        thread_local!(static RUNS: Cell<u32> = const { Cell::new(1) });
        RUNS.set(RUNS.get() + 1);
        self.run = format!("run {}", RUNS.get()).into();
        self.pass(0);
    }

    /// Redis evicts an inbox. Some time passes, so that the ids of a new one are behind those of
    /// the old one, as with the clock of a Redis.
    pub(super) fn evict_inbox(&mut self, node: usize) {
        self.pass(1);
        let id = self.id(node);
        self.model.evict_inbox(id);
        if let Some(server) = &mut self.server {
            server.admin::<()>(&["DEL", &format!("{TAG}in:{id}")]);
        }
    }

    /// Compares the states, and what was appended to inboxes since the last comparison.
    fn compare(&mut self, in_any_order: bool) {
        let Some(server) = self.server.as_mut().filter(|_| !self.apart) else { return };
        assert_eq!(server.state(), self.model.state());
        for node in &mut self.nodes {
            let [model, redis] = [self.model.read(node.id, "0"), server.inbox(node.id)];
            assert_eq!(model.len(), redis.len(), "entries for {:?}", node.id);
            for (model, redis) in model.iter().zip(&redis) {
                if !is_behind(&redis.0, &node.compared[1]) {
                    continue;
                }
                let fields = [&model.1, &redis.1];
                let [model_entry, redis_entry] =
                    fields.map(|field| comparable(field, in_any_order));
                assert_eq!(redis_entry, model_entry, "an entry for {:?}", node.id);
                assert_eq!(model.1.len(), redis.1.len());
            }
            for (compared, entries) in node.compared.iter_mut().zip([model, redis]) {
                entries.last().into_iter().for_each(|(last, _)| last.clone_into(compared));
            }
        }
    }
}

impl Server {
    /// The entries of an inbox with their ids.
    fn inbox(&mut self, node: NodeId) -> Vec<(Box<str>, Bytes)> {
        let key = format!("{TAG}in:{node}");
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.admin(&["XRANGE", &key, "-", "+"]);
        entries.into_iter().map(|(id, parts)| (id.into(), parts.concat().into())).collect()
    }
}

/// Whether the id of an entry is behind another one.
fn is_behind(id: &str, other: &str) -> bool {
    let parts = |id: &str| {
        let (ms, number) = id.split_once('-').unwrap_or((id, "0"));
        (ms.parse::<u64>().unwrap(), number.parse::<u64>().unwrap())
    };
    parts(id) > parts(other)
}

/// An entry whose lists are in order, and whose encoding was found to be exact.
fn comparable(field: &Bytes, in_any_order: bool) -> (NodeId, CallKind, u64, Vec<Record>) {
    let entry = Entry::decode(field.clone()).unwrap();
    let records: Vec<_> = entry.records().map(Option::unwrap).collect();
    let encoded: Vec<u8> = records.iter().flat_map(|record| record.encode().to_vec()).collect();
    assert_eq!(encoded, entry.records);
    let mut records: Vec<_> = records.into_iter().map(ordered).collect();
    if in_any_order {
        records.sort_by_key(|record| record.encode());
    }
    (entry.origin, entry.kind, entry.number, records)
}

/// A record whose lists are in order, and in which no time of Redis' own has passed.
fn ordered(mut record: Record) -> Record {
    match &mut record {
        Record::Joined { members, last, .. } => {
            members.sort_by(|a, b| a.bytes().cmp(b.bytes()));
            last.iter_mut().for_each(|(retained, _)| retained.ttl_ms = LONG_MS);
        }
        Record::Asked { nodes, last, .. } => {
            nodes.sort_unstable();
            last.iter_mut().for_each(|(retained, _)| retained.ttl_ms = LONG_MS);
        }
        Record::Users(_, users) => users.sort_unstable(),
        _ => {}
    }
    record
}

pub(super) fn channel(name: &str) -> ChannelPath {
    ChannelPath::new("app", name)
}

pub(super) fn user(id: &str) -> UserPath {
    UserPath::new("app", id)
}

pub(super) fn flags(letters: &str) -> JoinFlags {
    let [presence, counted, told, anew] = ['p', 'c', 't', 'a'].map(|it| letters.contains(it));
    JoinFlags { presence, counted, told, anew }
}

pub(super) fn join(name: &str, count: u32, letters: &str) -> Command {
    Command::Join(channel(name), count, flags(letters))
}

pub(super) fn leave(name: &str, letters: &str) -> Command {
    Command::Leave(channel(name), flags(letters))
}

pub(super) fn member(user_id: &str) -> MemberText {
    MemberText::from_text(format!(r#"{{"user_id":"{user_id}"}}"#).into())
}

pub(super) fn enter(name: &str, user_id: &str, max: u32, letters: &str) -> Command {
    let (channel, user_id, member) = (channel(name), user_id.into(), member(user_id));
    Command::Enter { channel, user_id, member, max, flags: flags(letters) }
}

pub(super) fn part(name: &str, user_id: &str, letters: &str) -> Command {
    Command::Part(channel(name), user_id.into(), flags(letters))
}

pub(super) fn frame(text: &str) -> Frame {
    Frame::text(text.len(), |out| out.extend_from_slice(text.as_bytes()))
}

/// An event that is the last one of its channel if the channel's name says that it keeps one.
pub(super) fn publish(name: &str, text: &str) -> Command {
    let kept = Retained { data: text.into(), ttl_ms: LONG_MS };
    Command::Publish {
        channel: channel(name),
        frame: frame(text),
        except: None,
        retained: name.contains("cache-").then_some(kept),
    }
}

/// An event of a cache channel that a node still has.
pub(super) fn keep(name: &str, text: &str) -> Command {
    Command::Keep(channel(name), Retained { data: text.into(), ttl_ms: LONG_MS }, frame(text))
}

/// The texts of the events among records.
pub(super) fn events(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| match record {
        Record::Message { frame, .. } => Some(String::from_utf8(frame.payload().to_vec()).unwrap()),
        _ => None,
    };
    records.iter().filter_map(text).collect()
}
