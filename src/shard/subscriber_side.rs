//! The subscriber side of a shard: its connections with their sessions, the channels that they are
//! subscribed to, and the users that they are signed in as.

use std::io;
use std::sync::Arc;

use tracing::debug;

use super::client_memory::{ClientMemory, subscription_charge};
use super::closes::SpreadCloses;
use super::fan_out::owe_batch;
use super::leaving::Leaving;
use super::link::Link;
use super::sessions::{OpenSession, Sessions};
use super::socket_ids::SocketIds;
use crate::apps::webhook::EventKind;
use crate::apps::{App, Apps};
use crate::channels::{
    ChannelKey, ClientEventNotice, Event, Found, Join, Joining, Local, Repeat, ToHome, Users,
    Whisper,
};
use crate::counters::{ConnectionCounters, PerApp};
use crate::frame::Frame;
use crate::id::{AppIndex, ConnKey, SocketId};
use crate::plane::{Ended, Host, Plane};
use crate::protocol::auth::Authorised;
use crate::protocol::close::{ProtocolError, error_frame, subscribe_refusal};
use crate::protocol::names::ChannelName;
use crate::protocol::outbound;
use crate::protocol::session::{Action, ClientEvent};
use crate::refusals::{MessageSubject, Refusals};
use crate::ring::Ring;
use crate::text::without_signatures;
use crate::time::Millis;
use crate::websocket::{self, ReadLimits};

/// Units of work (of the plane, about a microsecond each) that a message costs on top of those of
/// any message: a subscribe here and at its home, an unsubscribe, a client event and a sign-in.
const SUBSCRIBE_UNITS: u32 = 4;
const UNSUBSCRIBE_UNITS: u32 = 2;
const CLIENT_EVENT_UNITS: u32 = 3;
const SIGN_IN_UNITS: u32 = 8;

/// The number of subscribers that a unit of work reaches. A send costs more, but everything that a
/// subscriber gets in a turn takes one send.
const TOLD_PER_UNIT: u32 = 4;

/// The most fragments of one message besides those that its payload pays for: far more than any
/// client makes, and few enough that empty fragments cannot multiply the cost of a message.
const FRAGMENTS_PER_MESSAGE: u32 = 1024;

/// The connections of a shard, with their sessions, subscriptions and sign-ins.
///
/// The shard sets `now`, `apps` and `stopping` before it calls anything else. In a turn it then
/// calls [`work`](Self::work) once and [`handle`](Self::handle) for every message of a home. As the
/// [`Host`] of the plane, this type receives clients' messages, which their sessions judge and
/// which become messages to homes. At the end of the turn [`flush`](Self::flush) owes subscribers
/// the messages that homes have delivered. When the plane reports that a connection has ended,
/// [`closed`](Self::closed) has to be called before its slot is used again.
#[derive(Debug)]
pub(super) struct SubscriberSide {
    /// The way to homes and other shards.
    pub(super) link: Link,
    /// The apps of the configuration in force.
    pub(super) apps: Arc<Apps>,
    /// The sessions of open connections, by slot.
    pub(super) sessions: Sessions,
    /// Makes the socket ids of connections, and finds connections by them.
    pub(super) socket_ids: SocketIds,
    /// The subscriptions, and the subscribers by channel.
    pub(super) local: Local,
    /// The users as which connections are signed in, and those whom they watch.
    pub(super) users: Users,
    /// The connections that have ended and still have subscriptions.
    pub(super) leaving: Leaving,
    /// The connections that are to be closed because they may have missed messages.
    pub(super) cut_off: SpreadCloses,
    /// The memory that clients may still make the process hold.
    pub(super) memory: ClientMemory,
    /// The counters of the connections, by app.
    pub(super) counters: PerApp<ConnectionCounters>,
    /// Takes notes of refusals for the log. All shards share it.
    pub(super) refusals: Arc<Refusals>,
    /// Whether a drain has begun. Only the log depends on it.
    pub(super) stopping: bool,
    /// The time of the turn.
    pub(super) now: Millis,
}

