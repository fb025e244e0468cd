//! Messages of open WebSockets that are refused, and WebSockets that are closed.

use std::borrow::Cow;
use std::fmt;

use crate::protocol::app::App;
use crate::protocol::auth::AuthError;
use crate::protocol::close::ProtocolError;
use crate::protocol::message::{self, Inbound};
use crate::protocol::names::NameError;
use crate::text::Shortened;

use super::{Cause, shown};

/// A refused message, with what its sentence needs.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// The error that the client was told.
    pub(crate) error: ProtocolError,
    /// The part of the message that it is about.
    pub(crate) about: About<'a>,
    /// The client's app.
    pub(crate) app: &'a App,
}

/// The subject of a refused message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// The whole message as received. It may have a signature in it, which is not told.
    Text(&'a str),
    /// A channel.
    Channel(&'a str),
    /// A sign-in.
    SignIn,
}

/// The facts that the text of a message tells, read anew because only a sentence needs them.
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
    fn of(about: About<'a>) -> Self {
        let text = match about {
            About::Channel(channel) => {
                return Self { channel: Some(channel.into()), ..Self::default() };
            }
            About::SignIn => return Self::default(),
            About::Text(text) => text,
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

impl Message<'_> {
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

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ProtocolError::WatchlistTooLong = self.error {
            return write!(
                f,
                "sign-in taken with 4302: of its watchlist the first {} users are watched: raise \
                 app.max_watchlist",
                self.app.limits.max_watchlist
            );
        }
        let facts = Facts::of(self.about);
        match (&facts.event, &facts.channel) {
            (Some(event), Some(channel)) => {
                write!(f, "client event {} on {} ", shown(event), shown(channel))?;
            }
            (None, Some(channel)) if matches!(self.error, ProtocolError::NotMember) => {
                write!(f, "client event on {} ", shown(channel))?;
            }
            (_, Some(channel)) => write!(f, "subscription to {} ", shown(channel))?,
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

impl Message<'_> {
    fn unauthorised(
        &self,
        f: &mut fmt::Formatter<'_>,
        error: AuthError,
        facts: &Facts<'_>,
    ) -> fmt::Result {
        let limits = &self.app.limits;
        match error {
            AuthError::Missing => f.write_str(
                "it came without a signature: the page has to ask the app for one \
                 (/broadcasting/auth), and Echo does for its private and presence channels",
            ),
            AuthError::WrongKey => match &facts.key {
                Some(key) => write!(
                    f,
                    "it is signed with the key {}, and the app's key is {}: REVERB_APP_KEY of the \
                     app that signs has to be this one's (php artisan config:clear there)",
                    Shortened(key),
                    Shortened(&self.app.key)
                ),
                None => f.write_str("its signature names no key: it has to be KEY:SIGNATURE"),
            },
            AuthError::Signature => f.write_str(
                "its key is the app's, and its signature does not fit: REVERB_APP_SECRET of the app \
                 that signs is not this one's (php artisan config:clear there), or it signed \
                 another channel or another connection's socket id",
            ),
            AuthError::ChannelData => f.write_str(
                "channel_data has no user_id: the authorisation of a presence channel has to return \
                 the user (an array in routes/channels.php)",
            ),
            AuthError::UserData => {
                f.write_str("user_data has no id of text, or a watchlist that is no list of ids")
            }
            AuthError::OtherUser => f.write_str(
                "the connection is signed in as another user: it has to connect anew for this one",
            ),
            AuthError::SignInNeeded => f.write_str(
                "the channel is for the connections of that user alone, and this one is not signed \
                 in as the user: call pusher.signin() first",
            ),
            AuthError::UserIdTooLong => write!(
                f,
                "the id of a user is longer than {} bytes: raise app.max_user_id",
                limits.max_user_id
            ),
            AuthError::UserInfoTooLarge => write!(
                f,
                "user_info is larger than {} bytes: raise app.max_presence_user_info, or sign less",
                limits.max_presence_user_info.unwrap_or_default()
            ),
        }
    }

    fn channel_name(&self, f: &mut fmt::Formatter<'_>, error: NameError) -> fmt::Result {
        match error {
            NameError::Empty => f.write_str("its name is empty"),
            NameError::TooLong { max_len } => {
                write!(f, "its name is longer than {max_len} bytes: raise app.max_channel_name")
            }
            NameError::Alphabet if self.app.strict_names => f.write_str(
                "its name has a character outside of Pusher's alphabet: app.strict_names = false \
                 takes it",
            ),
            NameError::Alphabet => f.write_str("its name has a control character"),
        }
    }

    fn limit(&self, f: &mut fmt::Formatter<'_>, error: ProtocolError) -> fmt::Result {
        let limits = &self.app.limits;
        match error {
            ProtocolError::TooManyChannels => write!(
                f,
                "the connection has {} subscriptions, as many as it may: raise \
                 app.max_channels_per_connection",
                limits.max_channels_per_connection
            ),
            ProtocolError::TooManyMembers => write!(
                f,
                "the channel has {} members, as many as it may: raise app.max_presence_members",
                limits.max_presence_members.unwrap_or_default()
            ),
            ProtocolError::RateLimited => self.rate(f),
            ProtocolError::NotMember => f.write_str(
                "its sender is not subscribed to the channel: let it subscribe first, or set \
                 app.accept_client_events_from = \"all\"",
            ),
            ProtocolError::ClientEventsOff => f.write_str(
                "the app takes no client events: set app.accept_client_events_from = \"members\" \
                 (REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM)",
            ),
            ProtocolError::ClientEventOnPublic => f.write_str(
                "client events are for private and presence channels: use one, or set \
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
                limits.max_client_event_data.unwrap_or_default()
            ),
            ProtocolError::AppDisabled => f.write_str("the app is switched off"),
            ProtocolError::MemoryShort => f.write_str(
                "memory is short, and it would take more of it: raise the limit of memory \
                 (MemoryMax=, --memory, server.memory_limit), or take less of it",
            ),
            _ => {
                let text = match self.about {
                    About::Text(text) | About::Channel(text) => text,
                    About::SignIn => "",
                };
                write!(f, "it is not of the Pusher protocol: {}", shown(text))
            }
        }
    }

    fn rate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(limit) = self.app.rate_limit {
            write!(
                f,
                "the connection sends more than {} messages in {} s (app.rate_limiting)",
                limit.max_attempts,
                limit.decay.as_secs()
            )?;
        }
        match (self.app.limits.max_client_events_per_second, self.app.rate_limit) {
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

/// An open WebSocket that is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Its app is switched off, or was removed.
    Disabled,
    /// It sent a message that is too long.
    MessageTooLong {
        /// The longest message that is taken, in bytes.
        most: usize,
    },
    /// It broke RFC 6455; the close code.
    Frames(u16),
    /// It does not read what it is sent.
    SlowReader {
        /// The bytes that may wait for one connection.
        most: usize,
    },
    /// It showed no signature within so many seconds.
    AuthenticationTimeout(u64),
    /// Messages of which not all had come took too much memory, and it sent more of one.
    Unfinished {
        /// The bytes that all such messages of a shard may take.
        most: usize,
    },
    /// Memory is nearly spent, and no other connection of its shard holds more.
    Memory {
        /// The number of its subscriptions.
        subscriptions: usize,
        /// The bytes that its subscriptions hold.
        bytes: usize,
    },
}

impl Ending {
    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::Disabled => Cause::Disabled,
            Self::MessageTooLong { .. } => Cause::MessageTooLong,
            Self::Frames(_) => Cause::Frames,
            Self::SlowReader { .. } => Cause::SlowReader,
            Self::AuthenticationTimeout(_) => Cause::AuthenticationTimeout,
            Self::Unfinished { .. } => Cause::Unfinished,
            Self::Memory { .. } => Cause::Heaviest,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str(
                "connection closed with 4003: its app is switched off, or is not configured any \
                 more",
            ),
            Self::MessageTooLong { most } => write!(
                f,
                "connection closed with 1009: a message is longer than {most} bytes: raise \
                 app.max_message_size (REVERB_APP_MAX_MESSAGE_SIZE)"
            ),
            Self::Frames(code) => write!(
                f,
                "connection closed with {code}: the client's frames break RFC 6455: see which \
                 client it is"
            ),
            Self::SlowReader { most } => write!(
                f,
                "connection closed with 4101: the client reads too slowly, and at most {most} \
                 bytes may wait for one (server.backlog_per_connection), or those of all clients \
                 took more than server.backlog_per_shard"
            ),
            Self::AuthenticationTimeout(seconds) => write!(
                f,
                "connection closed with 4009: it neither signed in nor subscribed with a signature \
                 within {seconds} s (app.user_authentication_timeout)"
            ),
            Self::Unfinished { most } => write!(
                f,
                "connection closed with 4100: messages of which only a part has come take more \
                 than {most} bytes, and this one became longer: see who sends them, or raise the \
                 limit of memory"
            ),
            Self::Memory { subscriptions, bytes } => write!(
                f,
                "connection closed with 4100: memory is nearly spent, and its {subscriptions} \
                 subscriptions hold {bytes} bytes, the most of all: lower \
                 app.max_channels_per_connection, or raise the limit of memory"
            ),
        }
    }
}
