//! Floor 2. One connection's side of the protocol, without its socket.
//!
//! Contract: [`Session::established`] is sent first. Then every whole text message goes through
//! [`Session::handle`], with the time, in order; the returned [`Action`] is carried out before the
//! next message. The session belongs to its app by index, and each call is handed the app as it is
//! configured by then: what changes there holds for the next message. It does not know which
//! channels the connection is subscribed to, so membership and the limits on numbers are the
//! shard's to check. Nor does it keep who is signed in, since most connections never are: it is
//! told with each message.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::frame::Frame;
use crate::id::{AppIndex, SocketId};
use crate::time::Millis;

use super::app::{Admission, App, ClientEvents};
use super::auth::{AuthError, Authorised, Member, authorise};
use super::close::{ProtocolError, error_frame, joined, subscribe_refusal};
use super::message::{self, Inbound};
use super::names::{ChannelKind, ChannelName, valid_event_name};
use super::outbound;
use super::sign_in::{SignedIn, sign_in};
use super::signing::query_pairs;

/// One connection: its place among the app's connections, its id and its counts.
#[derive(Debug)]
pub struct Session {
    admission: Admission,
    socket_id: SocketId,
    /// `None` until a message counts against a limit; boxed, because most apps limit neither.
    windows: Option<Box<Windows>>,
}

/// The counts of the messages that a connection has sent lately.
#[derive(Debug, Default)]
struct Windows {
    /// All messages, for the app's rate limit.
    messages: Window,
    /// Client events, for the app's limit per second.
    client_events: Window,
}

/// The action that a message asks of the shard.
#[derive(Debug)]
pub enum Action<'t> {
    /// Nothing.
    Nothing,
    /// Send this.
    Reply(Frame),
    /// Join the channel, as the member that the proof names.
    Subscribe(Authorised),
    /// Send this, and from now on tell the session that this user is signed in. The connection may
    /// have been signed in as the same one before.
    SignIn(SignedIn, Frame),
    /// Leave the channel of this name. The connection may well not be there: then nothing.
    Unsubscribe(Cow<'t, str>),
    /// Relay to the others on a channel.
    ClientEvent(ClientEvent<'t>),
    /// Send this, and count it as the error; the connection goes on.
    Refuse(ProtocolError, Frame),
    /// End the connection with [`refusal_frames`](super::close::refusal_frames).
    Close(ProtocolError),
}

/// A client event that its app allows.
#[derive(Debug)]
pub struct ClientEvent<'t> {
    /// The channel that it is for.
    pub channel: ChannelName,
    /// Its name, `client-` included.
    pub event: Cow<'t, str>,
    /// Its data as sent.
    pub data: Option<&'t RawValue>,
    /// Whether the sender has to be subscribed to the channel. If it is not, the shard answers with
    /// [`ProtocolError::NotMember`].
    pub must_be_member: bool,
}

impl Session {
    /// The session of a connection that was upgraded.
    #[must_use]
    pub const fn new(admission: Admission, socket_id: SocketId) -> Self {
        Self { admission, socket_id, windows: None }
    }

    /// The first message to the client.
    #[must_use]
    pub(crate) fn established(&self, app: &App) -> Frame {
        outbound::connection_established(self.socket_id, app.activity_timeout_s)
    }

    /// The app that the connection belongs to: whom to hand to the other methods.
    #[must_use]
    pub(crate) fn app(&self) -> AppIndex {
        self.admission.app()
    }

    /// The connection's name on the wire.
    #[must_use]
    pub(crate) const fn socket_id(&self) -> SocketId {
        self.socket_id
    }