impl<R: Ring> Host<R> for SubscriberSide {
    fn message(&mut self, plane: &mut Plane<R>, key: ConnKey, message: websocket::Message<'_>) {
        let now = self.now;
        let user = self.users.user(key.slot).cloned();
        self.count_message(key, &message);
        let Some((open, app)) = self.session(key) else { return };
        let socket_id = open.session.socket_id();
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
        match open.session.handle(&app.rules, text, user.as_ref(), now) {
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
        let app = self.sessions.get(key.slot).and_then(|open| self.apps.get(open.app()));
        let max_message = app.map_or_else(
            // A closing connection has no session any more. Its messages are dropped, but have to
            // be read up to its answer to our Close frame.
            || self.apps.max_message_size(),
            |app| app.rules.limits.max_message_size,
        );
        ReadLimits { max_message, max_fragments: FRAGMENTS_PER_MESSAGE }
    }

    fn unfinished(&mut self, plane: &mut Plane<R>, key: ConnKey) {
        self.refuse_unfinished(plane, key);
    }
}

/// The requests of clients.
impl SubscriberSide {
    fn subscribe<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, authorised: Authorised) {
        let Some((_, app)) = self.session(key) else { return };
        let app = Arc::clone(app);
        let channel = self.link.channel(app.index, authorised.channel().clone());
        if channel.name().kind().needs_signature() {
            self.sessions.authenticated(key.slot);
        }
        let home = self.link.topology.home_of(&channel);
        let large = has_large_answers(&channel);
        let message = match self.local.find(key.slot, &channel) {
            Found::Vacant(vacant) => {
                if vacant.subscriptions() >= app.rules.limits.max_channels_per_connection {
                    let error = ProtocolError::TooManyChannels;
                    return self.refuse_subscription(plane, key, &channel, error);
                }
                let charge = subscription_charge(&channel, &authorised);
                if !self.memory.takes_on(charge, self.now) {
                    let error = ProtocolError::MemoryShort;
                    return self.refuse_subscription(plane, key, &channel, error);
                }
                let ticket = vacant.insert(&authorised);
                let max_members = app.rules.limits.max_presence_members;
                let join = Join { key: channel, authorised, conn: key, ticket, max_members };
                ToHome::Join(Box::new(join))
            }
            Found::Joining(ticket) => repeat(channel, authorised, key, Some(ticket)),
            Found::Subscribed => repeat(channel, authorised, key, None),
        };
        if large {
            plane.expect_answer(key);
        }
        self.link.send_home(home, message);
    }

    fn unsubscribe<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, name: &str) {
        let Some((open, app)) = self.session(key) else { return };
        let socket_id = open.session.socket_id();
        // The name may have any length: the limit may have been another one when the connection
        // subscribed. No connection is subscribed to a channel whose name is not valid.
        let Ok(name) = ChannelName::parse(name, usize::MAX, false) else { return };
        let app = app.index;
        let channel = self.link.channel(app, name);
        let settle = &mut |frame: &Frame| plane.owe(key, frame);
        if let Some(left) = self.local.unsubscribe(key.slot, &channel, settle) {
            debug!(%socket_id, channel = channel.name().as_str(), "unsubscribed");
            self.link.leave(channel, left);
        }
    }

    fn client_event<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        event: ClientEvent<'_>,
    ) {
        let Some((open, app)) = self.session(key) else { return };
        let socket_id = open.session.socket_id();
        let (app, told) = (app.index, app.webhooks.watched().contains(EventKind::ClientEvent));
        let channel = self.link.channel(app, event.channel);
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
        // The home may still refuse the join, which does not matter if every client may send.
        let ticket = membership.and_then(|of| of.ticket).filter(|_| event.must_be_member);
        let joining = ticket.map(|ticket| Joining { conn: key, ticket });
        let user_id = member.map(|member| &*member.id_json);
        let data = event.data.map(serde_json::value::RawValue::get);
        let frame = outbound::client_event(&event.event, channel.name(), data, user_id);
        let notice = told.then(|| {
            Box::new(ClientEventNotice {
                event: event.event.as_ref().into(),
                data: event.data.map(ToOwned::to_owned),
                socket_id,
                user_id: member.map(|member| Arc::clone(&member.user_id)),
            })
        });
        plane.charge(key, CLIENT_EVENT_UNITS + units_of(self.local.subscribers(&channel)));
        let home = self.link.topology.home_of(&channel);
        let event = Event { key: channel, frame, except: Some(socket_id), retain: None };
        let whisper = Whisper { event, joining, notice };
        self.counters.of(app).client_events += 1;
        self.link.send_home(home, ToHome::Whisper(Box::new(whisper)));
    }

    /// Tells a connection that it is not subscribed to a channel, and why not.
    pub(super) fn refuse_subscription<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        channel: &ChannelKey,
        error: ProtocolError,
    ) {
        let also_on_channel =
            self.session(key).is_some_and(|(_, app)| app.rules.subscription_errors);
        self.note_message(key, error, MessageSubject::Channel(channel.name()));
        plane.owe(key, &subscribe_refusal(error, channel.name(), also_on_channel));
    }
}

