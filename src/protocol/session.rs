//! Floor 1. One connection's side of the protocol, without its socket.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::frame::Frame;
use crate::id::SocketId;
use crate::time::Millis;

use super::auth::{AuthError, Authorised, Member, authorise};
use super::close::{ProtocolError, error_frame, joined, subscribe_refusal};
use super::message::{self, Inbound};
use super::names::{ChannelKind, ChannelName, valid_event_name};
use super::outbound;
use super::rules::{AppRules, ClientEvents};
use super::sign_in::{SignedIn, sign_in};
use super::signing::query_pairs;

/// The protocol's side of one connection: its id, and the counts of its messages.
///
/// Contract, in the order of calls:
/// 1. [`established`](Self::established) makes the first message to the client.
/// 2. Every complete text message goes through [`handle`](Self::handle), in order and with the
///    time. The caller carries out the returned [`Action`] before the next message.
///
/// Each call is handed the rules of the app as they are configured at that moment, so a reload
/// holds for the next message. The session does not know the subscriptions of the connection, so
/// the caller checks membership and the limits on numbers. Nor does it keep the signed-in user,
/// because most connections have none: the caller hands it in with each message.
#[derive(Debug)]
pub struct Session {
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

/// The action that a message asks of the caller.
#[derive(Debug)]
pub enum Action<'t> {
    /// Do nothing.
    Nothing,
    /// Send this frame.
    Reply(Frame),
    /// Join the channel, as the member that the proof names.
    Subscribe(Authorised),
    /// Send this frame, and hand in this user with each message from now on. The connection may
    /// have been signed in as the same user before.
    SignIn(SignedIn, Frame),
    /// Leave the channel of this name, if the connection is subscribed to it.
    Unsubscribe(Cow<'t, str>),
    /// Relay this event to the other subscribers of its channel.
    ClientEvent(ClientEvent<'t>),
    /// Send this frame, and note the error. The connection stays open.
    Refuse(ProtocolError, Frame),
    /// Close the connection with [`refusal_frames`](super::close::refusal_frames).
    Close(ProtocolError),
}

/// A client event that its app allows.
#[derive(Debug)]
pub struct ClientEvent<'t> {
    /// The channel of the event.
    pub channel: ChannelName,
    /// The name of the event, `client-` included.
    pub event: Cow<'t, str>,
    /// The data as it was sent.
    pub data: Option<&'t RawValue>,
    /// Whether the sender has to be subscribed to the channel. If it is not, the caller answers
    /// with [`ProtocolError::NotMember`].
    pub must_be_member: bool,
}

impl Session {
    /// The session of a new connection.
    #[must_use]
    pub const fn new(socket_id: SocketId) -> Self {
        Self { socket_id, windows: None }
    }

    /// The first message to the client.
    #[must_use]
    pub(crate) fn established(&self, rules: &AppRules) -> Frame {
        outbound::connection_established(self.socket_id, rules.activity_timeout_s)
    }

    /// The connection's name on the wire.
    #[must_use]
    pub(crate) const fn socket_id(&self) -> SocketId {
        self.socket_id
    }