    /// Takes one text message of a connection that is signed in as `user`, if as anybody. Binary
    /// messages are taken as text too, as Reverb does; those that are not UTF-8 are
    /// [`ProtocolError::Malformed`].
    pub fn handle<'t>(
        &mut self,
        app: &App,
        text: &'t str,
        user: Option<&Arc<Member>>,
        now: Millis,
    ) -> Action<'t> {
        if !app.is_enabled() {
            return Action::Close(ProtocolError::AppDisabled);
        }
        if let Some(limit) = app.rate_limit
            && !windows(&mut self.windows).messages.admits(limit.max_attempts, limit.decay, now)
        {
            let error = ProtocolError::RateLimited;
            return if limit.terminate { Action::Close(error) } else { refuse(error) };
        }
        match message::parse(text) {
            Ok(Inbound::Ping) => Action::Reply(outbound::pong()),
            Ok(Inbound::Pong | Inbound::Ignored) => Action::Nothing,
            Ok(Inbound::Subscribe { channel, auth, channel_data }) => {
                self.subscribe(app, &channel, auth.as_deref(), channel_data.as_deref(), user)
            }
            Ok(Inbound::SignIn { auth, user_data }) => self
                .sign_in(app, auth.as_deref(), &user_data, user)
                .unwrap_or_else(|error| refuse(ProtocolError::Unauthorised(error))),
            Ok(Inbound::Unsubscribe { channel }) => Action::Unsubscribe(channel),
            Ok(Inbound::ClientEvent { event, channel, data }) => self
                .client_event(app, event, &channel, data, now)
                .map_or_else(refuse, Action::ClientEvent),
            Err(message::Malformed) => refuse(ProtocolError::Malformed),
        }
    }

    fn subscribe(
        &self,
        app: &App,
        channel: &str,
        auth: Option<&str>,
        channel_data: Option<&str>,
        user: Option<&Arc<Member>>,
    ) -> Action<'static> {
        let authorised = channel_name(app, channel).and_then(|name| {
            authorise(app, self.socket_id, name, auth, channel_data, user)
                .map_err(ProtocolError::Unauthorised)
        });
        authorised.map_or_else(
            |error| {
                Action::Refuse(error, subscribe_refusal(error, channel, app.subscription_errors))
            },
            Action::Subscribe,
        )
    }

    fn sign_in(
        &self,
        app: &App,
        auth: Option<&str>,
        user_data: &str,
        user: Option<&Arc<Member>>,
    ) -> Result<Action<'static>, AuthError> {
        let signed_in = sign_in(app, self.socket_id, auth, user_data)?;
        if user.is_some_and(|user| user.user_id != signed_in.user().user_id) {
            return Err(AuthError::OtherUser);
        }
        let mut answer = outbound::signin_success(user_data);
        if signed_in.cut() {
            answer = joined(&[answer, error_frame(ProtocolError::WatchlistTooLong)]);
        }
        Ok(Action::SignIn(signed_in, answer))
    }

    fn client_event<'t>(
        &mut self,
        app: &App,
        event: Cow<'t, str>,
        channel: &str,
        data: Option<&'t RawValue>,
        now: Millis,
    ) -> Result<ClientEvent<'t>, ProtocolError> {
        if app.client_events == ClientEvents::None {
            return Err(ProtocolError::ClientEventsOff);
        }
        let channel = channel_name(app, channel)?;
        let open_to_all = match channel.kind() {
            ChannelKind::ServerToUser => return Err(ProtocolError::ClientEventOnPublic),
            kind => !kind.needs_signature(),
        };
        if open_to_all && !app.client_events_on_public {
            return Err(ProtocolError::ClientEventOnPublic);
        }
        if !valid_event_name(&event, app.limits.max_event_name) {
            return Err(ProtocolError::ClientEventName);
        }
        let data_len = data.map_or(0, |data| data.get().len());
        if app.limits.max_client_event_data.is_some_and(|max| data_len > max) {
            return Err(ProtocolError::ClientEventTooLarge);
        }
        if let Some(max) = app.limits.max_client_events_per_second
            && !windows(&mut self.windows).client_events.admits(max, Duration::from_secs(1), now)
        {
            return Err(ProtocolError::RateLimited);
        }
        let must_be_member = app.client_events == ClientEvents::Members;
        Ok(ClientEvent { channel, event, data, must_be_member })
    }
}

fn channel_name(app: &App, name: &str) -> Result<ChannelName, ProtocolError> {
    ChannelName::parse(name, app.limits.max_channel_name, app.strict_names)
        .map_err(ProtocolError::ChannelName)
}

/// Decides by the `protocol` parameter of the upgrade's query. 5, 6 and 7 look the same to a
/// server; without one, which Pusher refuses and Reverb takes, the client means the current one.
///
/// # Errors
/// [`ProtocolError::UnsupportedVersion`] for any other.
pub(crate) fn check_protocol_version(query: &str) -> Result<(), ProtocolError> {
    match query_pairs(query).find(|(name, _)| name == "protocol") {
        Some((_, version)) if !["5", "6", "7"].contains(&&*version) => {
            Err(ProtocolError::UnsupportedVersion)
        }
        _ => Ok(()),
    }
}

fn refuse<'t>(error: ProtocolError) -> Action<'t> {
    Action::Refuse(error, error_frame(error))
}

fn windows(windows: &mut Option<Box<Windows>>) -> &mut Windows {
    windows.get_or_insert_default()
}

/// A fixed window that starts with the first that it counts, as Laravel's rate limiter has it.
#[derive(Debug, Default)]
struct Window {
    started: Millis,
    count: u32,
}

impl Window {
    /// Counts one if fewer than `max` were counted since the window started, less than `length`
    /// ago.
    fn admits(&mut self, max: u32, length: Duration, now: Millis) -> bool {
        if self.count == 0 || now.since(self.started) >= length {
            *self = Self { started: now, count: 0 };
        }
        let admitted = self.count < max;
        self.count += u32::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests;
