//! The users who are signed in on this shard, and those whom they watch. A connection that is not
//! signed in is not known here and costs nothing.
//!
//! The shard tells a user's home only what changes for it: its first connection of that user and
//! the end of the last, the first watcher and the end of the last. The home ([`UserHomes`]) tells
//! the shard whether a watched user is online, and this module whom to pass that on to. Signing in
//! and leaving are O(1) per watched user, however many watch the same.
//!
//! [`UserHomes`]: super::UserHomes

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::frame::Frame;
use crate::id::ConnKey;
use crate::protocol::auth::Member;
use crate::protocol::outbound;

use super::UserKey;
use super::user_homes::Step;

/// Signed-in connections of this shard, and watched users. See the module.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// By slot.
    connections: HashMap<u32, Connection>,
    /// Users that are signed in here or watched from here.
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    /// The changes that were learnt in this turn.
    news: Vec<News>,
    /// The connections that have to hear of them, each with an index in `news`.
    owed: Vec<(ConnKey, u32)>,
}

/// A connection that is signed in.
#[derive(Debug)]
struct Connection {
    user: Arc<Member>,
    entry: u32,
    watchlist: Vec<Watching>,
}

/// One user of a connection's watchlist: its entry, and the place among its watchers.
#[derive(Clone, Copy, Debug)]
struct Watching {
    entry: u32,
    position: u32,
}

#[derive(Debug)]
struct Entry {
    /// None: this entry is free.
    key: Option<UserKey>,
    /// Connections of this shard that are signed in as the user.
    connections: u32,
    watchers: Vec<Watcher>,
    /// The state that the watchers know, as the home told it last. A watcher that was told nothing
    /// takes the user as offline.
    online: bool,
}

/// A connection that watches a user, and the user's place in its watchlist.
#[derive(Clone, Copy, Debug)]
struct Watcher {
    conn: ConnKey,
    back: u32,
}

#[derive(Debug)]
struct News {
    user_id: Arc<str>,
    online: bool,
}

/// The steps that users' homes have to be told, oldest first.
pub(crate) type Steps = Vec<(UserKey, Step)>;

impl Users {
    /// A connection signs in. If it is signed in already, all begins anew for it. What the homes
    /// have to be told is added to `steps`.
    pub(crate) fn sign_in(
        &mut self,
        conn: ConnKey,
        key: UserKey,
        user: Arc<Member>,
        watchlist: Vec<UserKey>,
        steps: &mut Steps,
    ) {
        let earlier = self.connections.remove(&conn.slot);
        let earlier = earlier.map(|earlier| {
            self.unwatch(&earlier.watchlist, steps);
            self.owed.retain(|&(owed, _)| owed != conn);
            earlier.entry
        });
        // The new one is counted first: the user does not go offline in between.
        let entry = self.entry_of(&key);
        let of = &mut self.entries[entry as usize];
        of.connections += 1;
        if of.connections == 1 {
            steps.push((key, Step::Arrived));
        }
        if let Some(earlier) = earlier {
            self.depart(earlier, steps);
        }
        let watchlist = (0..).zip(watchlist);
        let watchlist = watchlist.map(|(back, key)| self.watch(conn, back, key, steps)).collect();
        self.connections.insert(conn.slot, Connection { user, entry, watchlist });
    }

    /// The connection in this slot is gone. What the homes have to be told is added to `steps`.
    pub(crate) fn sign_out(&mut self, slot: u32, steps: &mut Steps) {
        let Some(connection) = self.connections.remove(&slot) else { return };
        self.unwatch(&connection.watchlist, steps);
        self.depart(connection.entry, steps);
    }

    /// The user that the connection in this slot is signed in as, if any.
    #[must_use]
    pub(crate) fn user(&self, slot: u32) -> Option<&Arc<Member>> {
        self.connections.get(&slot).map(|connection| &connection.user)
    }

    /// The bytes that the sign-in of the connection in this slot holds, with the ids of the users
    /// whom it watches as if no other connection watched them; 0 if it is not signed in.
    #[must_use]
    pub(crate) fn held(&self, slot: u32) -> usize {
        let id = |of: &Watching| {
            let entry = self.entries.get(of.entry as usize);
            entry.and_then(|entry| entry.key.as_ref()).map_or(0, |key| key.id().len())
        };
        self.connections.get(&slot).map_or(0, |connection| {
            let watched = connection.watchlist.iter().map(|of| size_of::<Entry>() + id(of));
            connection.user.text_bytes() + watched.sum::<usize>()
        })
    }

