//! Users who sign in: from a session's proof to their home, and back to those who watch them. And
//! connections that have to show in time that their app knows them.

use std::collections::BTreeMap;

use tracing::debug;

use super::pressure::sign_in_charge;
use super::{Core, Message};
use crate::channels::{Steps, UserMessage};
use crate::frame::Frame;
use crate::id::{ConnKey, ShardId};
use crate::plane::Plane;
use crate::protocol::close::ProtocolError;
use crate::protocol::sign_in::SignedIn;
use crate::refusals::{ClosedWebSocket, MessageSubject};
use crate::ring::Ring;
use crate::time::Millis;

impl Core {
    /// A connection has signed in; `answer` tells it.
    pub(super) fn sign_in<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        signed_in: SignedIn,
        answer: &Frame,
    ) {
        let Some((occupant, app)) = self.occupant(key) else { return };
        let (app, socket_id) = (app.index, occupant.session.socket_id());
        if !self.takes_on(sign_in_charge(signed_in.user(), signed_in.watchlist())) {
            return self.refuse_sign_in(plane, key);
        }
        if signed_in.cut() {
            self.note_message(key, ProtocolError::WatchlistTooLong, MessageSubject::SignIn);
        }
        let (user, watchlist) = signed_in.into_parts();
        debug!(%socket_id, user_id = &*user.user_id, watches = watchlist.len(), "signed in");
        plane.owe(key, answer);
        self.authenticated(key.slot);
        let of = self.hash.user(app, user.user_id.clone());
        let watchlist = watchlist.into_iter().map(|id| self.hash.user(app, id)).collect();
        let mut steps = Steps::new();
        self.users.sign_in(key, of, user, watchlist, &mut steps);
        self.tell_homes(steps);
    }

    /// The connection in this slot is gone.
    pub(super) fn sign_out(&mut self, slot: u32) {
        let mut steps = Steps::new();
        self.users.sign_out(slot, &mut steps);
        self.tell_homes(steps);
    }

    /// One message to each home.
    fn tell_homes(&mut self, steps: Steps) {
        let mut by_home: BTreeMap<ShardId, Steps> = BTreeMap::new();
        for (key, step) in steps {
            by_home.entry(key.home(self.port.shards())).or_default().push((key, step));
        }
        for (home, steps) in by_home {
            self.port.send(home, Message::Users(UserMessage::Steps(self.id, steps)));
        }
    }

    pub(super) fn user_message(&mut self, message: UserMessage) {
        let Self { users, user_homes, port, .. } = self;
        match message {
            UserMessage::Steps(from, steps) => user_homes
                .take(from, steps, |shard, message| port.send(shard, Message::Users(message))),
            UserMessage::Online(told) => {
                told.iter().for_each(|(key, online)| users.learn(key, *online));
            }
        }
    }

    /// Starts the time of a new connection, if its app sets one.
    pub(super) fn await_authentication(&mut self, key: ConnKey) {
        let now = self.now;
        let Some((_, app)) = self.occupant(key) else { return };
        if let Some(timeout) = app.user_authentication_timeout {
            self.unauthenticated.insert(key.slot, now + timeout);
        }
    }

    /// The connection in this slot has shown a signature of its app.
    pub(super) fn authenticated(&mut self, slot: u32) {
        self.unauthenticated.remove(&slot);
    }

    /// Closes a connection whose time is over, as Pusher does with those of an app that wants
    /// "authorized connections" only.
    pub(super) fn check_authentication<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        let over = |&deadline: &Millis| deadline <= self.now;
        if !self.unauthenticated.get(&key.slot).is_some_and(over) {
            return;
        }
        let Some((_, app)) = self.occupant(key) else { return };
        if let Some(timeout) = app.user_authentication_timeout {
            self.note_ending(key, ClosedWebSocket::AuthenticationTimeout(timeout.as_secs()));
            self.end(plane, key, ProtocolError::AuthenticationTimeout);
        } else {
            // A client that connected while the app still wanted it is let off, too.
            self.authenticated(key.slot);
        }
    }
}
