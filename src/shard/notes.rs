//! Notes for the log of refusals to clients of this shard, and of the ends of their connections.

use std::io;
use std::sync::Arc;

use tracing::debug;

use super::subscriber_side::SubscriberSide;
use super::trace::debugging;
use crate::apps::App;
use crate::id::{ConnKey, SocketId};
use crate::plane::{Ended, Plane};
use crate::protocol::close::{ProtocolError, refusal_frames};
use crate::refusals::{About, Bytes, Ending, Message, Refusal, Sender};
use crate::ring::Ring;

impl SubscriberSide {
    /// Notes that a message of a client was refused, whether its connection goes on or not.
    pub(super) fn note_message(&mut self, key: ConnKey, error: ProtocolError, about: About<'_>) {
        let Some((open, app)) = self.session(key) else { return };
        let (from, app) = (Sender::Socket(open.session.socket_id()), Arc::clone(app));
        let refusal = Refusal::Message(Message { error, about, app: &app });
        self.refusals.note(Some(&app), from, &refusal);
    }

    /// Notes that an open connection is closed for a reason that an operator can do something
    /// about.
    pub(super) fn note_ending(&mut self, key: ConnKey, ending: Ending) {
        let Some((open, app)) = self.session(key) else { return };
        let (from, app) = (Sender::Socket(open.session.socket_id()), Arc::clone(app));
        self.refusals.note(Some(&app), from, &Refusal::Ending(ending));
    }

    /// Notes that a socket could not be taken over.
    pub(super) fn note_take_over(&self, error: &io::Error) {
        let refusal = Refusal::Bytes(Bytes::TakeOver(error));
        self.refusals.note(None, Sender::Unknown, &refusal);
    }

    /// Closes a connection for this reason: it is told, and so is `--debug`.
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
        plane.close(key, &refusal_frames(reason), Ended::Ours);
    }

    /// Notes why a connection has ended that was open until now. A slow reader was closed because it
    /// was owed more than `backlog_max` bytes.
    pub(super) fn note_ended(
        &self,
        app: &App,
        socket_id: SocketId,
        why: Ended,
        backlog_max: usize,
    ) {
        let note = |ending| {
            self.refusals.note(Some(app), Sender::Socket(socket_id), &Refusal::Ending(ending));
        };
        match why {
            Ended::TooSlow => note(Ending::SlowReader { most: backlog_max }),
            Ended::Violation(TOO_LONG) => {
                note(Ending::MessageTooLong { most: app.rules.limits.max_message_size });
            }
            Ended::Violation(code) => note(Ending::Frames(code)),
            Ended::Ours | Ended::PeerClosed | Ended::PeerLeft | Ended::Failed(_) => {}
        }
        let reason = match why {
            Ended::Ours if self.stopping => "the server stops".to_owned(),
            // Told by `end`, which knows more.
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

/// The close code of a message that is too long (RFC 6455 section 7.4.1).
const TOO_LONG: u16 = 1009;
