//! The answers and events that homes send to the subscribers of a shard.

use tracing::debug;

use super::subscriber_side::{SubscriberSide, has_large_answers, units_of};
use crate::channels::{FromHome, Joined, Left, Outcome, Repeated, Settled};
use crate::frame::Frame;
use crate::id::ConnKey;
use crate::invariant::broken;
use crate::plane::Plane;
use crate::protocol::close::{ProtocolError, error_frame};
use crate::refusals::MessageSubject;
use crate::ring::Ring;

/// The bytes of an answer that cost one unit of work, for the copy by the kernel and perhaps for
/// the encoding.
const ANSWER_BYTES_PER_UNIT: usize = 256;

impl SubscriberSide {
    /// Handles a message of the home of a channel or of users. Answers to requests of the API are
    /// handled by [`PendingRequests`](super::PendingRequests).
    pub(super) fn handle<R: Ring>(&mut self, plane: &mut Plane<R>, message: FromHome) {
        match message {
            FromHome::Joined(joined) => self.joined(plane, *joined),
            FromHome::Repeated(repeated) => self.repeated(plane, *repeated),
            FromHome::Event(event) => {
                let except = event.except.and_then(|id| self.slot_of(id));
                self.local.deliver(&event.key, event.frame, except);
            }
            FromHome::NotMember(conn, channel) => {
                self.note_message(
                    conn,
                    ProtocolError::NotMember,
                    MessageSubject::Channel(&channel),
                );
                plane.owe(conn, &error_frame(ProtocolError::NotMember));
            }
            FromHome::Online(users) => {
                users.iter().for_each(|(user, online)| self.users.learn(user, *online));
            }
            FromHome::Answer(..) => broken("an answer of the API comes to the subscribers"),
        }
    }

    /// Handles the home's answer to a join, which it has counted or refused.
    fn joined<R: Ring>(&mut self, plane: &mut Plane<R>, joined: Joined) {
        let Joined { key: channel, conn, ticket, outcome, told } = joined;
        if has_large_answers(&channel) {
            plane.answered(conn);
        }
        match outcome {
            Outcome::Subscribed { answer, last } => {
                // A connection that closes in this very turn still joins; the subscription then
                // ends with its others.
                if self.local.joined(conn.slot, &channel, ticket) == Settled::Void {
                    return;
                }
                plane.charge(conn, units_of(told as usize));
                owe_answer(plane, conn, &answer, last.as_ref());
                if let Some((open, _)) = self.session(conn) {
                    let socket_id = open.session.socket_id();
                    debug!(%socket_id, channel = channel.name().as_str(), "subscribed");
                }
            }
            Outcome::Full => {
                if self.local.refused(conn.slot, &channel, ticket) == Settled::Void {
                    return;
                }
                self.refuse_subscription(plane, conn, &channel, ProtocolError::TooManyMembers);
                self.link.leave(channel, Left { member: None, ticket: Some(ticket) });
            }
        }
    }

    /// Handles the home's repeated answer to a connection that has subscribed again.
    fn repeated<R: Ring>(&mut self, plane: &mut Plane<R>, repeated: Repeated) {
        let Repeated { key: channel, conn, outcome } = repeated;
        if has_large_answers(&channel) {
            plane.answered(conn);
        }
        match outcome {
            Outcome::Subscribed { answer, last } => {
                let settle = &mut |frame: &Frame| plane.owe(conn, frame);
                if self.local.repeated(conn.slot, &channel, settle) {
                    owe_answer(plane, conn, &answer, last.as_ref());
                }
            }
            Outcome::Full => {
                self.refuse_subscription(plane, conn, &channel, ProtocolError::TooManyMembers);
            }
        }
    }
}

/// Owes a home's answer to the subscriber, whose share of the turn pays for it.
fn owe_answer<R: Ring>(plane: &mut Plane<R>, conn: ConnKey, answer: &Frame, last: Option<&Frame>) {
    let bytes = answer.len() + last.map_or(0, Frame::len);
    // An answer of more than 1 TiB does not fit into memory.
    plane.charge(conn, u32::try_from(bytes / ANSWER_BYTES_PER_UNIT).unwrap_or(u32::MAX));
    plane.owe(conn, answer);
    if let Some(last) = last {
        plane.owe(conn, last);
    }
}