    /// Judges one text message of a connection. `user` is the signed-in user, if any. The caller
    /// hands in binary messages as well, as Reverb does, if they are UTF-8; others are
    /// [`ProtocolError::Malformed`].
    pub fn handle<'t>(
        &mut self,
        rules: &AppRules,
        text: &'t str,
        user: Option<&Arc<Member>>,
        now: Millis,
    ) -> Action<'t> {
        if !rules.is_enabled() {
            return Action::Close(ProtocolError::AppDisabled);
        }
        if let Some(limit) = rules.rate_limit
            && !windows(&mut self.windows).messages.admits(limit.max_attempts, limit.decay, now)
        {
            let error = ProtocolError::RateLimited;
            return if limit.terminate { Action::Close(error) } else { refuse(error) };
        }
        match message::parse(text) {
            Ok(Inbound::Ping) => Action::Reply(outbound::pong()),
            Ok(Inbound::Pong | Inbound::Ignored) => Action::Nothing,
            Ok(Inbound::Subscribe { channel, auth, channel_data }) => {
                self.subscribe(rules, &channel, auth.as_deref(), channel_data.as_deref(), user)
            }
            Ok(Inbound::SignIn { auth, user_data }) => self
                .sign_in(rules, auth.as_deref(), &user_data, user)
                .unwrap_or_else(|error| refuse(ProtocolError::Unauthorised(error))),
            Ok(Inbound::Unsubscribe { channel }) => Action::Unsubscribe(channel),
            Ok(Inbound::ClientEvent { event, channel, data }) => self
                .client_event(rules, event, &channel, data, now)
                .map_or_else(refuse, Action::ClientEvent),
            Err(message::Malformed) => refuse(ProtocolError::Malformed),
        }
    }

    fn subscribe(
        &self,
        rules: &AppRules,
        channel: &str,
        auth: Option<&str>,
        channel_data: Option<&str>,
        user: Option<&Arc<Member>>,
    ) -> Action<'static> {
        let authorised = channel_name(rules, channel).and_then(|name| {
            authorise(rules, self.socket_id, name, auth, channel_data, user)
                .map_err(ProtocolError::Unauthorised)
        });
        authorised.map_or_else(
            |error| {
                Action::Refuse(error, subscribe_refusal(error, channel, rules.subscription_errors))
            },
            Action::Subscribe,
        )
    }

    fn sign_in(
        &self,
        rules: &AppRules,
        auth: Option<&str>,
        user_data: &str,
        user: Option<&Arc<Member>>,
    ) -> Result<Action<'static>, AuthError> {
        let signed_in = sign_in(rules, self.socket_id, auth, user_data)?;
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
        rules: &AppRules,
        event: Cow<'t, str>,
        channel: &str,
        data: Option<&'t RawValue>,
        now: Millis,
    ) -> Result<ClientEvent<'t>, ProtocolError> {
        if rules.client_events == ClientEvents::None {
            return Err(ProtocolError::ClientEventsOff);
        }
        let channel = channel_name(rules, channel)?;
        let open_to_all = match channel.kind() {
            ChannelKind::ServerToUser => return Err(ProtocolError::ClientEventOnPublic),
            kind => !kind.needs_signature(),
        };
        if open_to_all && !rules.client_events_on_public {
            return Err(ProtocolError::ClientEventOnPublic);
        }
        if !valid_event_name(&event, rules.limits.max_event_name) {
            return Err(ProtocolError::ClientEventName);
        }
        let data_len = data.map_or(0, |data| data.get().len());
        if rules.limits.max_client_event_data.is_some_and(|max| data_len > max) {
            return Err(ProtocolError::ClientEventTooLarge);
        }
        if let Some(max) = rules.limits.max_client_events_per_second
            && !windows(&mut self.windows).client_events.admits(max, Duration::from_secs(1), now)
        {
            return Err(ProtocolError::RateLimited);
        }
        let must_be_member = rules.client_events == ClientEvents::Members;
        Ok(ClientEvent { channel, event, data, must_be_member })
    }
}

fn channel_name(rules: &AppRules, name: &str) -> Result<ChannelName, ProtocolError> {
    ChannelName::parse(name, rules.limits.max_channel_name, rules.strict_names)
        .map_err(ProtocolError::ChannelName)
}

/// Checks the `protocol` parameter of the upgrade's query. Versions 5, 6 and 7 are the same for a
/// server. A missing one, which Pusher refuses and Reverb takes, stands for the current version.
///
/// # Errors
/// [`ProtocolError::UnsupportedVersion`] for any other version.
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

/// A fixed window that starts with its first message, as in Laravel's rate limiter.
#[derive(Debug, Default)]
struct Window {
    started: Millis,
    count: u32,
}

impl Window {
    /// Counts one message, unless `max` were counted since the window started, less than `length`
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
