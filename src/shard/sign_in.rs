//! The sign-in of users, from a session's proof to the home of the user, and the deadline by which
//! connections have to show a signature of their app.

use tracing::debug;

use super::client_memory::sign_in_charge;
use super::subscriber_side::SubscriberSide;
use crate::channels::Steps;
use crate::frame::Frame;
use crate::id::ConnKey;
use crate::plane::Plane;
use crate::protocol::close::{ProtocolError, error_frame};
use crate::protocol::sign_in::SignedIn;
use crate::refusals::{ClosedWebSocket, MessageSubject};
use crate::ring::Ring;

impl SubscriberSide {
    /// Signs a connection in, and owes it the `answer`.
    pub(super) fn sign_in<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        signed_in: SignedIn,
        answer: &Frame,
    ) {
        let Some((open, app)) = self.session(key) else { return };
        let (app, socket_id) = (app.index, open.session.socket_id());
        // The signature was valid, so the connection has shown that the app knows it.
        self.sessions.authenticated(key.slot);
        let charge = sign_in_charge(signed_in.user(), signed_in.watchlist());
        if !self.memory.takes_on(charge, self.now) {
            self.note_message(key, ProtocolError::MemoryShort, MessageSubject::SignIn);
            return plane.owe(key, &error_frame(ProtocolError::MemoryShort));
        }
        if signed_in.cut() {
            self.note_message(key, ProtocolError::WatchlistTooLong, MessageSubject::SignIn);
        }
        let (user, watchlist) = signed_in.into_parts();
        debug!(%socket_id, user_id = &*user.user_id, watches = watchlist.len(), "signed in");
        plane.owe(key, answer);
        let of = self.link.user(app, user.user_id.clone());
        let watchlist = watchlist.into_iter().map(|id| self.link.user(app, id)).collect();
        let mut steps = Steps::new();
        self.users.sign_in(key, of, user, watchlist, &mut steps);
        self.link.tell_user_homes(steps);
    }

    /// Signs out the connection in this slot, which has ended.
    pub(super) fn sign_out(&mut self, slot: u32) {
        let mut steps = Steps::new();
        self.users.sign_out(slot, &mut steps);
        self.link.tell_user_homes(steps);
    }

    /// Sets the deadline of a new connection for its first signature, if its app requires one.
    pub(super) fn await_authentication(&mut self, key: ConnKey) {
        let now = self.now;
        let Some((_, app)) = self.session(key) else { return };
        if let Some(timeout) = app.user_authentication_timeout {
            self.sessions.await_authentication(key.slot, now + timeout);
        }
    }

    /// Closes a connection that has missed its deadline, as Pusher does for apps that allow only
    /// "authorized connections".
    pub(super) fn check_authentication<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        if !self.sessions.is_overdue(key.slot, self.now) {
            return;
        }
        let Some((_, app)) = self.session(key) else { return };
        if let Some(timeout) = app.user_authentication_timeout {
            self.note_ending(key, ClosedWebSocket::AuthenticationTimeout(timeout.as_secs()));
            self.end(plane, key, ProtocolError::AuthenticationTimeout);
        } else {
            // The app required a signature when the client connected, and no longer does.
            self.sessions.authenticated(key.slot);
        }
    }
}
