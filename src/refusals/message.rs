//! Messages of open WebSockets that are refused.

use std::borrow::Cow;
use std::fmt;

use crate::apps::App;
use crate::protocol::auth::AuthError;
use crate::protocol::close::ProtocolError;
use crate::protocol::message::{self, Inbound};
use crate::protocol::names::NameError;
use crate::text::Shortened;

use super::cause::Cause;
use super::phrases::{Reached, quoted};

/// A refused message, with the facts that its sentence needs.
#[derive(Debug)]
pub(crate) struct RefusedMessage<'a> {
    /// The error that was sent to the client.
    pub(crate) error: ProtocolError,
    /// The part of the message that the error is about.
    pub(crate) subject: MessageSubject<'a>,
    /// The client's app.
    pub(crate) app: &'a App,
}

/// The subject of a refused message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MessageSubject<'a> {
    /// The whole message as received. It may hold a signature, which is not logged.
    Text(&'a str),
    /// The channel that it names.
    Channel(&'a str),
    /// The sign-in that it is.
    SignIn,
}

/// The facts in the text of a message. They are parsed again here, because only a logged sentence
/// needs them.
#[derive(Default)]
struct Facts<'a> {
    /// The channel that it names.
    channel: Option<Cow<'a, str>>,
    /// The event, of a client event.
    event: Option<Cow<'a, str>>,
    /// The key that its signature names.
    key: Option<String>,
}

impl<'a> Facts<'a> {
    fn of(subject: MessageSubject<'a>) -> Self {
        let text = match subject {
            MessageSubject::Channel(channel) => {
                return Self { channel: Some(channel.into()), ..Self::default() };
            }
            MessageSubject::SignIn => return Self::default(),
            MessageSubject::Text(text) => text,
        };
        // A key may have a colon in it; a signature has none.
        let key = |auth: Option<Cow<'_, str>>| Some(auth?.rsplit_once(':')?.0.to_owned());
        match message::parse(text) {
            Ok(Inbound::Subscribe { channel, auth, .. }) => {
                Self { channel: Some(channel), event: None, key: key(auth) }
            }
            Ok(Inbound::SignIn { auth, .. }) => Self { key: key(auth), ..Self::default() },
            Ok(Inbound::ClientEvent { event, channel, .. }) => {
                Self { channel: Some(channel), event: Some(event), key: None }
            }
            _ => Self::default(),
        }
    }
}

impl RefusedMessage<'_> {
    pub(super) const fn cause(&self) -> Cause {
        match self.error {
            ProtocolError::Unauthorised(error) => match error {
                AuthError::Missing => Cause::AuthMissing,
                AuthError::WrongKey => Cause::AuthKey,
                AuthError::Signature => Cause::AuthSignature,
                AuthError::OtherUser | AuthError::SignInNeeded => Cause::AuthUser,
                AuthError::ChannelData
                | AuthError::UserData
                | AuthError::UserIdTooLong
                | AuthError::UserInfoTooLarge => Cause::AuthData,
            },
            ProtocolError::ChannelName(_) => Cause::ChannelName,
            ProtocolError::TooManyChannels => Cause::Channels,
            ProtocolError::TooManyMembers => Cause::Members,
            ProtocolError::WatchlistTooLong => Cause::Watchlist,
            ProtocolError::RateLimited => Cause::MessageRate,
            ProtocolError::NotMember => Cause::NotMember,
            ProtocolError::ClientEventsOff
            | ProtocolError::ClientEventOnPublic
            | ProtocolError::ClientEventName
            | ProtocolError::ClientEventTooLarge => Cause::ClientEvent,
            ProtocolError::AppDisabled => Cause::Disabled,
            ProtocolError::MemoryShort => Cause::MemoryOfMessages,
            _ => Cause::Malformed,
        }
    }
}

impl fmt::Display for RefusedMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ProtocolError::WatchlistTooLong = self.error {
            return write!(
                f,
                "sign-in accepted with error 4302: its watchlist is too long, so only the first {} \
                 users are watched: raise app.max_watchlist",
                self.app.rules.limits.max_watchlist
            );
        }
        let facts = Facts::of(self.subject);
        match (&facts.event, &facts.channel) {
            (Some(event), Some(channel)) => {
                write!(f, "client event {} on {} ", quoted(event), quoted(channel))?;
            }
            (None, Some(channel)) if matches!(self.error, ProtocolError::NotMember) => {
                write!(f, "client event on {} ", quoted(channel))?;
            }
            (_, Some(channel)) => write!(f, "subscription to {} ", quoted(channel))?,
            (_, None)
                if matches!(
                    self.error,
                    ProtocolError::Unauthorised(_) | ProtocolError::MemoryShort
                ) =>
            {
                f.write_str("sign-in ")?;
            }
            _ => f.write_str("message ")?,
        }
        write!(f, "refused with {}: ", self.error.code())?;
        match self.error {
            ProtocolError::Unauthorised(error) => self.unauthorised(f, error, &facts),
            ProtocolError::ChannelName(error) => self.channel_name(f, error),
            error => self.limit(f, error),
        }
    }
}

