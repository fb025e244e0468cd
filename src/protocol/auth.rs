//! Floor 1. The proof that a connection may join a channel.
//!
//! Contract: an [`Authorised`] exists only because a signature of the app fitted, or because the
//! channel's kind asks for none.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::id::SocketId;

use super::message::object;
use super::names::ChannelName;
use super::rules::AppRules;

/// A connection's right to join one channel, with the member as whom it joins.
#[derive(Debug)]
pub struct Authorised {
    channel: ChannelName,
    member: Option<Arc<Member>>,
}

impl Authorised {
    /// The channel that may be joined.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// The member that joins. Present for presence channels and for no others.
    #[must_use]
    pub const fn member(&self) -> Option<&Arc<Member>> {
        self.member.as_ref()
    }

    /// The proof as a test assumes it, without a signature.
    #[cfg(test)]
    pub(crate) const fn assumed(channel: ChannelName, member: Option<Arc<Member>>) -> Self {
        Self { channel, member }
    }
}

/// A user as the app signed it: a member of a presence channel, or the user of a connection that is
/// signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The user id as text: members with equal texts are the same user (10 and `"10"` too).
    pub user_id: Arc<str>,
    /// The user id in the JSON form that was signed: `10` or `"10"`.
    pub(crate) id_json: Box<str>,
    /// The information that the app gives about the user, JSON as signed. Null is the same as none.
    pub(crate) user_info: Option<Box<str>>,
}

impl Member {
    /// The bytes of its texts.
    #[must_use]
    pub(crate) fn text_bytes(&self) -> usize {
        let user_info = self.user_info.as_ref().map_or(0, |info| info.len());
        self.user_id.len() + self.id_json.len() + user_info
    }
}

/// The reason why a subscription or a sign-in was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The channel needs a signature, and the client sent none.
    Missing,
    /// The signature names a key that is none of the app's.
    WrongKey,
    /// The signature is not 64 hexadecimal digits, or not the one of the app's secret.
    Signature,
    /// The `channel_data` is not an object with a `user_id` of text or number, or it is missing for
    /// a presence channel and the connection is not signed in.
    ChannelData,
    /// The `user_data` is not an object with an `id` of text and, optionally, a `watchlist` of ids.
    UserData,
    /// The connection is signed in as another user already.
    OtherUser,
    /// The `user_id` is longer than the app allows.
    UserIdTooLong,
    /// The `user_info` is larger than the app allows.
    UserInfoTooLarge,
    /// The channel belongs to a user, and the connection is not signed in as that user.
    SignInNeeded,
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the channel needs a signature",
            Self::WrongKey => "the signature names another key",
            Self::Signature => "the signature does not fit",
            Self::ChannelData => "channel_data has no valid user_id",
            Self::UserData => "user_data has no valid id or watchlist",
            Self::OtherUser => "the connection is signed in as another user",
            Self::UserIdTooLong => "the user_id is too long",
            Self::UserInfoTooLarge => "the user_info is too large",
            Self::SignInNeeded => "the connection is not signed in as that user",
        })
    }
}

impl std::error::Error for AuthError {}

/// Decides whether the connection `socket_id` may join `channel`. `user` is its signed-in user, if
/// any.
///
/// The signature is that of the Pusher protocol: `key:hex(HMAC-SHA256(secret,
/// socket_id:channel[:channel_data]))`, by any of the app's keys. As in Reverb, `channel_data` is
/// signed whenever it is sent, on private channels too. Channels that need no signature ignore it.
/// A connection that is signed in may leave out the `channel_data` of a presence channel. The
/// channel of a user takes only connections that are signed in as that user.
///
/// # Errors
/// The reason, for the log: clients are told no more than that they are not authorised.
pub fn authorise(
    rules: &AppRules,
    socket_id: SocketId,
    channel: ChannelName,
    auth: Option<&str>,
    channel_data: Option<&str>,
    user: Option<&Arc<Member>>,
) -> Result<Authorised, AuthError> {
    let kind = channel.kind();
    if let Some(owner) = channel.user()
        && user.is_none_or(|user| *user.user_id != *owner)
    {
        return Err(AuthError::SignInNeeded);
    }
    if !kind.needs_signature() {
        return Ok(Authorised { channel, member: None });
    }
    verify_channel(rules, socket_id, &channel, auth, channel_data)?;
    let member = match (kind.is_presence(), channel_data, user) {
        (false, _, _) => None,
        (true, Some(channel_data), _) => Some(Arc::new(member(rules, channel_data)?)),
        (true, None, Some(user)) => {
            check_info_len(rules, user.user_info.as_deref())?;
            Some(Arc::clone(user))
        }
        (true, None, None) => return Err(AuthError::ChannelData),
    };
    Ok(Authorised { channel, member })
}

fn verify_channel(
    rules: &AppRules,
    socket_id: SocketId,
    channel: &str,
    auth: Option<&str>,
    channel_data: Option<&str>,
) -> Result<(), AuthError> {
    let socket_id = socket_id.to_string();
    let parts = [socket_id.as_bytes(), b":", channel.as_bytes(), b":"];
    match channel_data {
        None => verify(rules, auth, &parts[..3]),
        Some(data) => verify(rules, auth, &[&parts[..], &[data.as_bytes()]].concat()),
    }
}

/// Checks that `auth` is `key:hex` with a key of the app and its signature of the parts. The last
/// colon counts, because a key may have colons (`base64:...`).
pub(super) fn verify(
    rules: &AppRules,
    auth: Option<&str>,
    parts: &[&[u8]],
) -> Result<(), AuthError> {
    let auth = auth.ok_or(AuthError::Missing)?;
    let (key, signature) = auth.rsplit_once(':').ok_or(AuthError::WrongKey)?;
    let secret = rules.secret_of(key).ok_or(AuthError::WrongKey)?;
    if secret.verify(parts, signature) { Ok(()) } else { Err(AuthError::Signature) }
}

fn member(rules: &AppRules, channel_data: &str) -> Result<Member, AuthError> {
    #[derive(Deserialize)]
    struct ChannelData<'a> {
        #[serde(borrow)]
        user_id: &'a RawValue,
        #[serde(borrow, default)]
        user_info: Option<&'a RawValue>,
    }
    let data: ChannelData<'_> = object(channel_data).map_err(|_| AuthError::ChannelData)?;
    let id_json = data.user_id.get();
    let user_id = user_id_text(id_json).ok_or(AuthError::ChannelData)?;
    if user_id.len() > rules.limits.max_user_id {
        return Err(AuthError::UserIdTooLong);
    }
    let user_info = data.user_info.map(RawValue::get);
    check_info_len(rules, user_info)?;
    Ok(Member {
        user_id: user_id.into(),
        id_json: id_json.into(),
        user_info: user_info.map(Into::into),
    })
}

fn check_info_len(rules: &AppRules, user_info: Option<&str>) -> Result<(), AuthError> {
    let len_max = rules.limits.max_presence_user_info.unwrap_or(usize::MAX);
    let fits = user_info.is_none_or(|info| info.len() <= len_max);
    if fits { Ok(()) } else { Err(AuthError::UserInfoTooLarge) }
}

/// Reads the text of a user id: a string that is not empty, or a number in the digits that were
/// signed.
pub(super) fn user_id_text(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok().filter(|id: &String| !id.is_empty()),
        b'-' | b'0'..=b'9' => Some(json.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
