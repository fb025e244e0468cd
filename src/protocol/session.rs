//! Floor 2. One connection's side of the protocol, without its socket.
//!
//! Contract: [`Session::established`] is sent first. Then every whole text message goes through
//! [`Session::handle`], with the time, in order; the returned [`Action`] is carried out before the
//! next message. The session knows the app's rules; it does not know which channels the connection
//! is subscribed to, so membership and the limits on numbers are the shard's to check.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::frame::Frame;
use crate::id::SocketId;
use crate::time::Millis;

use super::app::{Admission, App, ClientEvents};
use super::auth::{Authorised, authorise};
use super::close::{ProtocolError, error_frame, subscribe_refusal};
use super::message::{self, Inbound};
use super::names::{ChannelKind, ChannelName, valid_event_name};
use super::outbound;
use super::signing::query_pairs;

/// One connection: its place among the app's connections, its id and its counts.
#[derive(Debug)]
pub struct Session {
    admission: Admission,
    socket_id: SocketId,
    /// All messages, for the app's rate limit.
    messages: Window,
    /// Client events, for the app's limit per second.
    client_events: Window,
}

/// What a message asks of the shard.
#[derive(Debug)]
pub enum Action<'t> {
    /// Nothing.
    Nothing,
    /// Send this.
    Reply(Frame),
    /// Join the channel, as the member that the proof names.
    Subscribe(Authorised),
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
    pub fn new(admission: Admission, socket_id: SocketId) -> Self {
        let (messages, client_events) = (Window::default(), Window::default());
        Self { admission, socket_id, messages, client_events }
    }

    /// The first message to the client.
    #[must_use]
    pub fn established(&self) -> Frame {
        outbound::connection_established(self.socket_id, self.app().activity_timeout_s)
    }

    /// The app that the connection belongs to.
    #[must_use]
    pub const fn app(&self) -> &Arc<App> {
        self.admission.app()
    }

    /// The connection's name on the wire.
    #[must_use]
    pub const fn socket_id(&self) -> SocketId {
        self.socket_id
    }

    /// Takes one text message. Binary messages are taken as text too, as Reverb does; those that
    /// are not UTF-8 are [`ProtocolError::Malformed`].
    pub fn handle<'t>(&mut self, text: &'t str, now: Millis) -> Action<'t> {
        if let Some(limit) = self.admission.app().rate_limit
            && !self.messages.admits(limit.max_attempts, limit.decay, now)
        {
            let error = ProtocolError::RateLimited;
            return if limit.terminate { Action::Close(error) } else { refuse(error) };
        }
        match message::parse(text) {
            Ok(Inbound::Ping) => Action::Reply(outbound::pong()),
            Ok(Inbound::Pong | Inbound::Ignored) => Action::Nothing,
            Ok(Inbound::Subscribe { channel, auth, channel_data }) => {
                self.subscribe(&channel, auth.as_deref(), channel_data.as_deref())
            }
            Ok(Inbound::Unsubscribe { channel }) => Action::Unsubscribe(channel),
            Ok(Inbound::ClientEvent { event, channel, data }) => self
                .client_event(event, &channel, data, now)
                .map_or_else(refuse, Action::ClientEvent),
            Err(message::Malformed) => refuse(ProtocolError::Malformed),
        }
    }

    fn subscribe(
        &self,
        channel: &str,
        auth: Option<&str>,
        channel_data: Option<&str>,
    ) -> Action<'static> {
        let app = self.app();
        let authorised = self.channel(channel).and_then(|name| {
            authorise(app, self.socket_id, name, auth, channel_data)
                .map_err(ProtocolError::Unauthorised)
        });
        authorised.map_or_else(
            |error| {
                Action::Refuse(error, subscribe_refusal(error, channel, app.subscription_errors))
            },
            Action::Subscribe,
        )
    }

    fn client_event<'t>(
        &mut self,
        event: Cow<'t, str>,
        channel: &str,
        data: Option<&'t RawValue>,
        now: Millis,
    ) -> Result<ClientEvent<'t>, ProtocolError> {
        let app = self.admission.app();
        if app.client_events == ClientEvents::None {
            return Err(ProtocolError::ClientEventsOff);
        }
        let channel = self.channel(channel)?;
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
            && !self.client_events.admits(max, Duration::from_secs(1), now)
        {
            return Err(ProtocolError::RateLimited);
        }
        let must_be_member = app.client_events == ClientEvents::Members;
        Ok(ClientEvent { channel, event, data, must_be_member })
    }

    fn channel(&self, name: &str) -> Result<ChannelName, ProtocolError> {
        let app = self.app();
        ChannelName::parse(name, app.limits.max_channel_name, app.strict_names)
            .map_err(ProtocolError::ChannelName)
    }
}

/// Decides by the `protocol` parameter of the upgrade's query. 5, 6 and 7 look the same to a
/// server; without one, which Pusher refuses and Reverb takes, the client means the current one.
///
/// # Errors
/// [`ProtocolError::UnsupportedVersion`] for any other.
pub fn check_protocol_version(query: &str) -> Result<(), ProtocolError> {
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
