//! The beginning of WebSockets. The front says which connection becomes one. The 101 response
//! leaves in one send with the first message, and the bytes that came behind the handshake are read
//! first.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::debug;

use super::Shard;
use crate::apps::Admission;
use crate::frame::Frame;
use crate::front::gateway::Upgraded;
use crate::id::ConnKey;
use crate::protocol::session::Session;
use crate::ring::Ring;

impl<R: Ring> Shard<R> {
    /// Makes a connection of the front a WebSocket.
    pub(super) fn adopt(&mut self, upgraded: Upgraded) {
        let Upgraded { admission, reservation, permit, client, key, opening, leftover } = upgraded;
        let begun = self.begin_session(client, key, admission, opening, &leftover);
        // The permit is given back when the session ends.
        if let (true, Some(permit)) = (begun, permit) {
            self.subscribers.sessions.hold_permit(key, permit);
        }
        drop(reservation);
    }

    /// Makes a stream a WebSocket, and begins a session on it. Without an `admission` the
    /// connection is only held, and the drain closes it. Returns whether there is a session.
    /// `client` is the address for the log.
    pub(super) fn begin_session(
        &mut self,
        client: Option<IpAddr>,
        key: ConnKey,
        admission: Option<Admission>,
        mut opening: Vec<u8>,
        leftover: &[u8],
    ) -> bool {
        let app = match &admission {
            Some(admission) => {
                let Some(app) = self.subscribers.apps.get(admission.app()) else {
                    // A reload has removed it since.
                    self.plane.abort(key);
                    return false;
                };
                Some(Arc::clone(app))
            }
            None => None,
        };
        if !self.plane.upgrade(key) {
            return false;
        }
        let (Some(admission), Some(app)) = (admission, app) else {
            // Without a session the client's messages have no effect. The drain closes the
            // connection.
            self.plane.owe(key, &Frame::from_encoded(opening.into()));
            return false;
        };
        let socket_id = match self.subscribers.name(key.slot) {
            Ok(socket_id) => socket_id,
            Err(error) => {
                self.subscribers.note_take_over(&error);
                opening.extend_from_slice(Frame::close(1011, "").bytes());
                let last = Frame::from_encoded(opening.into());
                self.plane.close(key, &last, crate::plane::Ended::Ours);
                return false;
            }
        };
        let session = Session::new(socket_id);
        let client = client.map(tracing::field::display);
        debug!(%socket_id, app = &*app.id, client, "connection established");
        opening.extend_from_slice(session.established(&app.rules).bytes());
        self.plane.owe(key, &Frame::from_encoded(opening.into()));
        self.subscribers.sessions.begin(key.slot, admission, session);
        self.subscribers.counters.of(app.index).opened += 1;
        self.subscribers.await_authentication(key);
        if !leftover.is_empty() {
            self.plane.feed(key, &mut leftover.to_vec(), &mut self.subscribers);
        }
        true
    }
}
