//! Notes for the log: refusals to clients of this shard, the ends of their connections, and with
//! `--debug` events.

use std::io;
use std::sync::Arc;

use tracing::debug;

use super::message::ShardMessage;
use super::subscriber_side::SubscriberSide;
use super::trace::{Traced, debugging};
use crate::apps::App;
use crate::counters::CloseCause;
use crate::id::{ConnKey, SocketId};
use crate::plane::{Ended, Plane};
use crate::protocol::close::{ProtocolError, refusal_frames};
use crate::refusals::{
    ClosedWebSocket, MessageSubject, Refusal, RefusedClient, RefusedConnection, RefusedMessage,
};
use crate::ring::Ring;

impl SubscriberSide {
    /// Notes that a message of a client was refused, whether its connection goes on or not.
    pub(super) fn note_message(
        &mut self,
        key: ConnKey,
        error: ProtocolError,
        subject: MessageSubject<'_>,
    ) {
        let Some((open, app)) = self.session(key) else { return };
        let (from, app) = (RefusedClient::Socket(open.session.socket_id()), Arc::clone(app));
        let refusal = Refusal::Message(RefusedMessage { error, subject, app: &app });
        self.refusals.note(Some(&app), from, &refusal);
    }

    /// Notes that an open connection is closed for a reason that an operator can do something
    /// about.
    pub(super) fn note_ending(&mut self, key: ConnKey, ending: ClosedWebSocket) {
        let Some((open, app)) = self.session(key) else { return };
        let (from, app) = (RefusedClient::Socket(open.session.socket_id()), Arc::clone(app));
        self.refusals.note(Some(&app), from, &Refusal::Closed(ending));
    }

    /// Notes that a socket could not be taken over.
    pub(super) fn note_take_over(&self, error: &io::Error) {
        let refusal = Refusal::Connection(RefusedConnection::TakeOver(error));
        self.refusals.note(None, RefusedClient::Unknown, &refusal);
    }

    /// Closes a connection for this reason, sends the reason to the client, and logs it with
    /// `--debug`.
    pub(super) fn end<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        reason: ProtocolError,
    ) {
        if debugging()
            && plane.is_open(key)
            && !self.stopping
            && let Some((open, _)) = self.session(key)
        {
            let socket_id = open.session.socket_id();
            debug!(%socket_id, %reason, "connection closed");
        }
        if plane.is_open(key) {
            self.count_close(key.slot, CloseCause::of(reason));
        }
        plane.close(key, &refusal_frames(reason), Ended::Ours);
    }

    /// Notes why an open connection has ended. `backlog_max` is the bound in bytes that a slow
    /// reader has exceeded.
    pub(super) fn note_ended(
        &self,
        app: &App,
        socket_id: SocketId,
        why: Ended,
        backlog_max: usize,
    ) {
        let note = |ending| {
            self.refusals.note(
                Some(app),
                RefusedClient::Socket(socket_id),
                &Refusal::Closed(ending),
            );
        };
        match why {
            Ended::TooSlow => note(ClosedWebSocket::SlowReader { most: backlog_max }),
            Ended::Violation(TOO_LONG) => {
                note(ClosedWebSocket::MessageTooLong { most: app.rules.limits.max_message_size });
            }
            Ended::Violation(code) => note(ClosedWebSocket::Frames(code)),
            Ended::Ours | Ended::PeerClosed | Ended::PeerLeft | Ended::Failed(_) => {}
        }
        let reason = match why {
            Ended::Ours if self.stopping => "the server stops".to_owned(),
            // `end` has logged it, with the reason.
            Ended::Ours => return,
            _ if !debugging() => return,
            Ended::PeerClosed => "the client closed it".to_owned(),
            Ended::PeerLeft => "the client left without a Close frame".to_owned(),
            Ended::Violation(TOO_LONG) => "1009 a message is too long".to_owned(),
            Ended::Violation(code) => format!("{code} its frames break RFC 6455"),
            Ended::Failed(errno) => {
                format!("the network failed: {}", io::Error::from_raw_os_error(errno))
            }
            Ended::TooSlow => "4101 the client reads too slowly".to_owned(),
        };
        debug!(%socket_id, reason, "connection closed");
    }
}

/// The log lines of `--debug` for events.
impl SubscriberSide {
    /// Has an event logged after its delivery, by the shard of the excepted connection if there is
    /// one.
    pub(super) fn trace(&mut self, traced: Traced) {
        let shard = traced.except().map(|id| self.socket_ids.shard_of(id));
        match shard.filter(|&shard| self.link.topology.contains(shard)) {
            Some(shard) => self.link.send(shard, ShardMessage::Traced(Box::new(traced))),
            // The event excepts no connection, or the id is from another server.
            None => self.log_traced(&traced),
        }
    }

    /// Writes the log line of an event that excepts a connection of this shard, or no connection.
    pub(super) fn log_traced(&self, traced: &Traced) {
        let slot = traced.except().and_then(|id| self.slot_of(id));
        let subscribed = |slot| self.local.membership(slot, traced.key()).is_some();
        traced.write(self.app_name(traced.key().app()), slot.is_some_and(subscribed));
    }
}

/// The close code of a message that is too long (RFC 6455 section 7.4.1).
const TOO_LONG: u16 = 1009;
