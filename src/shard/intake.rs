//! The handover of sockets from the front to the plane. **A socket belongs to exactly one of the
//! two rings at any moment.** The front hands over a socket on which none of its operations is in
//! flight; from [`Shard::adopt`] on only the plane touches it. Bytes that the front has read behind
//! the handshake travel along and are read first. So does the 101 response, which leaves in one
//! send with the first message.

use std::net::IpAddr;
use std::os::fd::AsFd;
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
    /// Takes over a socket from the front.
    pub(super) fn adopt(&mut self, upgraded: Upgraded) {
        let Upgraded { admission, reservation, permit, client, stream, opening, leftover } =
            upgraded;
        let opened = self.open_for(client, stream.as_fd(), admission, opening, &leftover);
        // The permit is given back when the session ends.
        if let (Some(key), Some(permit)) = (opened, permit) {
            self.subscribers.sessions.hold_permit(key, permit);
        }
        drop(reservation);
        // The plane holds the socket by a reference of its own.
        drop(stream);
    }

    /// Gives a socket to the plane and begins a session on it. Without an `admission` the
    /// connection is only held, and the drain closes it. Returns `None` if the socket could not be
    /// taken over or the app is unknown. `client` is the address for the log.
    pub(super) fn open_for<'a>(
        &mut self,
        client: Option<IpAddr>,
        socket: impl Into<R::Socket<'a>>,
        admission: Option<Admission>,
        mut opening: Vec<u8>,
        leftover: &[u8],
    ) -> Option<ConnKey> {
        let app = match &admission {
            Some(admission) => Some(self.subscribers.apps.get(admission.app()).map(Arc::clone)?),
            None => None,
        };
        let key = match self.plane.open(socket) {
            Ok(key) => key,
            Err(error) => {
                // The front has reserved a slot before it promised the 101, so only the kernel can
                // refuse.
                self.subscribers.note_take_over(&error);
                return None;
            }
        };
        let (Some(admission), Some(app)) = (admission, app) else {
            // Without a session the client's messages have no effect. The drain closes the
            // connection.
            self.plane.owe(key, &Frame::from_encoded(opening.into()));
            return Some(key);
        };
        let socket_id = match self.subscribers.name(key.slot) {
            Ok(socket_id) => socket_id,
            Err(error) => {
                self.subscribers.note_take_over(&error);
                opening.extend_from_slice(Frame::close(1011, "").bytes());
                let last = Frame::from_encoded(opening.into());
                self.plane.close(key, &last, crate::plane::Ended::Ours);
                return None;
            }
        };
        let session = Session::new(socket_id);
        let client = client.map(tracing::field::display);
        debug!(%socket_id, app = &*app.id, client, "connection established");
        opening.extend_from_slice(session.established(&app.rules).bytes());
        self.plane.owe(key, &Frame::from_encoded(opening.into()));
        self.subscribers.sessions.begin(key.slot, admission, session);
        self.subscribers.await_authentication(key);
        if !leftover.is_empty() {
            self.plane.feed(key, &mut leftover.to_vec(), &mut self.subscribers);
        }
        Some(key)
    }
}
