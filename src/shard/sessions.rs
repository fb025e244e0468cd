//! The sessions of a shard's open connections.

use std::collections::HashMap;

use crate::apps::Admission;
use crate::front::gateway::ConnectionPermit;
use crate::id::{AppIndex, ConnKey, SocketId};
use crate::memory::{Chunked, Holder, Per};
use crate::protocol::session::Session;
use crate::time::{Millis, Tick};

/// The memory of an idle connection here, beside the plane and the channels.
pub(crate) const BUDGET: [Holder; 1] =
    [Holder { name: "session", bytes: size_of::<Option<OpenSession>>(), per: Per::Connection }];

/// The sessions of open connections, by the slots of the connections. A connection without a
/// session is one that is closing, or one that is held while the process stops.
#[derive(Debug)]
pub(super) struct Sessions {
    by_slot: Chunked<Option<OpenSession>>,
    /// By slot: the time by which a connection has to show that its app knows it. Only for apps
    /// that want it, and only while it has not.
    unauthenticated: HashMap<u32, Millis>,
    /// By slot: the connection as the limit of its address counts it. Only if there is a limit.
    permits: HashMap<u32, ConnectionPermit>,
}

/// The session of an open connection.
#[derive(Debug)]
pub(super) struct OpenSession {
    /// The connection's place at its app; given back when it is dropped.
    _admission: Admission,
    /// The app of the admission. It is kept here because all shards write to the counters that the
    /// admission leads to.
    app: AppIndex,
    pub(super) session: Session,
    /// The time at which the server pinged, if nothing has come since.
    pub(super) pinged: Option<Tick>,
}

impl OpenSession {
    /// The app that the connection belongs to.
    pub(super) const fn app(&self) -> AppIndex {
        self.app
    }
}

impl Sessions {
    pub(super) fn new() -> Self {
        let (unauthenticated, permits) = (HashMap::new(), HashMap::new());
        Self { by_slot: Chunked::new(), unauthenticated, permits }
    }

    /// Begins the session of the connection in this slot.
    pub(super) fn begin(&mut self, slot: u32, admission: Admission, session: Session) {
        let slot = slot as usize;
        self.by_slot.extend_to(slot + 1);
        let app = admission.app();
        self.by_slot[slot] =
            Some(OpenSession { _admission: admission, app, session, pinged: None });
    }

    /// Ends the session of the connection in this slot, and returns it if there was one.
    pub(super) fn end(&mut self, slot: u32) -> Option<OpenSession> {
        let ended = self.by_slot.get_mut(slot as usize).and_then(Option::take)?;
        self.unauthenticated.remove(&slot);
        self.permits.remove(&slot);
        Some(ended)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&OpenSession> {
        self.by_slot.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut OpenSession> {
        self.by_slot.get_mut(slot as usize)?.as_mut()
    }

    /// Keeps the connection counted by the limit of its address until its session ends.
    pub(super) fn hold_permit(&mut self, conn: ConnKey, permit: ConnectionPermit) {
        self.permits.insert(conn.slot, permit);
    }

    /// The connection has to show a signature of its app by this time.
    pub(super) fn await_authentication(&mut self, slot: u32, deadline: Millis) {
        self.unauthenticated.insert(slot, deadline);
    }

    /// The connection has shown a signature of its app.
    pub(super) fn authenticated(&mut self, slot: u32) {
        self.unauthenticated.remove(&slot);
    }

    /// Whether the connection has shown no signature in its time.
    pub(super) fn is_overdue(&self, slot: u32, now: Millis) -> bool {
        self.unauthenticated.get(&slot).is_some_and(|&deadline| deadline <= now)
    }

    /// Whether the connection in this slot has this socket id.
    pub(super) fn is(&self, slot: u32, id: SocketId) -> bool {
        self.get(slot).is_some_and(|open| open.session.socket_id() == id)
    }

    /// Bytes that the table holds, in use or not.
    #[cfg(feature = "testing")]
    pub(super) const fn room(&self) -> usize {
        self.by_slot.room()
    }
}
