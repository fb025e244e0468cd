//! From messages to consequences: what a client said, by way of its session, and what other shards
//! said, by way of the channels.

use std::sync::Arc;

use tracing::debug;

use super::drain::Draining;
use super::pressure::subscription_charge;
use super::{Core, Counts, Message};
use crate::channels::{
    self, ChannelKey, Join, Joined, Joining, JoiningSender, Left, Outcome, Publish, Subscribe,
    Whisper,
};
use crate::frame::Frame;
use crate::id::{ConnKey, SocketId};
use crate::plane::{Host, Plane};
use crate::protocol::auth::Authorised;
use crate::protocol::close::{ProtocolError, error_frame, subscribe_refusal};
use crate::protocol::names::ChannelName;
use crate::protocol::outbound;
use crate::protocol::session::{Action, ClientEvent};
use crate::protocol::webhook::EventKind;
use crate::refusals::MessageSubject;
use crate::ring::Ring;
use crate::text::without_signatures;
use crate::websocket::{self, ReadLimits};

/// Units of work (of the plane, about a microsecond) beside those of any message: of a subscribe
/// here and at its home, of an unsubscribe, of a client event and of a sign-in.
const SUBSCRIBE_UNITS: u32 = 4;
const UNSUBSCRIBE_UNITS: u32 = 2;
const CLIENT_EVENT_UNITS: u32 = 3;
const SIGN_IN_UNITS: u32 = 8;

/// Bytes of an answer that cost a unit, for the copy by the kernel and perhaps for the encoding.
const ANSWER_BYTES_PER_UNIT: usize = 256;

/// The number of subscribers that are sent something for a unit. A send costs more, but everything
/// that a subscriber gets in a turn takes one send.
const TOLD_PER_UNIT: u32 = 4;

/// The most fragments of one message besides those that its payload pays for: far more than any
/// client makes, and few enough that empty fragments cannot multiply the cost of a message.
const FRAGMENTS_PER_MESSAGE: u32 = 1024;

impl<R: Ring> Host<R> for Core {
    fn message(&mut self, plane: &mut Plane<R>, key: ConnKey, message: websocket::Message<'_>) {
        let now = self.now;
        let user = self.users.user(key.slot).cloned();
        let Some((occupant, app)) = self.occupant(key) else { return };
        let socket_id = occupant.session.socket_id();
        let text = match message {
            websocket::Message::Text(text) => text,
            // Reverb takes binary messages as text.
            websocket::Message::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(_invalid) => {
                    let about = MessageSubject::Text("bytes that are not UTF-8");
                    self.note_message(key, ProtocolError::Malformed, about);
                    return plane.owe(key, &error_frame(ProtocolError::Malformed));
                }
            },
            _ => return,
        };
        debug!(%socket_id, text = without_signatures(text), "received");
        match occupant.session.handle(app, text, user.as_ref(), now) {
            Action::Nothing => {}
            Action::Reply(frame) => plane.owe(key, &frame),
            Action::Subscribe(authorised) => {
                plane.charge(key, SUBSCRIBE_UNITS);
                self.subscribe(plane, key, authorised);
            }
            Action::SignIn(signed_in, answer) => {
                plane.charge(key, SIGN_IN_UNITS);
                self.sign_in(plane, key, signed_in, &answer);
            }
            Action::Unsubscribe(channel) => {
                plane.charge(key, UNSUBSCRIBE_UNITS);
                self.unsubscribe(plane, key, &channel);
            }
            Action::ClientEvent(event) => self.client_event(plane, key, event),
            Action::Refuse(error, frame) => {
                self.note_message(key, error, MessageSubject::Text(text));
                plane.owe(key, &frame);
            }
            Action::Close(error) => {
                self.note_message(key, error, MessageSubject::Text(text));
                self.end(plane, key, error);
            }
        }
    }

    fn read_limits(&self, key: ConnKey) -> ReadLimits {
        let occupant = self.sessions.get(key.slot as usize).and_then(Option::as_ref);
        let max_message = occupant.and_then(|of| self.apps.get(of.session.app())).map_or_else(
            // A closing connection has no session any more. What it still says is dropped, but has
            // to be read up to its answer to our Close frame.
            || self.apps.max_message_size(),
            |app| app.limits.max_message_size,
        );
        ReadLimits { max_message, max_fragments: FRAGMENTS_PER_MESSAGE }
    }

    fn unfinished(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        self.refuse_unfinished(plane, key);
    }
}