impl RefusedMessage<'_> {
    fn unauthorised(
        &self,
        f: &mut fmt::Formatter<'_>,
        error: AuthError,
        facts: &Facts<'_>,
    ) -> fmt::Result {
        let limits = &self.app.rules.limits;
        match error {
            AuthError::Missing => f.write_str(
                "it has no signature: the page has to ask the app for one (/broadcasting/auth), as \
                 Echo does for private and presence channels",
            ),
            AuthError::WrongKey => match &facts.key {
                Some(key) => write!(
                    f,
                    "it is signed with the key {}, and the app's key is {}: REVERB_APP_KEY of the \
                     app that signs has to be this one's (run php artisan config:clear there)",
                    Shortened(key),
                    Shortened(&self.app.rules.key)
                ),
                None => f.write_str("its signature names no key: it has to be KEY:SIGNATURE"),
            },
            AuthError::Signature => f.write_str(
                "its key is the app's, but its signature is wrong: REVERB_APP_SECRET of the app that \
                 signs is not this one's (run php artisan config:clear there), or it signed \
                 another channel or another connection's socket id",
            ),
            AuthError::ChannelData => f.write_str(
                "channel_data has no user_id: the authorisation of a presence channel has to return \
                 the user (an array in routes/channels.php)",
            ),
            AuthError::UserData => {
                f.write_str("user_data has no string as its id, or its watchlist is no list of ids")
            }
            AuthError::OtherUser => f.write_str(
                "the connection is signed in as another user: this user needs a new connection",
            ),
            AuthError::SignInNeeded => f.write_str(
                "only connections of that user may subscribe to it, and this one is not signed in as \
                 that user: call pusher.signin() first",
            ),
            AuthError::UserIdTooLong => write!(
                f,
                "the id of a user is longer than {} bytes: raise app.max_user_id",
                limits.max_user_id
            ),
            AuthError::UserInfoTooLarge => write!(
                f,
                "user_info is larger than {} bytes: raise app.max_presence_user_info, or sign less",
                Reached(limits.max_presence_user_info)
            ),
        }
    }

    fn channel_name(&self, f: &mut fmt::Formatter<'_>, error: NameError) -> fmt::Result {
        match error {
            NameError::Empty => f.write_str("its name is empty"),
            NameError::TooLong { max_len } => {
                write!(f, "its name is longer than {max_len} bytes: raise app.max_channel_name")
            }
            NameError::Alphabet if self.app.rules.strict_names => f.write_str(
                "its name has a character that Pusher does not allow: set app.strict_names = false \
                 to allow it",
            ),
            NameError::Alphabet => f.write_str("its name has a control character"),
        }
    }

    fn limit(&self, f: &mut fmt::Formatter<'_>, error: ProtocolError) -> fmt::Result {
        let limits = &self.app.rules.limits;
        match error {
            ProtocolError::TooManyChannels => write!(
                f,
                "the connection has {} subscriptions, its maximum: raise \
                 app.max_channels_per_connection",
                limits.max_channels_per_connection
            ),
            ProtocolError::TooManyMembers => write!(
                f,
                "the channel has {} members, its maximum: raise app.max_presence_members",
                Reached(limits.max_presence_members)
            ),
            ProtocolError::RateLimited => self.rate(f),
            ProtocolError::NotMember => f.write_str(
                "its sender is not subscribed to the channel: subscribe first, or set \
                 app.accept_client_events_from = \"all\"",
            ),
            ProtocolError::ClientEventsOff => f.write_str(
                "the app takes no client events: set app.accept_client_events_from = \"members\" \
                 (REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM)",
            ),
            ProtocolError::ClientEventOnPublic => f.write_str(
                "client events need a private or presence channel: use one, or set \
                 app.client_events_on_public = true",
            ),
            ProtocolError::ClientEventName => {
                f.write_str("the event's name has control characters")?;
                limits.max_event_name.map_or(Ok(()), |most| {
                    write!(f, ", or more than {most} bytes: raise app.max_event_name")
                })
            }
            ProtocolError::ClientEventTooLarge => write!(
                f,
                "the event's data has more than {} bytes: raise app.max_client_event_data",
                Reached(limits.max_client_event_data)
            ),
            ProtocolError::AppDisabled => f.write_str("the app is switched off"),
            ProtocolError::MemoryShort => f.write_str(
                "memory is short: raise its limit (MemoryMax=, --memory, server.memory_limit), or use \
                 fewer subscriptions",
            ),
            _ => {
                let text = match self.subject {
                    MessageSubject::Text(text) | MessageSubject::Channel(text) => text,
                    MessageSubject::SignIn => "",
                };
                write!(f, "it is not of the Pusher protocol: {}", quoted(text))
            }
        }
    }

    fn rate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(limit) = self.app.rules.rate_limit {
            write!(
                f,
                "the connection sends more than {} messages in {} s (app.rate_limiting)",
                limit.max_attempts,
                limit.decay.as_secs()
            )?;
        }
        match (self.app.rules.limits.max_client_events_per_second, self.app.rules.rate_limit) {
            (Some(most), before) => write!(
                f,
                "{}it sends more than {most} client events per second \
                 (app.max_client_events_per_second)",
                if before.is_some() { ", or " } else { "" }
            ),
            (None, _) => Ok(()),
        }
    }
}