/// The connections, from their session to their end.
impl SubscriberSide {
    /// The session of an open connection, with its app as it is configured now.
    pub(super) fn session(&mut self, key: ConnKey) -> Option<(&mut OpenSession, &Arc<App>)> {
        let open = self.sessions.get_mut(key.slot)?;
        let app = self.apps.get(open.app())?;
        Some((open, app))
    }

    /// Ends the session, the subscriptions and the sign-in of a connection that has ended.
    pub(super) fn closed<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, why: Ended) {
        let Some(ended) = self.sessions.end(key.slot) else { return };
        if let Some(app) = self.apps.get(ended.app()) {
            self.note_ended(app, ended.session.socket_id(), why, plane.backlog_limits().connection);
        }
        self.count_end(ended.app(), why);
        let Self { leaving, local, link, .. } = self;
        leaving.begin(key, local, link, plane);
        self.sign_out(key.slot);
    }

    /// Does a turn's part of work that is too long for one turn, unless homes are `congested`.
    pub(super) fn work<R: Ring>(&mut self, plane: &mut Plane<R>, congested: bool) {
        let Self { leaving, local, link, .. } = self;
        leaving.work(congested, local, link, plane);
    }

    /// Owes each connection the messages that this turn has for it.
    pub(super) fn flush<R: Ring>(&mut self, plane: &mut Plane<R>) {
        let counters = &mut self.counters;
        self.local.flush(|batch| {
            let delivered = owe_batch(plane, &batch);
            let of_app = counters.of(batch.app);
            of_app.deliveries += delivered.messages;
            of_app.delivered_bytes += delivered.bytes;
        });
        self.users.flush(|conn, news| plane.owe(conn, news));
    }

    /// Closes the connections of a user on this shard: those that are signed in as the user, and
    /// those that are present in a channel as the user.
    pub(super) fn terminate<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        app: AppIndex,
        user_id: &str,
    ) {
        let of_user = |key: &ConnKey| {
            self.sessions.get(key.slot).is_some_and(|open| open.app() == app)
                && (self.local.is_user(key.slot, user_id)
                    || self.users.user(key.slot).is_some_and(|user| *user.user_id == *user_id))
        };
        let keys: Vec<_> = plane.keys().filter(of_user).collect();
        debug!(app = self.app_name(app), user_id, connections = keys.len(), "terminate");
        for key in keys {
            self.end(plane, key, ProtocolError::Terminated);
        }
    }

    /// Makes a socket id for the connection in this slot.
    ///
    /// # Errors
    /// The system has no random numbers (`getrandom(2)`).
    pub(super) fn name(&mut self, slot: u32) -> io::Result<SocketId> {
        self.socket_ids.name(self.link.id(), slot)
    }

    /// The slot of an open connection of this shard. `None` if there is no such connection.
    pub(super) fn slot_of(&self, id: SocketId) -> Option<u32> {
        let slot = self.socket_ids.slot_on(self.link.id(), id)?;
        self.sessions.is(slot, id).then_some(slot)
    }

    pub(super) fn app_name(&self, app: AppIndex) -> &str {
        self.apps.get(app).map_or("?", |app| &app.id)
    }
}

fn repeat(key: ChannelKey, authorised: Authorised, conn: ConnKey, ticket: Option<u32>) -> ToHome {
    ToHome::Repeat(Box::new(Repeat { key, authorised, conn, ticket }))
}

/// Whether the answer to a subscribe may be as large as an event or a list of members.
pub(super) fn has_large_answers(channel: &ChannelKey) -> bool {
    let kind = channel.name().kind();
    kind.is_cache() || kind.is_presence()
}

/// The units of work that sending to this number of subscribers costs.
pub(super) fn units_of(subscribers: usize) -> u32 {
    // More subscribers than a u32 counts cost more units than a connection has in its life.
    u32::try_from(subscribers).unwrap_or(u32::MAX) / TOLD_PER_UNIT
}
