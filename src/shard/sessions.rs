//! The sessions of a shard's open connections.

use std::collections::HashMap;

use crate::apps::Admission;
use crate::front::gateway::ConnectionPermit;
use crate::id::{AppIndex, ConnKey, SocketId};
use crate::memory::{Chunked, Holder, Per};
use crate::protocol::session::Session;
use crate::time::{Millis, Tick};

/// The memory that an idle connection costs here, besides the plane and the channels.
pub(crate) const BUDGET: [Holder; 1] =
    [Holder { name: "session", bytes: size_of::<Option<OpenSession>>(), per: Per::Connection }];

/// The sessions of open connections, by slot.
///
/// A session begins with [`begin`](Self::begin), after which a permit and a deadline may be set,
/// and ends with [`end`](Self::end), before its slot is used again. A connection without a session
/// is closing, or is held while the process stops.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Sessions by slot. `None` if the slot has no session.
    by_slot: Chunked<Option<OpenSession>>,
    /// Deadlines by slot, by which connections have to show a signature of their app. A slot
    /// without an entry has shown one, or its app does not require it.
    unauthenticated: HashMap<u32, Millis>,
    /// Permits by slot, by which the limit of an address counts its connections. A slot without an
    /// entry is not counted.
    permits: HashMap<u32, ConnectionPermit>,
}

/// The session of an open connection.
#[derive(Debug)]
pub(super) struct OpenSession {
    /// The admission by which the app counts the connection, until it is dropped.
    _admission: Admission,
    /// The app of the admission. It is kept here because all shards write to the counters that the
    /// admission leads to.
    app: AppIndex,
    /// The connection's state in the Pusher protocol.
    pub(super) session: Session,
    /// The time of a ping that the client has not answered yet. `None` if there is none.
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

    /// Requires the connection to show a signature of its app by `deadline`.
    pub(super) fn await_authentication(&mut self, slot: u32, deadline: Millis) {
        self.unauthenticated.insert(slot, deadline);
    }

    /// Records that the connection has shown a signature of its app.
    pub(super) fn authenticated(&mut self, slot: u32) {
        self.unauthenticated.remove(&slot);
    }

    /// Whether the connection has missed its deadline for a signature.
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
