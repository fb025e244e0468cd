//! The users who are signed in on this shard, and those whom they watch. A connection that is not
//! signed in has no record here and costs nothing.
//!
//! The shard reports to a user's home only what changes for it: its first connection of that user
//! and the end of the last, the first watcher and the end of the last. The home ([`UserHomes`])
//! tells the shard whether a watched user is online, and this module knows the connections to pass
//! that on to. Signing in and leaving are O(1) per watched user, however many watch the same.
//!
//! [`UserHomes`]: super::UserHomes

use std::collections::HashMap;
use std::sync::Arc;

use crate::frame::Frame;
use crate::id::ConnKey;
use crate::memory::{Keyed, KeyedSlab, number};
use crate::protocol::auth::Member;
use crate::protocol::outbound;

use super::UserKey;
use super::message::{Step, Steps};

/// The signed-in connections of this shard, and the users whom they watch.
///
/// [`sign_in`](Self::sign_in) and [`sign_out`](Self::sign_out) add changes to `steps`, which the
/// caller sends to the homes of the users. `sign_out` has to be called before another connection
/// has the slot. The reports of homes go to [`learn`](Self::learn). At the end of the turn
/// [`flush`](Self::flush) hands out what the watchers are owed.
#[derive(Debug, Default)]
pub(crate) struct Users {
    /// Sign-ins by the slot of their connection.
    sign_ins: HashMap<u32, SignIn>,
    /// Users that are signed in here or watched from here.
    users: KeyedSlab<User>,
    /// The changes of this turn that watchers are owed.
    news: Vec<News>,
    /// The connections that are owed news, each with an index in `news`.
    owed: Vec<(ConnKey, u32)>,
}

/// A connection that is signed in.
#[derive(Debug)]
struct SignIn {
    member: Arc<Member>,
    /// The number of the user.
    user: u32,
    watchlist: Vec<Watching>,
}

/// One user of a connection's watchlist: its number, and the connection's place among its watchers.
#[derive(Clone, Copy, Debug)]
struct Watching {
    user: u32,
    position: u32,
}

/// A user that is signed in on this shard or watched from it.
#[derive(Debug)]
struct User {
    key: UserKey,
    /// Connections of this shard that are signed in as the user.
    connections: u32,
    watchers: Vec<Watcher>,
    /// The state that the watchers know, as the home last reported it. A watcher that was told
    /// nothing takes the user as offline.
    online: bool,
}

/// A connection that watches a user, and the user's place in its watchlist.
#[derive(Clone, Copy, Debug)]
struct Watcher {
    conn: ConnKey,
    back: u32,
}

/// A change of a watched user.
#[derive(Debug)]
struct News {
    user_id: Arc<str>,
    online: bool,
}

impl Keyed for User {
    fn key_hash(&self) -> u64 {
        self.key.hash()
    }
}

impl User {
    const fn new(key: UserKey) -> Self {
        Self { key, connections: 0, watchers: Vec::new(), online: false }
    }
}

impl Users {
    /// Signs a connection in. If it is signed in already, the new sign-in replaces the earlier one.
    /// The changes for the users' homes are added to `steps`.
    pub(crate) fn sign_in(
        &mut self,
        conn: ConnKey,
        key: UserKey,
        member: Arc<Member>,
        watchlist: Vec<UserKey>,
        steps: &mut Steps,
    ) {
        let earlier = self.sign_ins.remove(&conn.slot);
        let earlier = earlier.map(|earlier| {
            self.unwatch(&earlier.watchlist, steps);
            self.owed.retain(|&(owed, _)| owed != conn);
            earlier.user
        });
        // The new sign-in is counted first, so that the user does not go offline in between.
        let user = self.find_or_insert(&key);
        self.users[user].connections += 1;
        if self.users[user].connections == 1 {
            steps.push((key, Step::Arrived));
        }
        if let Some(earlier) = earlier {
            self.depart(earlier, steps);
        }
        let watchlist = (0..).zip(watchlist);
        let watchlist = watchlist.map(|(back, key)| self.watch(conn, back, key, steps)).collect();
        self.sign_ins.insert(conn.slot, SignIn { member, user, watchlist });
    }

    /// Signs out the connection in this slot, which has ended. The changes for the users' homes are
    /// added to `steps`.
    pub(crate) fn sign_out(&mut self, slot: u32, steps: &mut Steps) {
        let Some(sign_in) = self.sign_ins.remove(&slot) else { return };
        self.unwatch(&sign_in.watchlist, steps);
        self.depart(sign_in.user, steps);
    }

