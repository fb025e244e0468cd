//! The state of the model and of Redis in one form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::server::{Server, TAG};
use crate::cluster::model::{Letters, Mark, Model, Node};
use crate::cluster::wire::{Batched, NodeId};

/// Keys without their tag, each with its content in lines. Inboxes are not among them.
pub(super) type State = BTreeMap<String, BTreeSet<String>>;

/// Lists all keys but inboxes: key, then the lines of its content.
const DUMP: &str = "
  local dump = {}
  for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
    local type, content = redis.call('TYPE', key).ok, nil
    if type == 'string' then
      content = { redis.call('GET', key) }
    elseif type == 'set' then
      content = redis.call('SMEMBERS', key)
    elseif type == 'hash' or type == 'zset' then
      local flat = type == 'hash' and redis.call('HGETALL', key)
        or redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      content = {}
      for i = 1, #flat, 2 do
        content[#content + 1] = flat[i] .. ' -> ' .. flat[i + 1]
      end
    end
    if content then
      dump[#dump + 1] = { key, content }
    end
  end
  return dump";

impl Server {
    pub(super) fn state(&mut self) -> State {
        let dump: Vec<(Vec<u8>, Vec<Vec<u8>>)> = self.admin(&["EVAL", DUMP, "0", TAG]);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let dump = dump.into_iter().map(|(key, lines)| {
            let key = text(key).strip_prefix(TAG).unwrap().to_owned();
            (key, lines.into_iter().map(text).collect())
        });
        // The model does not keep the version, and its clock is no key. A number that is missing
        // is 0 to it.
        let mut state: State = dump.collect();
        state.remove("clock");
        // Every channel of the model has its own lines.
        for line in state.remove("channels").unwrap_or_default() {
            let (channel, text) = line.split_once(" -> ").unwrap();
            if !channel.is_empty() {
                state.insert(format!("channel:{channel}"), counts(text).into_iter().collect());
            }
        }
        for (_, lines) in state.iter_mut().filter(|(key, _)| key.starts_with("node:")) {
            lines.retain(|line| !line.starts_with("version") && !line.ends_with("read -> 0"));
            lines.retain(|line| line != "owed -> ");
        }
        state
    }
}

/// The text of a channel: ids, and counts behind a space unless all are 1.
fn counts(text: &str) -> Vec<String> {
    let (ids, counts) = text.split_once(' ').unwrap_or((text, ""));
    let counts = counts.split(',').filter(|count| !count.is_empty());
    let counts = counts.chain(std::iter::repeat("1"));
    let ids = ids.as_bytes().chunks(NodeId::LEN).map(|id| std::str::from_utf8(id).unwrap());
    ids.zip(counts).map(|(id, count)| format!("{id} -> {count}")).collect()
}

impl Model {
    pub(super) fn state(&self) -> State {
        let mut state = State::new();
        if self.partitions != 0 {
            state.insert("partitions".into(), lines([self.partitions]));
        }
        let strings = [("epoch", &self.epoch), ("run", &self.run)];
        for (key, text) in strings {
            state.insert(key.into(), lines(text));
        }
        state.insert("tended".into(), lines(self.tended_ms));
        state.insert("nodes".into(), pairs(&self.leases));
        state.insert("stale".into(), lines(&self.stale));
        let departure = |(channel, user): &(_, _)| format!("{}\0{user}", text(channel));
        let gone = self.gone.iter().map(|(gone, due)| (departure(gone), due));
        state.insert("gone".into(), pairs(gone));
        self.add_nodes(&mut state);
        self.add_channels(&mut state);
        state.extend(self.users.iter().map(|(user, nodes)| key("user", user.as_str(), nodes)));
        state.extend(self.watchers.iter().map(|(user, nodes)| key("watch", user.as_str(), nodes)));
        let quotas = self.quotas.iter();
        state.extend(quotas.map(|(app, held)| (format!("quota:{app}"), pairs(held))));
        state.retain(|_, lines| !lines.is_empty());
        state
    }

    fn add_nodes(&self, state: &mut State) {
        let texts = |text: fn(&Node) -> &str| {
            let texts = self.nodes.iter().map(move |(id, node)| (id, text(node)));
            pairs(texts.filter(|(_, text)| !text.is_empty()))
        };
        state.insert("addresses".into(), texts(|node| &node.address));
        state.insert("apps".into(), texts(|node| &node.apps));
        for (id, node) in &self.nodes {
            let mut fields = BTreeSet::new();
            let mut add =
                |name: &str, value: String| _ = fields.insert(format!("{name} -> {value}"));
            if let Some(Batched { base, done }) = node.batched {
                add("base", base.to_string());
                add("done", done.to_string());
            }
            [("cut", node.cut), ("dead", node.dead)]
                .into_iter()
                .filter(|(_, set)| *set)
                .for_each(|(name, _)| add(name, "1".into()));
            let Letters { unknown, cut, buried, missed } = node.owed;
            let owed = [(unknown, 'f'), (cut, 'c'), (buried, 'd'), (missed, 'm')];
            let owed: String = owed.iter().filter(|(owed, _)| *owed).map(|(_, of)| of).collect();
            if !owed.is_empty() {
                add("owed", owed);
            }
            [("read", node.read), ("unread", node.unread)]
                .into_iter()
                .filter(|(_, bytes)| *bytes > 0)
                .for_each(|(name, bytes)| add(name, bytes.to_string()));
            state.insert(format!("node:{id}"), fields);
        }
        state.extend(
            self.interests
                .iter()
                .map(|(id, channels)| (format!("of:{id}"), channels.iter().map(text).collect())),
        );
        let marks = self.marks.iter();
        state.extend(
            marks.map(|(id, marks)| (format!("mo:{id}"), marks.iter().map(line).collect())),
        );
    }

    fn add_channels(&self, state: &mut State) {
        let channels = self.channels.iter();
        state.extend(
            channels.map(|(path, nodes)| (format!("channel:{}", text(path)), pairs(nodes))),
        );
        for (path, members) in &self.members {
            let member = |member: &super::super::PresentMember| {
                let text = String::from_utf8_lossy(member.text.bytes()).into_owned();
                format!("{} {text}", member.nodes)
            };
            let members = members.iter().map(|(user, present)| (user, member(present)));
            state.insert(format!("mem:{}", text(path)), pairs(members));
        }
        for (path, (event, _)) in &self.events {
            let event = String::from_utf8_lossy(event).into_owned();
            state.insert(format!("ev:{}", text(path)), lines([event]));
        }
    }
}

fn text(path: &crate::channels::ChannelPath) -> String {
    path.as_str().to_owned()
}

fn line(mark: &Mark) -> String {
    match mark {
        Mark::Member(channel, user) => format!("m {}\0{user}", text(channel)),
        Mark::Counted(channel) => format!("c {}", text(channel)),
        Mark::User(user) => format!("u {}", user.as_str()),
        Mark::Watch(user) => format!("w {}", user.as_str()),
        Mark::Quota(app) => format!("q {app}"),
    }
}

fn key<T: Display>(
    name: &str,
    path: &str,
    items: impl IntoIterator<Item = T>,
) -> (String, BTreeSet<String>) {
    (format!("{name}:{path}"), lines(items))
}

fn lines<T: Display>(items: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn pairs<K: Display, V: Display>(items: impl IntoIterator<Item = (K, V)>) -> BTreeSet<String> {
    items.into_iter().map(|(key, value)| format!("{key} -> {value}")).collect()
}