    /// A home has told whether a user is online. The watchers hear of it if it is new to them.
    pub(crate) fn learn(&mut self, key: &UserKey, online: bool) {
        let Some(entry) = self.find(key) else { return };
        let of = &mut self.entries[entry as usize];
        if of.watchers.is_empty() || of.online == online {
            return;
        }
        of.online = online;
        let news = length(self.news.len());
        self.news.push(News { user_id: Arc::clone(key.id()), online });
        self.owed.extend(of.watchers.iter().map(|watcher| (watcher.conn, news)));
    }

    /// The end of the turn: hands to `emit` what each watcher is owed, one frame per connection.
    pub(crate) fn flush(&mut self, mut emit: impl FnMut(ConnKey, &Frame)) {
        // There may be news that nobody is owed any more.
        if self.news.is_empty() {
            return;
        }
        let (news, mut owed) = (std::mem::take(&mut self.news), std::mem::take(&mut self.owed));
        owed.sort_unstable_by_key(|&(conn, at)| (conn.slot, conn.generation, at));
        // Connections that hear of the same user, and of no other, share one frame.
        let mut shared: Vec<Option<Frame>> = news.iter().map(|_| None).collect();
        for of_one in owed.chunk_by(|(one, _), (other, _)| one == other) {
            let told = of_one.iter().filter_map(|&(_, at)| news.get(at as usize));
            let frame = || outbound::watchlist_events(told.map(|of| (&*of.user_id, of.online)));
            match of_one {
                &[(conn, at)] => emit(conn, shared[at as usize].get_or_insert_with(frame)),
                [(conn, _), ..] => emit(*conn, &frame()),
                [] => {}
            }
        }
    }

    /// Users that are signed in here or watched from here.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// A connection begins to watch a user.
    fn watch(&mut self, conn: ConnKey, back: u32, key: UserKey, steps: &mut Steps) -> Watching {
        let entry = self.entry_of(&key);
        let of = &mut self.entries[entry as usize];
        let position = length(of.watchers.len());
        of.watchers.push(Watcher { conn, back });
        if of.online {
            self.owed.push((conn, length(self.news.len())));
            self.news.push(News { user_id: Arc::clone(key.id()), online: true });
        }
        if position == 0 {
            steps.push((key, Step::Watch));
        }
        Watching { entry, position }
    }

    /// A connection, which is not among `connections` any more, ceases to watch these.
    fn unwatch(&mut self, watchlist: &[Watching], steps: &mut Steps) {
        for &Watching { entry, position } in watchlist {
            let of = &mut self.entries[entry as usize];
            of.watchers.swap_remove(position as usize);
            if let Some(moved) = of.watchers.get(position as usize)
                && let Some(connection) = self.connections.get_mut(&moved.conn.slot)
            {
                connection.watchlist[moved.back as usize].position = position;
            }
            if of.watchers.is_empty() {
                of.watchers = Vec::new();
                of.online = false;
                steps.extend(of.key.clone().map(|key| (key, Step::Unwatch)));
                self.drop_if_unused(entry);
            }
        }
    }

    /// A connection of this user is gone.
    fn depart(&mut self, entry: u32, steps: &mut Steps) {
        let of = &mut self.entries[entry as usize];
        of.connections -= 1;
        if of.connections == 0 {
            steps.extend(of.key.clone().map(|key| (key, Step::Left)));
            self.drop_if_unused(entry);
        }
    }

    fn find(&self, key: &UserKey) -> Option<u32> {
        let same = |&entry: &u32| self.entries[entry as usize].key.as_ref() == Some(key);
        self.by_key.find(key.hash(), same).copied()
    }

    fn entry_of(&mut self, key: &UserKey) -> u32 {
        if let Some(entry) = self.find(key) {
            return entry;
        }
        let new =
            Entry { key: Some(key.clone()), connections: 0, watchers: Vec::new(), online: false };
        let entry = if let Some(entry) = self.free.pop() {
            self.entries[entry as usize] = new;
            entry
        } else {
            self.entries.push(new);
            length(self.entries.len() - 1)
        };
        let entries = &self.entries;
        let hash = |&entry: &u32| entries[entry as usize].key.as_ref().map_or(0, UserKey::hash);
        self.by_key.insert_unique(key.hash(), entry, hash);
        entry
    }

    fn drop_if_unused(&mut self, entry: u32) {
        let of = &mut self.entries[entry as usize];
        if of.connections > 0 || !of.watchers.is_empty() {
            return;
        }
        if let Some(key) = of.key.take() {
            if let Ok(found) = self.by_key.find_entry(key.hash(), |&found| found == entry) {
                found.remove();
            }
            self.free.push(entry);
        }
    }
}

/// Lists here are shorter than the table of sockets times the longest watchlist.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