    /// The user that the connection in this slot is signed in as, if any.
    #[must_use]
    pub(crate) fn user(&self, slot: u32) -> Option<&Arc<Member>> {
        self.sign_ins.get(&slot).map(|sign_in| &sign_in.member)
    }

    /// The bytes that the sign-in of the connection in this slot holds, with the ids of the users
    /// whom it watches as if no other connection watched them; 0 if it is not signed in.
    #[must_use]
    pub(crate) fn held(&self, slot: u32) -> usize {
        let id = |of: &Watching| self.users.get(of.user).map_or(0, |user| user.key.id().len());
        self.sign_ins.get(&slot).map_or(0, |sign_in| {
            let watched = sign_in.watchlist.iter().map(|of| size_of::<User>() + id(of));
            sign_in.member.text_bytes() + watched.sum::<usize>()
        })
    }

    /// Takes a home's report of whether a user is online. The watchers are told if it is new to
    /// them.
    pub(crate) fn learn(&mut self, key: &UserKey, online: bool) {
        let Some(user) = self.find(key) else { return };
        let user = &mut self.users[user];
        if user.watchers.is_empty() || user.online == online {
            return;
        }
        user.online = online;
        let news = number(self.news.len());
        self.news.push(News { user_id: Arc::clone(key.id()), online });
        self.owed.extend(user.watchers.iter().map(|watcher| (watcher.conn, news)));
    }

    /// Hands to `emit` what each watcher is owed, as one frame per connection, at the end of the
    /// turn.
    pub(crate) fn flush(&mut self, mut emit: impl FnMut(ConnKey, &Frame)) {
        // There may be news that no connection is owed any more.
        if self.news.is_empty() {
            return;
        }
        let (news, mut owed) = (std::mem::take(&mut self.news), std::mem::take(&mut self.owed));
        owed.sort_unstable_by_key(|&(conn, at)| (conn.slot, conn.generation, at));
        // Connections that are owed news of the same user, and of no other, share one frame.
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
        self.users.len()
    }

    /// Makes a connection watch a user.
    fn watch(&mut self, conn: ConnKey, back: u32, key: UserKey, steps: &mut Steps) -> Watching {
        let user = self.find_or_insert(&key);
        let watched = &mut self.users[user];
        let position = number(watched.watchers.len());
        watched.watchers.push(Watcher { conn, back });
        if watched.online {
            self.owed.push((conn, number(self.news.len())));
            self.news.push(News { user_id: Arc::clone(key.id()), online: true });
        }
        if position == 0 {
            steps.push((key, Step::Watch));
        }
        Watching { user, position }
    }

    /// Ends the watches of a connection, which has to be gone from `sign_ins` already.
    fn unwatch(&mut self, watchlist: &[Watching], steps: &mut Steps) {
        for &Watching { user, position } in watchlist {
            let watched = &mut self.users[user];
            watched.watchers.swap_remove(position as usize);
            if let Some(moved) = watched.watchers.get(position as usize)
                && let Some(sign_in) = self.sign_ins.get_mut(&moved.conn.slot)
            {
                sign_in.watchlist[moved.back as usize].position = position;
            }
            if watched.watchers.is_empty() {
                watched.watchers = Vec::new();
                watched.online = false;
                steps.push((watched.key.clone(), Step::Unwatch));
                self.drop_if_unused(user);
            }
        }
    }

    /// Counts one connection less of a user.
    fn depart(&mut self, user: u32, steps: &mut Steps) {
        let of = &mut self.users[user];
        of.connections -= 1;
        if of.connections == 0 {
            steps.push((of.key.clone(), Step::Left));
            self.drop_if_unused(user);
        }
    }

    fn find(&self, key: &UserKey) -> Option<u32> {
        self.users.find(key.hash(), |user| user.key == *key)
    }

    fn find_or_insert(&mut self, key: &UserKey) -> u32 {
        let same = |user: &User| user.key == *key;
        self.users.find_or_insert(key.hash(), same, || User::new(key.clone()))
    }

    fn drop_if_unused(&mut self, user: u32) {
        let of = &self.users[user];
        if of.connections == 0 && of.watchers.is_empty() {
            self.users.remove(user);
        }
    }
}

#[cfg(test)]
mod tests;
