//! Floor 2. The app's secret, and the proof that a connection may join a channel.
//!
//! Contract: an [`Authorised`] exists only because a signature of the app fitted, or because the
//! channel's kind asks for none. Signatures are decoded first and compared in constant time; the
//! secret itself is not kept, only the HMAC state made of it, and nothing prints that.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::id::SocketId;

use super::app::App;
use super::message::object;
use super::names::ChannelName;

/// A connection's right to join one channel, and as whom.
#[derive(Debug)]
pub struct Authorised {
    channel: ChannelName,
    member: Option<Arc<Member>>,
}

impl Authorised {
    /// The channel that may be joined.
    #[cfg(feature = "testing")]
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        &self.channel
    }

    /// The member that joins. Present for presence channels and for no others.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn member(&self) -> Option<&Member> {
        self.member.as_deref()
    }

    /// Both, owned.
    #[must_use]
    pub(crate) fn into_parts(self) -> (ChannelName, Option<Arc<Member>>) {
        (self.channel, self.member)
    }
}

/// A user as the app signed it: a member of a presence channel, or whom a connection is signed in
/// as.
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
    /// Bytes of its texts.
    #[must_use]
    pub(crate) fn text_bytes(&self) -> usize {
        let user_info = self.user_info.as_ref().map_or(0, |info| info.len());
        self.user_id.len() + self.id_json.len() + user_info
    }
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The channel needs a signature and none came.
    Missing,
    /// The signature names a key that is none of the app's.
    WrongKey,
    /// The signature is not 64 hexadecimal digits, or not the one of the app's secret.
    Signature,
    /// `channel_data` that is not an object with a `user_id` of text or number; or a presence
    /// channel without any, from a connection that is not signed in.
    ChannelData,
    /// `user_data` that is not an object with an `id` of text and a `watchlist` of ids, if any.
    UserData,
    /// A sign-in as somebody else than the connection is signed in as.
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

/// Decides whether the connection `socket_id` may join `channel`. `user` is the user that it is
/// signed in as, if any.
///
/// The signature is that of the Pusher protocol: `key:hex(HMAC-SHA256(secret,
/// socket_id:channel[:channel_data]))`, by any of the app's keys. As in Reverb, `channel_data` is
/// signed whenever it is sent, on private channels too. Channels that need no signature ignore one.
/// A connection that is signed in may leave out the `channel_data` of a presence channel. The
/// channel of a user takes only connections that are signed in as that user.
///
/// # Errors
/// The reason, for the log: clients are told no more than that they are not authorised.
pub fn authorise(
    app: &App,
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
    verify_channel(app, socket_id, &channel, auth, channel_data)?;
    let member = match (kind.is_presence(), channel_data, user) {
        (false, _, _) => None,
        (true, Some(channel_data), _) => Some(Arc::new(member(app, channel_data)?)),
        (true, None, Some(user)) => {
            check_info_len(app, user.user_info.as_deref())?;
            Some(Arc::clone(user))
        }
        (true, None, None) => return Err(AuthError::ChannelData),
    };
    Ok(Authorised { channel, member })
}

fn verify_channel(
    app: &App,
    socket_id: SocketId,
    channel: &str,
    auth: Option<&str>,
    channel_data: Option<&str>,
) -> Result<(), AuthError> {
    let socket_id = socket_id.to_string();
    let parts = [socket_id.as_bytes(), b":", channel.as_bytes(), b":"];
    match channel_data {
        None => verify(app, auth, &parts[..3]),
        Some(data) => verify(app, auth, &[&parts[..], &[data.as_bytes()]].concat()),
    }
}

/// Whether `auth` is `key:hex` with the app's key and its signature of the parts. A key may have
/// colons (`base64:...`), hexadecimal digits have none: the last one counts.
pub(super) fn verify(app: &App, auth: Option<&str>, parts: &[&[u8]]) -> Result<(), AuthError> {
    let auth = auth.ok_or(AuthError::Missing)?;
    let (key, signature) = auth.rsplit_once(':').ok_or(AuthError::WrongKey)?;
    let secret = app.secret_of(key).ok_or(AuthError::WrongKey)?;
    if secret.verify(parts, signature) { Ok(()) } else { Err(AuthError::Signature) }
}

fn member(app: &App, channel_data: &str) -> Result<Member, AuthError> {
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
    if user_id.len() > app.limits.max_user_id {
        return Err(AuthError::UserIdTooLong);
    }
    let user_info = data.user_info.map(RawValue::get);
    check_info_len(app, user_info)?;
    Ok(Member {
        user_id: user_id.into(),
        id_json: id_json.into(),
        user_info: user_info.map(Into::into),
    })
}

fn check_info_len(app: &App, user_info: Option<&str>) -> Result<(), AuthError> {
    let len_max = app.limits.max_presence_user_info.unwrap_or(usize::MAX);
    let fits = user_info.is_none_or(|info| info.len() <= len_max);
    if fits { Ok(()) } else { Err(AuthError::UserInfoTooLarge) }
}

/// The text of a user id: a string that is not empty, or a number in the digits that were signed.
pub(super) fn user_id_text(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok().filter(|id: &String| !id.is_empty()),
        b'-' | b'0'..=b'9' => Some(json.to_owned()),
        _ => None,
    }
}

/// The secret of an app, as the HMAC-SHA256 state that it makes. Printed as `[withheld]`.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Makes the state of a secret of any length.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        // RFC 2104 section 2: keys past the block size are hashed, others are padded with zeros.
        let mut block = [0; BLOCK_LEN];
        if secret.len() > BLOCK_LEN {
            block[..DIGEST_LEN].copy_from_slice(&Sha256::digest(secret));
        } else {
            block[..secret.len()].copy_from_slice(secret.as_bytes());
        }
        Self(Hmac::new(&block.into()))
    }

    /// Signs the parts as if they were one text: 64 hexadecimal digits.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.hmac_of(parts).finalize().into_bytes())
    }

    /// Whether `signature` is 64 hexadecimal digits, of either case, that sign the parts. Takes as
    /// long for a signature that is nearly right as for one that is not.
    #[must_use]
    pub(crate) fn verify(&self, parts: &[&[u8]], signature: &str) -> bool {
        let mut digest = [0; DIGEST_LEN];
        hex::decode_to_slice(signature, &mut digest).is_ok()
            && self.hmac_of(parts).verify_slice(&digest).is_ok()
    }

    fn hmac_of(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        parts.iter().fold(self.0.clone(), |hmac, part| hmac.chain_update(part))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[withheld]")
    }
}

/// SHA-256's block and digest in bytes (FIPS 180-4).
const BLOCK_LEN: usize = 64;
const DIGEST_LEN: usize = 32;

#[cfg(test)]
mod tests;
