//! Floor 1. Messages from client to server: text goes in, one of the few requests of the protocol
//! comes out.
//!
//! Contract: parsing neither recurses nor keeps more than the strings that it had to unescape, so
//! no nesting or size is a threat beyond the limit on the message itself. `data` of client events
//! stays as the client sent it.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// A message of a client.
#[derive(Clone, Debug)]
pub enum Inbound<'a> {
    /// `pusher:ping`: asks for a pong.
    Ping,
    /// `pusher:pong`: answers the server's ping.
    Pong,
    /// `pusher:subscribe`.
    Subscribe {
        /// The channel's name, not checked yet.
        channel: Cow<'a, str>,
        /// The signature, `key:hex`. Client libraries send an empty one for public channels, which
        /// counts as none.
        auth: Option<Cow<'a, str>>,
        /// The JSON that was signed along with the channel. An empty text counts as none.
        channel_data: Option<Cow<'a, str>>,
    },
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// The channel's name, not checked yet.
        channel: Cow<'a, str>,
    },
    /// `pusher:signin`.
    SignIn {
        /// The signature, `key:hex`. An empty one counts as none.
        auth: Option<Cow<'a, str>>,
        /// The text that was signed. It should be JSON, which is not checked yet.
        user_data: Cow<'a, str>,
    },
    /// `client-...`: an event for the other subscribers of a channel.
    ClientEvent {
        /// The event's name, not checked yet.
        event: Cow<'a, str>,
        /// The channel's name, not checked yet.
        channel: Cow<'a, str>,
        /// An object, array or string as it was sent. Null counts as none.
        data: Option<&'a RawValue>,
    },
    /// An event of another name, which is dropped without an answer, as Reverb does.
    Ignored,
}

/// The text is no message of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<serde_json::Error> for Malformed {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// Reads one text message.
///
/// As in Reverb, `data` of `pusher:` messages may be an object or a string that holds one. Client
/// events may carry any string, not only one that holds JSON; numbers and booleans are refused. A
/// repeated key is refused, because readers do not agree on which value counts.
///
/// # Errors
/// [`Malformed`] for anything else, unknown `pusher:` events included.
pub fn parse(text: &str) -> Result<Inbound<'_>, Malformed> {
    let message: ClientMessage<'_> = object(text)?;
    match &*message.event {
        "pusher:ping" => Ok(Inbound::Ping),
        "pusher:pong" => Ok(Inbound::Pong),
        "pusher:subscribe" => subscribe(ChannelRequest::parse(message.data)?),
        "pusher:unsubscribe" => {
            Ok(Inbound::Unsubscribe { channel: ChannelRequest::parse(message.data)?.channel.0 })
        }
        "pusher:signin" => {
            let SignInRequest { auth, user_data } = SignInRequest::parse(message.data)?;
            Ok(Inbound::SignIn { auth: auth.and_then(Text::non_empty), user_data: user_data.0 })
        }
        "" => Err(Malformed),
        event if event.starts_with("pusher:") => Err(Malformed),
        _ => client_event(message),
    }
}

/// Reads a JSON object. An array is refused, although serde would read a struct from it.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Malformed> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(Malformed);
    }
    Ok(serde_json::from_str(json)?)
}

#[derive(Deserialize)]
struct ClientMessage<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<Text<'a>>,
}

/// The `data` of a subscribe or an unsubscribe.
#[derive(Deserialize)]
struct ChannelRequest<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow, default)]
    auth: Option<Text<'a>>,
    #[serde(borrow, default)]
    channel_data: Option<Text<'a>>,
}

/// The `data` of a sign-in.
#[derive(Deserialize)]
struct SignInRequest<'a> {
    #[serde(borrow, default)]
    auth: Option<Text<'a>>,
    #[serde(borrow)]
    user_data: Text<'a>,
}

/// A string that is borrowed when it has no escapes. serde would not borrow a bare
/// `Option<Cow<str>>`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    fn non_empty(self) -> Option<Cow<'a, str>> {
        Some(self.0).filter(|text| !text.is_empty())
    }

    fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> ChannelRequest<'a> {
    fn parse(data: Option<&'a RawValue>) -> Result<Self, Malformed> {
        let json = data.ok_or(Malformed)?.get();
        if !json.starts_with('"') {
            return object(json);
        }
        let json: String = serde_json::from_str(json)?;
        let request: ChannelRequest<'_> = object(&json)?;
        Ok(ChannelRequest {
            channel: request.channel.into_owned(),
            auth: request.auth.map(Text::into_owned),
            channel_data: request.channel_data.map(Text::into_owned),
        })
    }
}

impl<'a> SignInRequest<'a> {
    fn parse(data: Option<&'a RawValue>) -> Result<Self, Malformed> {
        let json = data.ok_or(Malformed)?.get();
        if !json.starts_with('"') {
            return object(json);
        }
        let json: String = serde_json::from_str(json)?;
        let request: SignInRequest<'_> = object(&json)?;
        let (auth, user_data) = (request.auth, request.user_data);
        Ok(SignInRequest { auth: auth.map(Text::into_owned), user_data: user_data.into_owned() })
    }
}

fn subscribe(request: ChannelRequest<'_>) -> Result<Inbound<'_>, Malformed> {
    let channel_data = request.channel_data.and_then(Text::non_empty);
    if let Some(json) = &channel_data {
        serde_json::from_str::<IgnoredAny>(json)?;
    }
    let auth = request.auth.and_then(Text::non_empty);
    Ok(Inbound::Subscribe { channel: request.channel.0, auth, channel_data })
}

fn client_event(message: ClientMessage<'_>) -> Result<Inbound<'_>, Malformed> {
    let ClientMessage { event, data, channel } = message;
    let channel = channel.ok_or(Malformed)?.0;
    if data.is_some_and(|data| !data.get().starts_with(['{', '[', '"'])) {
        return Err(Malformed);
    }
    if event.starts_with("client-") {
        Ok(Inbound::ClientEvent { event, channel, data })
    } else {
        Ok(Inbound::Ignored)
    }
}

#[cfg(test)]
mod tests;