impl Core {
    fn subscribe<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, authorised: Authorised) {
        let Some((_, app)) = self.occupant(key) else { return };
        let app = Arc::clone(app);
        let (name, member) = authorised.into_parts();
        if name.kind().needs_signature() {
            self.authenticated(key.slot);
        }
        let channel = self.hash.key(app.index, name);
        let subscribed = self.local.membership(key.slot, &channel).is_some();
        if !subscribed && self.local.count(key.slot) >= app.limits.max_channels_per_connection {
            let error = ProtocolError::TooManyChannels;
            self.note_message(key, error, MessageSubject::Channel(channel.name()));
            let also_on_channel = app.subscription_errors;
            return plane.owe(key, &subscribe_refusal(error, channel.name(), also_on_channel));
        }
        if !subscribed && !self.takes_on(subscription_charge(&channel, member.as_deref())) {
            return self.refuse_subscription(plane, key, &channel);
        }
        let (ticket, again) = match self.local.subscribe(key.slot, &channel, member.clone()) {
            Subscribe::Ask(ticket) => (ticket, false),
            // No join is on its way, and no ticket is 0.
            Subscribe::Already => (0, true),
            Subscribe::Asked(ticket) => (ticket, true),
        };
        if has_large_answers(&channel) {
            plane.expect_answer(key);
        }
        let home = channel.home(self.port.shards());
        let join = Join {
            key: channel,
            shard: self.id,
            conn: key,
            ticket,
            member,
            again,
            max_members: app.limits.max_presence_members,
        };
        let message = channels::Message::Join(Box::new(join));
        self.port.send(home, Message::Channel(message));
    }

    fn unsubscribe<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, name: &str) {
        let Some((occupant, app)) = self.occupant(key) else { return };
        let socket_id = occupant.session.socket_id();
        // The name may have any length: the limit may have been another one when the connection
        // subscribed. No connection is subscribed to a channel whose name is not valid.
        let Ok(name) = ChannelName::parse(name, usize::MAX, false) else { return };
        let app = app.index;
        let channel = self.hash.key(app, name);
        let settle = &mut |frame: &Frame| plane.owe(key, frame);
        if let Some(left) = self.local.unsubscribe(key.slot, &channel, settle) {
            debug!(%socket_id, channel = channel.name().as_str(), "unsubscribed");
            self.leave(channel, left);
        }
    }

    fn leave(&mut self, channel: ChannelKey, left: Left) {
        let home = channel.home(self.port.shards());
        self.port.send(home, Message::leave(channel, self.id, left));
    }

    fn client_event<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        event: ClientEvent<'_>,
    ) {
        let Some((occupant, app)) = self.occupant(key) else { return };
        let socket_id = occupant.session.socket_id();
        let (app, told) = (app.index, app.webhooks.watched().contains(EventKind::ClientEvent));
        let channel = self.hash.key(app, event.channel);
        let membership = self.local.membership(key.slot, &channel);
        if event.must_be_member && membership.is_none() {
            self.note_message(
                key,
                ProtocolError::NotMember,
                MessageSubject::Channel(channel.name()),
            );
            return plane.owe(key, &error_frame(ProtocolError::NotMember));
        }
        let member = membership.and_then(|of| of.member);
        // The home may still refuse the join. Where every client may send, that changes nothing.
        let ticket = membership.and_then(|of| of.ticket).filter(|_| event.must_be_member);
        let joining = ticket.map(|ticket| JoiningSender { shard: self.id, conn: key, ticket });
        let user_id = member.map(|member| &*member.id_json);
        let data = event.data.map(serde_json::value::RawValue::get);
        let frame = outbound::client_event(&event.event, channel.name(), data, user_id);
        let whisper = told.then(|| {
            Box::new(Whisper {
                event: event.event.as_ref().into(),
                data: event.data.map(ToOwned::to_owned),
                socket_id,
                user_id: member.map(|member| Arc::clone(&member.user_id)),
            })
        });
        let told = u32::try_from(self.local.subscribers(&channel)).unwrap_or(u32::MAX);
        plane.charge(key, CLIENT_EVENT_UNITS + told / TOLD_PER_UNIT);
        let home = channel.home(self.port.shards());
        let publish = Publish {
            key: channel,
            frame,
            cached: None,
            except: Some(socket_id),
            whisper,
            joining,
            by_client: true,
            answer_to: None,
        };
        let message = channels::Message::Publish(Box::new(publish));
        self.port.send(home, Message::Channel(message));
    }

    /// A message of the bus.
    pub(super) fn message<R: Ring>(&mut self, plane: &mut Plane<R>, message: Message) {
        match message {
            Message::Channel(message) => self.channel_message(plane, message),
            Message::Users(message) => self.user_message(message),
            Message::Ask(ask) => self.asked(plane, *ask),
            Message::Answer(answer) => self.gathers.answer(*answer),
            Message::Drain(drain) => {
                let connections = plane.open_connections();
                self.timers.start_drain(Draining::new(drain, self.now, connections));
            }
            Message::CloseListeners => {
                if let Some(draining) = self.timers.draining_mut() {
                    draining.close_listeners();
                }
            }
            Message::InForce(in_force, taken) => {
                self.adopt_configuration(plane, &in_force);
                let _gone = taken.send(());
            }
            Message::Traced(traced) => self.tell_traced(&traced),
            Message::Memory(headroom) => self.see_headroom(plane, headroom),
            Message::RollCall(present) => self.roll_calls.push(present),
            Message::Count(tell) => {
                let channels = self.homes.occupied_counts().to_vec();
                let _late = tell.send(Counts { connections: plane.open_connections(), channels });
            }
            Message::Stop => self.timers.stop(),
        }
    }

    fn channel_message<R: Ring>(&mut self, plane: &mut Plane<R>, message: channels::Message) {
        match message {
            channels::Message::Join(join) => self.home_join(*join),
            channels::Message::Leave(leave) => self.home_leave(&leave),
            channels::Message::Publish(publish) => self.home_publish(*publish),
            channels::Message::Joined(joined) => self.joined(plane, *joined),
            channels::Message::Deliver(deliver) => {
                let except = deliver.except.and_then(|id| self.slot_of(id));
                self.local.deliver(&deliver.key, deliver.frame, except);
            }
            channels::Message::Published(answered) => {
                self.gathers.published(answered.question, answered.index, answered.state);
            }
            channels::Message::NotMember(conn, channel) => {
                self.note_message(
                    conn,
                    ProtocolError::NotMember,
                    MessageSubject::Channel(&channel),
                );
                plane.owe(conn, &error_frame(ProtocolError::NotMember));
            }
        }
    }

    /// The home's answer to a subscribe.
    fn joined<R: Ring>(&mut self, plane: &mut Plane<R>, joined: Joined) {
        let Joined { key: channel, conn, ticket, again, outcome } = joined;
        if has_large_answers(&channel) {
            plane.answered(conn);
        }
        match outcome {
            Outcome::Subscribed { answer, last, .. } if again => {
                let settle = &mut |frame: &Frame| plane.owe(conn, frame);
                if self.local.answered_again(conn.slot, &channel, settle) {
                    answer_to(plane, conn, &answer, last.as_ref());
                }
            }
            Outcome::Subscribed { answer, last, told } => {
                // One that closes in this very turn joins all the same, and leaves with the rest.
                if self.local.joined(conn.slot, &channel, ticket) == Joining::Void {
                    return;
                }
                plane.charge(conn, told / TOLD_PER_UNIT);
                answer_to(plane, conn, &answer, last.as_ref());
                if let Some((occupant, _)) = self.occupant(conn) {
                    let socket_id = occupant.session.socket_id();
                    debug!(%socket_id, channel = channel.name().as_str(), "subscribed");
                }
            }
            Outcome::Full if again => self.tell_full(plane, conn, &channel),
            Outcome::Full => {
                if self.local.refused(conn.slot, &channel, ticket) == Joining::Void {
                    return;
                }
                self.tell_full(plane, conn, &channel);
                self.leave(channel, Left { member: None, ticket: Some(ticket) });
            }
        }
    }

    /// Tells a connection that the channel has as many members as it may have.
    fn tell_full<R: Ring>(&mut self, plane: &mut Plane<R>, conn: ConnKey, channel: &ChannelKey) {
        let also_on_channel = self.occupant(conn).is_some_and(|(_, app)| app.subscription_errors);
        let error = ProtocolError::TooManyMembers;
        self.note_message(conn, error, MessageSubject::Channel(channel.name()));
        plane.owe(conn, &subscribe_refusal(error, channel.name(), also_on_channel));
    }

    /// The slot of an open connection of this shard.
    pub(super) fn slot_of(&self, id: SocketId) -> Option<u32> {
        let slot = self.socket_ids.slot_on(self.id, id)?;
        let occupant = self.sessions.get(slot as usize)?.as_ref()?;
        (occupant.session.socket_id() == id).then_some(slot)
    }
}

/// Whether the answer to a subscribe may be as large as an event or a list of members.
fn has_large_answers(channel: &ChannelKey) -> bool {
    let kind = channel.name().kind();
    kind.is_cache() || kind.is_presence()
}

/// Sends a home's answer to a subscribe to the subscriber, whose share of the turn pays for it.
fn answer_to<R: Ring>(plane: &mut Plane<R>, conn: ConnKey, answer: &Frame, last: Option<&Frame>) {
    let bytes = answer.len() + last.map_or(0, Frame::len);
    plane.charge(conn, u32::try_from(bytes / ANSWER_BYTES_PER_UNIT).unwrap_or(u32::MAX));
    plane.owe(conn, answer);
    if let Some(last) = last {
        plane.owe(conn, last);
    }
}
